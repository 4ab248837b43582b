"""Draws fields of cultured cells in three channels whose phenotypes are known.

A screen of a few plates in the layout of BBBC021: every mechanism has one compound in each week,
and every week stains, focuses and lights differently. What a mechanism does is the same in all
weeks, so whoever sees the phenotype and not the week finds the right neighbour in another week.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from ccrl_wsi.arrays import AnyArray, FloatArray
from ccrl_wsi.seeding import rng_for


@dataclass(frozen=True, slots=True)
class Phenotype:
    """How cells look; lengths in pixels.

    Parameters
    ----------
    nucleus_px, cell_px
        Radii.
    elongation
        Long over short axis of the cell.
    fibres
        Bundles of tubulin around the nucleus.
    bundling
        How much of the tubulin is in bundles, 0 to 1.
    spots
        Spots of actin in a cell.
    rim
        Actin at the cell's edge.
    """

    nucleus_px: float = 7.0
    cell_px: float = 15.0
    elongation: float = 1.2
    fibres: int = 5
    bundling: float = 0.25
    spots: int = 2
    rim: float = 1.0

    def towards(self, other: Phenotype, share: float) -> Phenotype:
        """The phenotype ``share`` of the way to ``other``: what a dose does."""
        names = ("nucleus_px", "cell_px", "elongation", "bundling", "rim")
        between = {n: (1 - share) * getattr(self, n) + share * getattr(other, n) for n in names}
        counts = {
            n: round((1 - share) * getattr(self, n) + share * getattr(other, n))
            for n in ("fibres", "spots")
        }
        return replace(self, **between, **counts)


HEALTHY = Phenotype()
MECHANISMS = {
    "Tubulin bundlers": replace(HEALTHY, fibres=9, bundling=1.0),
    "Actin clusterers": replace(HEALTHY, spots=9, rim=0.2),
    "Nuclear swellers": replace(HEALTHY, nucleus_px=9.5),
    "Stretchers": replace(HEALTHY, elongation=2.2),
}
"""What compounds do at full dose, by mechanism."""


@dataclass(frozen=True, slots=True)
class Week:
    """How one week's plates differ from another's.

    Parameters
    ----------
    gamma
        Of each channel: staining and camera do not answer linearly.
    blur_px
        Sigma of the focus.
    light
        How much darker the field's corners are than its middle, 0 to 1.
    noise
        Of the camera, as a share of full light.
    """

    gamma: tuple[float, float, float]
    blur_px: float
    light: float
    noise: float


WEEKS = (
    Week((1.0, 1.0, 1.0), 0.4, 0.3, 0.01),
    Week((0.8, 1.25, 0.85), 0.9, 0.5, 0.01),
    Week((1.25, 0.8, 1.2), 0.6, 0.1, 0.01),
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
    doses
        Each compound's concentrations; the largest has the full effect, the others a share of it.
    n_weeks
        1 to 3.
    """

    side_px: int = 220
    n_cells: int = 16
    n_fields: int = 2
    n_controls: int = 6
    doses: tuple[float, ...] = (0.7, 1.0)
    n_weeks: int = 3
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

    @property
    def phenotype(self) -> Phenotype:
        """How its cells look."""
        if self.mechanism == "DMSO":
            return HEALTHY
        return HEALTHY.towards(MECHANISMS[self.mechanism], self.concentration)


def wells_of(screen: DrawnScreen) -> list[DrawnWell]:
    """All wells, plate by plate; a compound is on the plate of one week only."""
    wells = []
    for week in range(screen.n_weeks):
        plate = f"Week{week + 1}_{20000 + week}"
        treatments = [("DMSO", 0.0, "DMSO")] * screen.n_controls
        treatments += [
            (f"compound {number}-{week + 1}", dose, mechanism)
            for number, mechanism in enumerate(MECHANISMS, start=1)
            for dose in screen.doses
        ]
        for place, (compound, dose, mechanism) in enumerate(treatments):
            name = f"{'BCDEFG'[place // 10]}{place % 10 + 2:02d}"
            wells.append(DrawnWell(week, plate, name, compound, dose, mechanism))
    return wells


def draw_field(screen: DrawnScreen, well: DrawnWell, site: int) -> AnyArray:
    """A field (side, side, 3) uint16 of ``well``: DNA, tubulin, actin."""
    rng = rng_for(screen.seed, "drawn field", well.plate, well.well, str(site))
    pixels = np.zeros((screen.side_px, screen.side_px, 3))
    reach = 2 * well.phenotype.cell_px + 8
    for x, y in _places(screen, reach / 1.6, rng):
        _draw_cell(pixels, (x, y), well.phenotype, rng)
    return _as_photographed(pixels, WEEKS[well.week], rng)


def _places(screen: DrawnScreen, distance: float, rng: np.random.Generator) -> FloatArray:
    """Centres (n, 2) that keep their distance."""
    found = np.empty((0, 2))
    for place in rng.uniform(4, screen.side_px - 4, (60 * screen.n_cells, 2)):
        if len(found) < screen.n_cells and (np.hypot(*(found - place).T) > distance).all():
            found = np.vstack([found, place])
    return found


def _draw_cell(
    pixels: FloatArray, at: tuple[float, float], look: Phenotype, rng: np.random.Generator
) -> None:
    """Add one cell to ``pixels`` (h, w, 3), in light of 0 to about 1."""
    half = int(np.ceil(1.7 * look.cell_px)) + 3
    column, row = round(at[0]), round(at[1])
    top, left = max(row - half, 0), max(column - half, 0)
    part = pixels[top : row + half + 1, left : column + half + 1]
    y, x = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
    size, angle = rng.normal(1, 0.08, 2), rng.uniform(0, np.pi)
    stretch = np.sqrt(look.elongation)
    u = ((x - at[0]) * np.cos(angle) + (y - at[1]) * np.sin(angle)) / stretch
    v = ((y - at[1]) * np.cos(angle) - (x - at[0]) * np.sin(angle)) * stretch
    away, turn = np.hypot(u, v), np.arctan2(v, u)
    nucleus, cell = look.nucleus_px * size[0], look.cell_px * size[1]
    inside = 1 / (1 + np.exp((away - cell) / 0.8))
    part[..., 0] += rng.uniform(0.7, 1) / (
        1 + np.exp((np.hypot(x - at[0], y - at[1]) - nucleus) / 0.7)
    )
    wave = 0.5 + 0.5 * np.cos(look.fibres * turn + rng.uniform(0, 6) + 0.25 * away)
    tubulin = (1 - look.bundling) * 0.5 + look.bundling * wave**3
    part[..., 1] += rng.uniform(0.7, 1) * inside * tubulin * np.exp(-away / (1.5 * cell))
    actin = 0.15 * inside + 0.6 * look.rim * np.exp(-(((away - 0.9 * cell) / 1.5) ** 2))
    for _ in range(look.spots):
        far, where = cell * np.sqrt(rng.uniform(0.05, 0.8)), rng.uniform(-np.pi, np.pi)
        spot = (u - far * np.cos(where)) ** 2 + (v - far * np.sin(where)) ** 2
        actin = actin + 0.7 * np.exp(-spot / 4.5)
    part[..., 2] += rng.uniform(0.7, 1) * actin


def _as_photographed(pixels: FloatArray, week: Week, rng: np.random.Generator) -> AnyArray:
    """Focus, staining, light and noise of the week, in 16 bits."""
    seen = gaussian_filter(pixels, (week.blur_px, week.blur_px, 0))
    seen = np.clip(seen, 0, None) ** np.array(week.gamma)
    height, width = seen.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    seen *= (1 - week.light * (x**2 + y**2) / 2)[..., None]
    seen += week.noise * rng.normal(size=seen.shape)
    field: AnyArray = np.clip(400 + 20000 * seen, 0, 65535).astype(np.uint16)
    return field
