"""Nuclei by stain, local threshold and watershed: a segmenter that needs no weights.

Every step looks only at a pixel's surroundings (one window and a few micrometres), never at
the whole image, so that a nucleus comes out the same whichever tile it is seen in. Densities are
whole numbers in one byte: sums over windows are exact, and exactly equal in every tile.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.config import WatershedSettings
from ccrl_wsi.records import Segmentation

Float32: TypeAlias = FloatArray

STEPS_PER_DENSITY = 300
"""One step of a density byte is 1/300 of optical density; it saturates at 0.85."""

BLUE_SHARE, GREEN_SHARE = 0.6, 0.9
"""Haematoxylin is what absorbs red, less what absorbs blue (pigment, rust, blood), and no more
than what absorbs green (ink). With the vectors of Ruifrok and Johnston (0.65, 0.70, 0.29) the
first is 0.48 of a pure stain's density; eosin (0.07, 0.99, 0.11) comes out at 0.01."""

SPECK_UM2 = 4.0
STEPS_PER_UM = 400
STAIN_BLUR_UM = 1.0
STRIP_ROWS = 64

ABOVE_MEAN = 3
"""Dark pixels exceed their window's mean by more: 0.01 of density, about the camera's noise."""


class Watershed:
    """The segmenter ``watershed``; see :class:`ccrl_wsi.config.WatershedSettings`."""

    name = "watershed"
    type_names: tuple[str, ...] = ()

    def __init__(self, settings: WatershedSettings | None = None) -> None:
        self.settings = settings or WatershedSettings()

    def __call__(self, rgb: ByteArray, mpp: float) -> Segmentation:
        """Nuclei of ``rgb`` (height, width, 3) uint8 at ``mpp``; see :meth:`Segmenter.__call__`.

        ``probability`` grows with the contrast of the nucleus: see :func:`nucleus_probability`.
        """
        chosen = self.settings
        density = nuclear_density(rgb)
        smooth = _blur(density, chosen.smooth_um / mpp)
        bar = local_threshold(smooth, chosen, mpp)
        mask = _clean(cv2.compare(smooth, bar, cv2.CMP_GT), chosen, mpp)
        labels = _split(mask, _find_cores(mask, density, chosen, mpp))
        smallest_px = SPECK_UM2 / mpp**2
        labels, contrast = _drop_faint(labels, cv2.subtract(smooth, bar), chosen, smallest_px)
        return Segmentation.untyped(labels, nucleus_probability(contrast))


def nuclear_density(rgb: ByteArray) -> ByteArray:
    """Density of the nuclear stain in steps of 1/300, (height, width) uint8."""
    optical = -np.log10((np.arange(256) + 1) / 256) * STEPS_PER_DENSITY
    red, green, blue = (
        cv2.LUT(channel, np.minimum(np.rint(optical * share), 255).astype(np.uint8))
        for channel, share in zip(cv2.split(rgb), (1.0, GREEN_SHARE, BLUE_SHARE), strict=True)
    )
    density: ByteArray = cv2.subtract(cv2.min(red, green), blue)
    return density


def local_threshold(density: IntArray, chosen: WatershedSettings, mpp: float) -> ByteArray:
    """The density above which a pixel is nuclear, from the window around it.

    Pixels are called dark or pale by the mean of their own window; the threshold lies at ``level``
    between the means of the pale and the dark pixels of the window, at least ``min_contrast``
    above the paler one. This is one step of Ridler and Calvard's iteration (IEEE Trans. SMC 8
    (1978) 630), done in every window. A second step would gain little and see half a window more.
    """
    side = 2 * int(chosen.window_um / mpp / 2) + 1
    total = _box_sum(density, side)
    mean = (total * np.float32(1 / side**2)).astype(np.uint8)
    is_dark = cv2.compare(density, cv2.add(mean, ABOVE_MEAN), cv2.CMP_GT)
    n_dark = _box_sum(is_dark & 1, side)
    dark = _box_sum(cv2.bitwise_and(density, is_dark), side)
    return _bar_between(total, dark, n_dark, chosen, side**2)


def nucleus_probability(contrast: FloatArray) -> FloatArray:
    """Chance (n,) that an object of mean ``contrast`` above its threshold is a nucleus.

    Fitted to the share of objects that lie mostly on annotated nuclei (CoNSeP train, MoNuSeg, TNBC,
    weighted alike). Contrast alone tells little: the answers lie between 0.76 and 0.97.
    """
    probability: FloatArray = 1 / (1 + np.exp(-(1.0 + 11.0 * contrast)))
    return probability.astype(np.float32)


def _bar_between(
    total: Float32, dark: Float32, n_dark: Float32, chosen: WatershedSettings, n_pixels: int
) -> ByteArray:
    bar = np.empty(total.shape, np.uint8)
    least = chosen.min_contrast * STEPS_PER_DENSITY
    few = n_pixels / 1000  # damps the mean of a handful of pixels
    # Strips stay in the processor's cache: twice as fast as whole images.
    for top in range(0, len(total), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        pale_mean = (total[rows] - dark[rows]) / (n_pixels + few - n_dark[rows])
        rise = dark[rows] / (n_dark[rows] + few) - pale_mean
        bar[rows] = np.minimum(pale_mean + np.maximum(chosen.level * rise, least), 255)
    return bar


def _clean(mask: ByteArray, chosen: WatershedSettings, mpp: float) -> ByteArray:
    """Without threads and small holes, with a smooth edge: 0 and 1."""
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disk(chosen.open_um / mpp))
    contours, nesting = cv2.findContours(opened, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [
        contours[i]
        for i in (np.flatnonzero(nesting[0, :, 3] >= 0) if nesting is not None else ())
        if cv2.contourArea(contours[i]) * mpp**2 < chosen.max_hole_um2
    ]
    cv2.drawContours(opened, holes, -1, 255, cv2.FILLED)
    return (_blur(opened, chosen.smooth_edge_um / mpp) > 127).astype(np.uint8)


def _find_cores(
    mask: ByteArray, density: ByteArray, chosen: WatershedSettings, mpp: float
) -> ByteArray:
    """The middles of nuclei (above 0): near the top of the relief, compared with its surroundings.

    The relief is the depth below the blob's edge in um, raised where the stain is dense.
    """
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_5)
    relief = _blur(_to_steps(depth, mpp), chosen.smooth_relief_um / mpp)
    stain = _blur(density, STAIN_BLUR_UM / mpp)
    relief += _to_steps(stain, chosen.density_um / STEPS_PER_DENSITY)
    reach = 2 * round(chosen.seed_distance_um / mpp) + 1
    highest = cv2.dilate(relief, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    is_core = (relief >= highest * np.float32(chosen.core_share)) & (mask > 0)
    cores: ByteArray = is_core.astype(np.uint8)
    return cores


def _to_steps(image: IntArray | Float32, um: float) -> IntArray:
    """The image times ``um``, in whole steps: what OpenCV sums exactly, wherever a tile begins."""
    steps = np.minimum(image * np.float32(um * STEPS_PER_UM), 30_000)
    rounded: IntArray = steps.astype(np.uint16)
    return rounded


def _split(mask: ByteArray, cores: ByteArray) -> IntArray:
    """Labels of the blobs of ``mask``, those with several cores cut where the nearest one changes.

    These cuts are the watershed lines of the distance to the cores. A label is one 4-connected
    piece because it is found as one.
    """
    n_blobs, blobs = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    _, nearest = cv2.distanceTransformWithLabels(
        (cores == 0).astype(np.uint8),
        cv2.DIST_L2,
        cv2.DIST_MASK_5,
        labelType=cv2.DIST_LABEL_CCOMP,
    )
    in_core = np.flatnonzero(cores > 0)
    blob_of_core = np.zeros(int(nearest.max(initial=0)) + 1, np.int32)
    blob_of_core[nearest.ravel()[in_core]] = blobs.ravel()[in_core]
    n_cores = np.bincount(blob_of_core[blob_of_core > 0], minlength=n_blobs)
    stained = np.flatnonzero(mask > 0)  # few pixels: going through these costs least
    crowded = stained[(n_cores > 1)[blobs.ravel()[stained]]]
    cut = _where_it_changes(nearest, crowded)
    # A core of another blob may be nearer: such a rim belongs to nobody.
    is_foreign = blob_of_core[nearest.ravel()[crowded]] != blobs.ravel()[crowded]
    parted = mask.copy()
    parted.ravel()[cut] = 0
    parted.ravel()[crowded[is_foreign]] = 0
    _, labels = cv2.connectedComponents(parted, connectivity=4, ltype=cv2.CV_32S)
    _return_cuts(labels, nearest, np.setdiff1d(cut, crowded[is_foreign], assume_unique=True))
    return np.asarray(labels)


def _where_it_changes(nearest: IntArray, pixels: IntArray) -> IntArray:
    """Those of the flat indices ``pixels`` that differ from their right or lower neighbour."""
    flat, last = nearest.ravel(), nearest.size - 1
    own = flat[pixels]
    right, below = np.minimum(pixels + 1, last), np.minimum(pixels + nearest.shape[1], last)
    changes: IntArray = pixels[(flat[right] != own) | (flat[below] != own)]
    return changes


def _return_cuts(labels: IntArray, nearest: IntArray, cut: IntArray) -> None:
    """Give the cut pixels the label of the left or upper neighbour with the same nearest core."""
    rows, columns = np.unravel_index(cut, labels.shape)
    beside = [
        (rows, np.maximum(columns - 1, 0)),
        (np.maximum(rows - 1, 0), columns),
    ]
    for place in beside:
        fits = (nearest[place] == nearest[rows, columns]) & (labels[rows, columns] == 0)
        labels[rows[fits], columns[fits]] = labels[place][fits]


def _drop_faint(
    labels: IntArray, excess: IntArray, chosen: WatershedSettings, smallest_px: float
) -> tuple[IntArray, FloatArray]:
    """Labels 1..n without specks and faint objects, and the mean contrast (n,) of the others."""
    inside = np.flatnonzero(labels != 0)
    label = labels.ravel()[inside]
    n_pixels = np.bincount(label, minlength=1)
    total = np.bincount(label, excess.ravel()[inside], minlength=1)
    contrast = total / np.maximum(n_pixels, 1) / STEPS_PER_DENSITY
    keep: BoolArray = (n_pixels >= max(1.0, smallest_px)) & (contrast >= chosen.min_mean_contrast)
    number = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept = np.zeros(labels.shape, np.int32)
    kept.ravel()[inside] = number[label]
    return kept, contrast[keep]


def _box_sum(image: IntArray, side: int) -> Float32:
    """Sum over the window around each pixel; whole numbers, exact below 2^24."""
    total: Float32 = cv2.boxFilter(
        image, cv2.CV_32F, (side, side), normalize=False, borderType=cv2.BORDER_REFLECT_101
    )
    return total


def _blur(image: IntArray, sigma_px: float) -> IntArray:
    """Gaussian blur of bytes or 16-bit numbers, which OpenCV does in whole numbers."""
    blurred: IntArray = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def _disk(radius_px: float) -> ByteArray:
    reach = round(radius_px)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk: ByteArray = (x * x + y * y <= reach * (reach + 0.5)).astype(np.uint8)
    return disk
