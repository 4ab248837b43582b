"""What happens to each crop of a batch to make a view of it, drawn before any pixel is touched.

Numbers are drawn with NumPy, so that a step's views are the same on every device and for every
number of processes: all draw the global batch, each keeps its part. A crop uses the same random
numbers whatever the settings are and however many crops follow, so that settings can be compared
on the same draws.

Which changes there are, their probabilities and ranges: paper, section on the implementation;
probabilities from VOLTA, the authors' next work. The defaults of ``ViewSettings`` are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from ccrl_wsi.arrays import BoolArray, FloatArray, IntArray
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.settings import ViewSettings

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The four changes of colour: columns of ``jitter`` and values of ``order``."""

WHOLE_BOX = (0.0, 0.0, 1.0, 1.0)
NO_JITTER = (1.0, 1.0, 1.0, 0.0)
CROP_TRIES = 10
BEND_POINTS = 5
MOST_CHANNELS = 16
"""Whose exposure can be changed; so many are drawn, however many a crop has."""

N_DRAWN = {
    "crop_area": CROP_TRIES,
    "crop_ratio": CROP_TRIES,
    "crop_corner": 2,
    "is_jittered": 1,
    "jitter": 4,
    "order": 4,
    "is_grey": 1,
    "is_blurred": 1,
    "blur": 1,
    "is_flipped": 2,
    "is_rotated": 1,
    "angle": 1,
    "is_stained": 1,
    "stain_factor": 3,
    "stain_shift": 3,
}
"""How many uniform random numbers a crop needs, and what for."""


@dataclass(frozen=True, eq=False, slots=True)
class ViewParameters:
    """How n crops become views. A change that is not made has the value that changes nothing.

    Parameters
    ----------
    box
        (n, 4) left, top, width, height of what is seen, as shares of the crop's side.
    is_flipped
        (n, 2) whether left and right, and whether top and bottom change places.
    angle_deg
        (n,) rotation, counter-clockwise; 0: none.
    stain_factor, stain_shift
        (n, 3) what the densities of haematoxylin, eosin and the rest are multiplied by, and what
        is added then; 1 and 0: none.
    jitter
        (n, 4) factors of brightness, contrast and saturation, and shift of the hue in turns;
        1, 1, 1, 0: none.
    order
        (n, 4) which of the four is done first, second, third, last.
    is_grey
        (n,) whether the colour is taken out.
    blur_px
        (n,) sigma of the Gaussian blur; 0: none.
    bend
        (n, 2, 5, 5) displacements along x and y at 5 x 5 points from edge to edge, as shares of the
        side; 0: none.
    gain, gamma
        (n, 16) what each channel is multiplied by after it was raised to a power; 1 and 1: none.
    """

    box: FloatArray
    is_flipped: BoolArray
    angle_deg: FloatArray
    stain_factor: FloatArray
    stain_shift: FloatArray
    jitter: FloatArray
    order: IntArray
    is_grey: BoolArray
    blur_px: FloatArray
    bend: FloatArray
    gain: FloatArray
    gamma: FloatArray

    def __len__(self) -> int:
        return len(self.box)

    def part(self, rows: slice) -> ViewParameters:
        """Those of some crops only, such as one process' share of the batch."""
        return ViewParameters(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def is_moved(self) -> BoolArray:
        """(n,) whether a crop is cut, flipped or rotated."""
        is_cut = (self.box != np.array(WHOLE_BOX)).any(axis=1)
        moved: BoolArray = is_cut | self.is_flipped.any(axis=1) | (self.angle_deg != 0)
        return moved

    @property
    def is_stained(self) -> BoolArray:
        """(n,) whether a crop's stain is changed."""
        changed: BoolArray = ((self.stain_factor != 1) | (self.stain_shift != 0)).any(axis=1)
        return changed

    @property
    def is_exposed(self) -> BoolArray:
        """(n,) whether a channel's exposure is changed."""
        changed: BoolArray = ((self.gain != 1) | (self.gamma != 1)).any(axis=1)
        return changed

    @property
    def is_jittered(self) -> BoolArray:
        """(n,) whether brightness, contrast, saturation or hue is changed."""
        changed: BoolArray = (self.jitter != np.array(NO_JITTER)).any(axis=1)
        return changed

    @property
    def is_bent(self) -> BoolArray:
        """(n,) whether a crop is bent."""
        bent: BoolArray = (self.bend != 0).any(axis=(1, 2, 3))
        return bent

    @property
    def is_blurred(self) -> BoolArray:
        """(n,) whether a crop is blurred."""
        blurred: BoolArray = self.blur_px > 0
        return blurred


def check_views(settings: ViewSettings, n_channels: int) -> None:
    """See at set-up that the settings make sense for crops of ``n_channels``.

    Raises
    ------
    ConfigError
        If a range is empty or impossible, or a change of colour is asked of what is not RGB.
    """
    lows_and_ends = {
        "crop_area": (settings.crop_area, 1.0),
        "crop_ratio": (settings.crop_ratio, np.inf),
        "blur_px": (settings.blur_px, np.inf),
    }
    for name, ((low, high), end) in lows_and_ends.items():
        if not 0 < low <= high <= end:
            limit = f" to at most {end:g}" if np.isfinite(end) else ""
            raise ConfigError(
                f"views.{name}={low:g}, {high:g}: give two numbers above 0{limit}, smaller first."
            )
    if n_channels > MOST_CHANNELS and settings.p_exposure > 0:
        raise ConfigError(
            f"Exposure is changed of up to {MOST_CHANNELS} channels, and crops have {n_channels}. "
            "Set views.p_exposure=0."
        )
    if n_channels == 3:
        return
    needs_colour = {
        "p_grey": settings.p_grey,
        "p_stain": settings.p_stain,
        "saturation": settings.p_jitter * settings.saturation,
        "hue": settings.p_jitter * settings.hue,
    }
    asked = [name for name, amount in needs_colour.items() if amount > 0]
    if asked:
        zero = ", ".join(f"views.{name}=0" for name in asked)
        raise ConfigError(
            f"Crops of {n_channels} channels are not RGB and have no hue, saturation, grey or "
            f"H&E stain to change. Set {zero}."
        )


def draw_views(
    settings: ViewSettings, n: int, rng: np.random.Generator, cropped: bool
) -> ViewParameters:
    """How ``n`` crops become views.

    Parameters
    ----------
    settings
        Shares and ranges of the changes.
    n
        Crops in the batch of all processes.
    rng
        Where the numbers come from; the same state gives the same views.
    cropped
        Whether a part of each crop is cut out and enlarged; false gives whole views.
    """
    ends = np.cumsum([*N_DRAWN.values()])
    drawn = np.split(rng.random((n, int(ends[-1]))), ends[:-1], axis=1)
    u = dict(zip(N_DRAWN, drawn, strict=True))
    box = _draw_boxes(settings, u) if cropped else np.tile(WHOLE_BOX, (n, 1))
    is_rotated = u["is_rotated"][:, 0] < settings.p_rotate
    angle = _between(u["angle"][:, 0], -settings.rotate_deg, settings.rotate_deg)
    is_blurred = u["is_blurred"][:, 0] < settings.p_blur
    is_stained = u["is_stained"] < settings.p_stain
    spread = settings.stain_sigma
    bend, (gain, gamma) = _draw_bends(settings, n, rng), _draw_exposures(settings, n, rng)
    return ViewParameters(
        box=box,
        is_flipped=u["is_flipped"] < settings.p_flip,
        angle_deg=np.where(is_rotated, angle, 0.0),
        stain_factor=np.where(is_stained, _between(u["stain_factor"], 1 - spread, 1 + spread), 1.0),
        stain_shift=np.where(is_stained, _between(u["stain_shift"], -spread, spread), 0.0),
        jitter=_draw_jitter(settings, u),
        order=np.argsort(u["order"], axis=1),
        is_grey=u["is_grey"][:, 0] < settings.p_grey,
        blur_px=np.where(is_blurred, _between(u["blur"][:, 0], *settings.blur_px), 0.0),
        bend=bend,
        gain=gain,
        gamma=gamma,
    )


def draw_pair(
    settings: ViewSettings, n: int, rng: np.random.Generator
) -> tuple[ViewParameters, ViewParameters]:
    """The two views of each of ``n`` crops: first the local, then the whole one.

    Only the local one is cut (paper: local-global connection) unless ``settings.cropped`` says
    otherwise.
    """
    local = draw_views(settings, n, rng, cropped=settings.cropped != "none")
    return local, draw_views(settings, n, rng, cropped=settings.cropped == "both")


def _draw_boxes(settings: ViewSettings, u: Mapping[str, FloatArray]) -> FloatArray:
    """Boxes (n, 4) by the rule of torchvision's RandomResizedCrop.

    Area uniform, ratio log-uniform, the first of ten tries that fits; else the largest box in the
    middle whose ratio is allowed. Unlike there, boxes are not rounded to whole pixels: what is
    resampled anyway need not be, and so the draw does not depend on the crop's size.
    """
    area = _between(u["crop_area"], *settings.crop_area)
    ratio = np.exp(_between(u["crop_ratio"], *np.log(settings.crop_ratio)))
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (width <= 1) & (height <= 1)
    first = fits.argmax(axis=1)[:, None]
    size = np.hstack([np.take_along_axis(a, first, axis=1) for a in (width, height)])
    nearest = float(np.clip(1.0, *settings.crop_ratio))
    fallback = (min(nearest, 1.0), min(1 / nearest, 1.0))
    found = fits.any(axis=1, keepdims=True)
    size = np.where(found, size, fallback)
    corner = np.where(found, u["crop_corner"], 0.5) * (1 - size)
    return np.hstack([corner, size])


def _draw_bends(settings: ViewSettings, n: int, rng: np.random.Generator) -> FloatArray:
    """Displacements (n, 2, 5, 5), by a generator of their own: other draws do not depend on them.

    Simard et al. 2003 draw one for every pixel and smooth them; here few are drawn and interpolated
    smoothly, so that the draw does not depend on the crop's size.
    """
    (own,) = rng.spawn(1)
    u = own.random((n, 1 + 2 * BEND_POINTS**2))
    bends = _between(u[:, 1:], -settings.elastic, settings.elastic)
    is_bent = u[:, :1] < settings.p_elastic
    return np.where(is_bent, bends, 0.0).reshape(n, 2, BEND_POINTS, BEND_POINTS)


def _draw_exposures(
    settings: ViewSettings, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Gains and powers (n, 16), log-uniform, by a generator of their own."""
    (own,) = rng.spawn(1)
    u = own.random((n, 1 + 2 * MOST_CHANNELS))
    gain, gamma = (
        np.exp(_between(part, -spread, spread))
        for part, spread in zip(
            np.hsplit(u[:, 1:], 2), (settings.exposure_gain, settings.exposure_gamma), strict=True
        )
    )
    is_exposed = u[:, :1] < settings.p_exposure
    return np.where(is_exposed, gain, 1.0), np.where(is_exposed, gamma, 1.0)


def _draw_jitter(settings: ViewSettings, u: Mapping[str, FloatArray]) -> FloatArray:
    """Factors of brightness, contrast, saturation and shift of hue (n, 4)."""
    spread = np.array([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    middle = np.array(NO_JITTER)
    lowest = np.where(middle > 0, np.maximum(middle - spread, 0), -spread)
    values = lowest + u["jitter"] * (middle + spread - lowest)
    return np.where(u["is_jittered"] < settings.p_jitter, values, middle)


def _between(u: FloatArray, low: float, high: float) -> FloatArray:
    """Uniform numbers of 0 to 1 as numbers of ``low`` to ``high``."""
    return low + u * (high - low)
