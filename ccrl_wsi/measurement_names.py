"""What is measured on a nucleus: the columns, in the order in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccrl_wsi.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class Measurement:
    """One column.

    Parameters
    ----------
    name
        Column name in tables.
    unit
        Empty where the value is a ratio.
    display
        As people read it, in QuPath and in the report.
    description
        How it is defined.
    """

    name: str
    unit: str
    display: str
    description: str


MEASUREMENTS = (
    Measurement("area_um2", "um2", "Nucleus: Area µm^2", "Number of pixels times their area."),
    Measurement("perimeter_um", "um", "Nucleus: Perimeter µm", "Length of the outline."),
    Measurement(
        "equivalent_diameter_um",
        "um",
        "Nucleus: Equivalent diameter µm",
        "Diameter of the disc of equal area.",
    ),
    Measurement(
        "major_axis_um",
        "um",
        "Nucleus: Major axis µm",
        "Long axis of the ellipse with the outline's second moments.",
    ),
    Measurement("minor_axis_um", "um", "Nucleus: Minor axis µm", "Short axis of the same ellipse."),
    Measurement(
        "eccentricity",
        "",
        "Nucleus: Eccentricity",
        "0 for a circle, near 1 for a line: sqrt(1 - (minor / major)^2).",
    ),
    Measurement(
        "orientation_deg",
        "deg",
        "Nucleus: Orientation °",
        "Angle of the long axis to the x axis, 0 to 180, counter-clockwise on the screen.",
    ),
    Measurement(
        "circularity",
        "",
        "Nucleus: Circularity",
        "4 pi area / perimeter^2 of the outline: 1 for a circle.",
    ),
    Measurement(
        "solidity", "", "Nucleus: Solidity", "Outline's area / its convex hull's: 1 if convex."
    ),
    Measurement("extent", "", "Nucleus: Extent", "Number of pixels / those of the bounding box."),
    Measurement(
        "haematoxylin_mean",
        "OD",
        "Nucleus: Haematoxylin OD mean",
        "Mean optical density of haematoxylin (fixed stain vectors, white = 255).",
    ),
    Measurement(
        "haematoxylin_std", "OD", "Nucleus: Haematoxylin OD std dev", "Its standard deviation."
    ),
    Measurement("eosin_mean", "OD", "Nucleus: Eosin OD mean", "The same for eosin."),
    Measurement("eosin_std", "OD", "Nucleus: Eosin OD std dev", "Its standard deviation."),
    Measurement(
        "haematoxylin_around",
        "OD",
        "Around nucleus: Haematoxylin OD",
        "That of the mean colour of the pixels of no nucleus in the bounding box grown by 1.5 um; "
        "where there are none, the nucleus' own mean.",
    ),
    Measurement("eosin_around", "OD", "Around nucleus: Eosin OD", "The same for eosin."),
    Measurement(
        "gradient",
        "grey/um",
        "Nucleus: Gradient",
        "Root mean square of the grey value's slope (3 x 3 Sobel).",
    ),
    Measurement(
        "contrast",
        "grey^2",
        "Nucleus: Contrast",
        "Mean squared difference of grey values of neighbouring pixels (right and below), which "
        "is the contrast of the co-occurrence matrix.",
    ),
    Measurement(
        "grey_std", "grey", "Nucleus: Grey std dev", "Standard deviation of the grey values."
    ),
    Measurement(
        "entropy",
        "bit",
        "Nucleus: Entropy",
        "Entropy of the grey values in 16 equal bins: 0 for a flat nucleus, 4 at most.",
    ),
)

NAMES = tuple(measurement.name for measurement in MEASUREMENTS)
"""The columns' names, in order."""


def columns_of(measurements: FloatArray, names: Sequence[str]) -> FloatArray:
    """The columns called ``names`` of ``measurements`` (n, m), in the order asked for."""
    chosen: FloatArray = measurements[:, [NAMES.index(name) for name in names]]
    return chosen


def has_shapes(measurements: FloatArray) -> bool:
    """Whether ``SHAPE_NAMES`` follow the columns that every store has."""
    return bool(measurements.shape[1] == len(NAMES) + len(SHAPE_NAMES))


SHAPE_NAMES = (
    "area_um2",
    "perimeter_um",
    "equivalent_diameter_um",
    "vectors_perimeter_um",
    "polygon_perimeter_um",
    "polygon_area_um2",
    "ellipse_eccentricity",
    "ellipse_major_axis_um",
    "ellipse_minor_axis_um",
    "ellipse_area_um2",
    "ellipse_perimeter_um",
    "ellipse_variance",
    "circle_radius_um",
    "circle_perimeter_um",
    "circle_area_um2",
    "circle_variance",
    "curvature_mean_per_um",
    "curvature_std_per_um",
    "n_protrusions",
    "n_indentations",
    "curvature_max_per_um",
    "curvature_min_per_um",
    "rectangle_long_side_um",
    "rectangle_short_side_um",
    "extent",
    "solidity",
    "compactness",
    "elongation",
    "convexity",
    "circularity",
)
"""The 30 shapes of ``ccrl_wsi.nuclei.boundary_shapes``: measured only for encoders that ask, after
``NAMES``, and never stored."""
