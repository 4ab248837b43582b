"""Draws one cultured cell in three channels: its phenotype is where the light is, not how much.

The principle, laid down before anything was trained on it: what a mechanism does to a cell is to
rearrange it. Each channel of a cell holds the same values whatever the mechanism; a pattern only
says which pixel gets which, by the rank of its score (histogram specification). So no statistic of
a cell's values, such as mean or deviation of a channel, tells its mechanism; only their places do.
Optics break that a little; haze and the patterns' widths were set, by a probe on intensities and
not by any network, so that they break it little. How bright, hazy, large, long and turned a cell is
differs from cell to cell and says nothing about its mechanism.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from ccrl_wsi.arrays import BoolArray, FloatArray

Tubulin = Literal["spokes", "rings", "grains"]
Actin = Literal["rim", "fibres", "clumps"]
DNA, TUBULIN, ACTIN = range(3)


@dataclass(frozen=True, slots=True)
class Phenotype:
    """How a cell is arranged.

    Parameters
    ----------
    tubulin
        ``spokes`` from the nucleus outwards, ``rings`` around it, or ``grains`` without order.
    actin
        A ``rim`` along the edge, parallel ``fibres`` from end to end, or ``clumps``.
    nuclei
        Into how many pieces the nucleus is divided; their area together stays.
    """

    tubulin: Tubulin = "spokes"
    actin: Actin = "rim"
    nuclei: int = 1


HEALTHY = Phenotype()
MECHANISMS = {
    "Tubulin bundlers": replace(HEALTHY, tubulin="rings"),
    "Tubulin disruptors": replace(HEALTHY, tubulin="grains"),
    "Actin stabilisers": replace(HEALTHY, actin="fibres"),
    "Actin disruptors": replace(HEALTHY, actin="clumps"),
    "Cytokinesis inhibitors": replace(HEALTHY, nuclei=2),
    "Nuclear fragmenters": replace(HEALTHY, nuclei=4),
}
"""What compounds do, by mechanism."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What cells of a well share besides their phenotype.

    Parameters
    ----------
    brightness
        Of each channel.
    size
        Radius of cells over the usual one.
    density
        Number of cells over the usual one.
    """

    brightness: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size: float = 1.0
    density: float = 1.0

    def __mul__(self, other: Condition) -> Condition:
        """Both at once."""
        red, green, blue = np.multiply(self.brightness, other.brightness).tolist()
        both = (red, green, blue)
        return Condition(both, self.size * other.size, self.density * other.density)


class Frame(NamedTuple):
    """The pixels around a cell in its own coordinates, each (side, side).

    ``u`` runs along the cell, ``v`` across, both in pixels of a cell that is round; ``away`` and
    ``turn`` are the same as polar coordinates; ``is_inside`` marks the cell.
    """

    u: FloatArray
    v: FloatArray
    away: FloatArray
    turn: FloatArray
    is_inside: BoolArray
    radius: float


RADIUS_PX = 14.0
SPOKE_PX, RING_PX, FIBRE_PX = 4.6, 4.6, 6.2
"""From one to the next. So chosen, with the grain, that a blur takes about as much from each."""
GRAIN_PX, CLUMP_PX = 0.85, 1.35
"""Sigma of the noise that they are the peaks of."""
HALF_PX = 25
"""Cells reach no further from their centre."""
BRIGHTNESS_SPREAD, SIZE_SPREAD, MOST_HAZE = 0.25, 0.08, 0.6
"""From cell to cell: of the logarithm; of the radius over its mean; and up to which share of a
channel's light lies evenly over the cell."""


def draw_cell(
    look: Phenotype, strength: float, condition: Condition, rng: np.random.Generator
) -> FloatArray:
    """One cell (51, 51, 3) in light of 0 to about 1, its centre in the middle.

    Parameters
    ----------
    look
        The arrangement it goes to.
    strength
        How far it goes there from a healthy one, 0 to 1; the share of cells whose nucleus divides.
    condition
        What it shares with other cells of its well.
    """
    frame = _frame(condition.size, rng)
    nuclei = look.nuclei if rng.random() < strength else HEALTHY.nuclei
    patterns = (
        _nuclei(frame, nuclei, rng),
        _between(TUBULINS[HEALTHY.tubulin], TUBULINS[look.tubulin], strength, frame, rng),
        _between(ACTINS[HEALTHY.actin], ACTINS[look.actin], strength, frame, rng),
    )
    pixels = np.zeros((*frame.away.shape, 3))
    brightness = np.exp(rng.normal(0, BRIGHTNESS_SPREAD, 3)) * condition.brightness
    haze = rng.uniform(0, MOST_HAZE, 3)
    for channel, (pattern, values) in enumerate(zip(patterns, VALUES, strict=True)):
        order = rankdata(pattern[frame.is_inside], method="ordinal")
        light = values((order - 0.5) / len(order))
        light += haze[channel] * (light.mean() - light)
        pixels[frame.is_inside, channel] = brightness[channel] * light
    return pixels


def _frame(size: float, rng: np.random.Generator) -> Frame:
    radius = RADIUS_PX * size * rng.normal(1, SIZE_SPREAD)
    stretch, angle = np.sqrt(rng.uniform(1, 1.5)), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-HALF_PX : HALF_PX + 1, -HALF_PX : HALF_PX + 1].astype(float)
    u = (x * np.cos(angle) + y * np.sin(angle)) / stretch
    v = (y * np.cos(angle) - x * np.sin(angle)) * stretch
    away, turn = np.hypot(u, v), np.arctan2(v, u)
    # Three soft lobes: no cell is an ellipse.
    edge = radius * (1 + 0.06 * np.cos(3 * turn + rng.uniform(0, 2 * np.pi)))
    return Frame(u, v, away, turn, away < edge, radius)


def _nuclei(frame: Frame, n: int, rng: np.random.Generator) -> FloatArray:
    """Highest in the middle of ``n`` pieces that together are as large as one nucleus."""
    piece = 0.47 * frame.radius / np.sqrt(n)
    start, far = rng.uniform(0, 2 * np.pi), 0.0 if n == 1 else 1.25 * piece / np.sin(np.pi / n)
    depth = np.full(frame.away.shape, -np.inf)
    for angle in start + 2 * np.pi * np.arange(n) / n:
        x, y = far * np.cos(angle), far * np.sin(angle)
        depth = np.maximum(depth, piece - np.hypot(frame.u - x, frame.v - y))
    pieces: FloatArray = depth + 0.4 * _grain(frame, 1.2, rng)
    return pieces


def _spokes(frame: Frame, rng: np.random.Generator) -> FloatArray:
    number = round(2 * np.pi * 0.62 * frame.radius / SPOKE_PX)
    bent = 0.8 * _grain(frame, 4.0, rng)
    return np.cos(number * frame.turn + rng.uniform(0, 2 * np.pi) + bent)


def _rings(frame: Frame, rng: np.random.Generator) -> FloatArray:
    bent = 0.8 * _grain(frame, 4.0, rng)
    return np.cos(2 * np.pi * frame.away / RING_PX + rng.uniform(0, 2 * np.pi) + bent)


def _grains(frame: Frame, rng: np.random.Generator) -> FloatArray:
    return _grain(frame, GRAIN_PX, rng)


def _rim(frame: Frame, rng: np.random.Generator) -> FloatArray:
    rim: FloatArray = 1.5 * frame.away / frame.radius + 0.25 * _grain(frame, 1.2, rng)
    return rim


def _fibres(frame: Frame, rng: np.random.Generator) -> FloatArray:
    bent = 0.8 * _grain(frame, 4.0, rng)
    return np.cos(2 * np.pi * frame.v / FIBRE_PX + rng.uniform(0, 2 * np.pi) + bent)


def _clumps(frame: Frame, rng: np.random.Generator) -> FloatArray:
    return _grain(frame, CLUMP_PX, rng)


def _between(
    first: Pattern, second: Pattern, share: float, frame: Frame, rng: np.random.Generator
) -> FloatArray:
    """The pattern ``share`` of the way from ``first`` to ``second``."""
    parts = [_scaled(pattern(frame, rng), frame) for pattern in (first, second)]
    both: FloatArray = (1 - share) * parts[0] + share * parts[1]
    return both + 0.15 * _grain(frame, 1.2, rng)


def _grain(frame: Frame, sigma_px: float, rng: np.random.Generator) -> FloatArray:
    """Smooth noise of unit variance."""
    noise = gaussian_filter(rng.normal(size=frame.away.shape), sigma_px, mode="wrap")
    return _scaled(noise, frame)


def _scaled(pattern: FloatArray, frame: Frame) -> FloatArray:
    inside = pattern[frame.is_inside]
    scaled: FloatArray = (pattern - inside.mean()) / max(float(inside.std()), 1e-9)
    return scaled


def _nuclear_values(rank: FloatArray) -> FloatArray:
    """A fifth of the cell's pixels bright, with a soft edge."""
    values: FloatArray = (0.55 + 0.45 * rank) / (1 + np.exp((0.79 - rank) / 0.015))
    return values


def _tubulin_values(rank: FloatArray) -> FloatArray:
    values: FloatArray = 0.12 + 0.75 * rank**1.5
    return values


def _actin_values(rank: FloatArray) -> FloatArray:
    values: FloatArray = 0.08 + 0.8 * rank**3
    return values


Pattern = Callable[[Frame, np.random.Generator], FloatArray]
TUBULINS: dict[Tubulin, Pattern] = {"spokes": _spokes, "rings": _rings, "grains": _grains}
ACTINS: dict[Actin, Pattern] = {"rim": _rim, "fibres": _fibres, "clumps": _clumps}
VALUES = (_nuclear_values, _tubulin_values, _actin_values)
"""A channel's value by the rank of its pixel among the cell's, 0 to 1."""
