"""Draws fields of cultured cells in three channels whose phenotypes are known.

A screen of a few plates in the layout of BBBC021. Every week has compounds of every mechanism and
control wells. What varies besides the phenotype says nothing about the mechanism:

- from cell to cell brightness, haze, size, length and direction;
- from well to well staining, focus and the number of cells;
- from compound to compound the strength, and side effects on brightness, size and number;
- from week to week gain, background, linearity, focus and light.

So whoever compares brightness or sharpness finds compounds with the same side effects, or of the
same week; whoever sees how cells are arranged finds the same mechanism.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ccrl_wsi.arrays import AnyArray, FloatArray
from ccrl_wsi.seeding import rng_for
from ccrl_wsi.synthetic_phenotypes import HALF_PX, HEALTHY, MECHANISMS, Condition, draw_cell

CONTROL = "DMSO"
FULL_LIGHT = 20_000
"""Of 16 bits, at gain 1."""
DISTANCE_PX = 25.0
"""Between the centres of cells of the usual size."""


@dataclass(frozen=True, slots=True)
class Week:
    """How one week's plates differ from another's.

    Parameters
    ----------
    gain, background
        Of each channel; the background is a share of full light.
    gamma
        Of each channel: staining and camera do not answer linearly.
    blur_px
        Sigma of the focus.
    light
        How much darker the field's corners are than its middle, 0 to 1.
    noise
        Of the camera, as a share of full light.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    background: tuple[float, float, float] = (0.02, 0.02, 0.02)
    gamma: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_px: float = 0.7
    light: float = 0.2
    noise: float = 0.015


WEEKS = (
    Week(blur_px=0.6, light=0.3),
    Week((1.4, 0.7, 1.2), (0.05, 0.02, 0.08), (0.8, 1.25, 0.85), 1.1, 0.5),
    Week((0.7, 1.3, 0.8), (0.02, 0.08, 0.04), (1.25, 0.8, 1.2), 0.8, 0.1),
)


@dataclass(frozen=True, slots=True)
class DrawnScreen:
    """A screen to draw: one plate a week.

    Parameters
    ----------
    side_px
        Of a field.
    n_cells
        Of a field, about: as many as fit with room between them.
    n_fields
        Of a well.
    n_controls
        Wells of DMSO on each plate.
    n_compounds
        Of each mechanism on each plate; no compound is on two plates.
    doses
        Each compound's concentrations; its effect is its strength times the concentration.
    n_wells
        Of each treatment.
    n_weeks
        1 to 3.
    mechanisms
        Some of ``MECHANISMS``.
    """

    side_px: int = 220
    n_cells: int = 24
    n_fields: int = 1
    n_controls: int = 16
    n_compounds: int = 2
    doses: tuple[float, ...] = (0.7, 1.0)
    n_wells: int = 2
    n_weeks: int = 3
    mechanisms: tuple[str, ...] = tuple(MECHANISMS)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class DrawnWell:
    """A well of a screen: where it is and what it got."""

    week: int
    plate: str
    well: str
    compound: str
    concentration: float
    mechanism: str


def wells_of(screen: DrawnScreen) -> list[DrawnWell]:
    """All wells, plate by plate; a compound is on the plate of one week only."""
    wells = []
    for week in range(screen.n_weeks):
        treatments = [(CONTROL, 0.0, CONTROL)] * screen.n_controls
        treatments += [
            (f"compound {number}-{week + 1}{'abcdefgh'[which]}", dose, mechanism)
            for number, mechanism in enumerate(screen.mechanisms, start=1)
            for which in range(screen.n_compounds)
            for dose in screen.doses
            for _ in range(screen.n_wells)
        ]
        for place, treatment in enumerate(treatments):
            name = f"{'BCDEFGHIJKLMNO'[place // 10]}{place % 10 + 2:02d}"
            wells.append(DrawnWell(week, f"Week{week + 1}_{20000 + week}", name, *treatment))
    return wells


def draw_field(screen: DrawnScreen, well: DrawnWell, site: int) -> tuple[AnyArray, FloatArray]:
    """A field of ``well``.

    Returns
    -------
    field
        (side, side, 3) uint16: DNA, tubulin, actin.
    centres
        (n, 2) x, y of its cells.
    """
    strength, side_effect = _compound(screen, well)
    of_well = rng_for(screen.seed, "drawn well", well.plate, well.well)
    condition = side_effect * _chance(of_well, 0.12, 0.04)
    defocus = of_well.uniform(0, 0.6)
    rng = rng_for(screen.seed, "drawn field", well.plate, well.well, str(site))
    centres = _places(screen, condition, rng)
    pixels = np.zeros((screen.side_px + 2 * HALF_PX, screen.side_px + 2 * HALF_PX, 3))
    look = MECHANISMS.get(well.mechanism, HEALTHY)
    for x, y in np.rint(centres).astype(int):
        effect = float(np.clip(strength * well.concentration + rng.normal(0, 0.15), 0, 1))
        cell = draw_cell(look, effect, condition, rng)
        part = pixels[y : y + len(cell), x : x + len(cell)]
        np.maximum(part, cell, out=part)
    inner = pixels[HALF_PX:-HALF_PX, HALF_PX:-HALF_PX]
    return _as_photographed(inner, WEEKS[well.week], defocus, rng), centres


def _compound(screen: DrawnScreen, well: DrawnWell) -> tuple[float, Condition]:
    """How strong the well's compound is at concentration 1, and what else it does."""
    if well.compound == CONTROL:
        return 0.0, Condition()
    rng = rng_for(screen.seed, "drawn compound", well.compound)
    return float(rng.uniform(0.7, 1)), _chance(rng, 0.25, 0.06)


def _chance(rng: np.random.Generator, brightness: float, size: float) -> Condition:
    """A condition that differs from the usual one by chance, by so much."""
    first, second, third = np.exp(rng.normal(0, brightness, 3)).tolist()
    density = float(np.exp(rng.normal(0, brightness)))
    return Condition((first, second, third), float(rng.normal(1, size)), density)


def _places(screen: DrawnScreen, condition: Condition, rng: np.random.Generator) -> FloatArray:
    """Centres (n, 2) that keep their distance."""
    found = np.empty((0, 2))
    n_cells = max(2, round(screen.n_cells * min(condition.density, 1.5)))
    for place in rng.uniform(2, screen.side_px - 3, (60 * n_cells, 2)):
        apart = np.hypot(*(found - place).T) > DISTANCE_PX * condition.size
        if len(found) < n_cells and apart.all():
            found = np.vstack([found, place])
    return found


def _as_photographed(
    pixels: FloatArray, week: Week, defocus: float, rng: np.random.Generator
) -> AnyArray:
    """Focus, staining, light and noise, in 16 bits."""
    blur_px = np.hypot(week.blur_px, defocus)
    seen = gaussian_filter(pixels, (blur_px, blur_px, 0))
    seen = np.array(week.gain) * np.clip(seen, 0, None) ** np.array(week.gamma)
    seen += np.array(week.background)
    height, width = seen.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    seen *= (1 - week.light * (x**2 + y**2) / 2)[..., None]
    seen += week.noise * rng.normal(size=seen.shape)
    field: AnyArray = np.clip(400 + FULL_LIGHT * seen, 0, 65535).astype(np.uint16)
    return field
