"""What a drawn slide is to look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ccrl_wsi.seeding import rng_for


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """How one kind of nucleus looks; ranges are (lowest, highest)."""

    name: str
    radius_um: tuple[float, float]
    elongation: tuple[float, float]
    density: tuple[float, float]
    texture: float
    rim: float


KINDS = (
    NucleusKind("lymphocyte", (2.6, 3.4), (1.0, 1.2), (0.75, 0.95), 0.10, 0.0),
    NucleusKind("epithelial", (4.2, 5.8), (1.1, 1.6), (0.38, 0.55), 0.28, 0.25),
    NucleusKind("spindle", (2.8, 3.6), (2.6, 4.0), (0.50, 0.70), 0.16, 0.10),
)


@dataclass(frozen=True, slots=True)
class DrawnSlideSpec:
    """What to draw.

    Parameters
    ----------
    width_px, height_px, mpp
        Size of the slide and of a pixel (micrometres).
    n_nuclei
        Nuclei wanted in all, those at ``centres_px`` included. Fewer fit on a crowded slide.
    seed
        Equal specs draw equal slides.
    centres_px
        x, y of nuclei that must be there: on seams, in corners, at the slide's edge.
    touching_share
        Share of the scattered nuclei that lie against an earlier one.
    background_share
        Share of the slide that is bare glass.
    kind_shares
        Weights of the ``KINDS``, in their order.
    pen, blur
        Whether a pen stroke crosses the slide, and whether one patch is out of focus.
    """

    width_px: int = 1024
    height_px: int = 1024
    mpp: float = 0.25
    n_nuclei: int = 250
    seed: int = 0
    centres_px: tuple[tuple[float, float], ...] = ()
    touching_share: float = 0.2
    background_share: float = 0.0
    kind_shares: tuple[float, float, float] = (0.4, 0.4, 0.2)
    pen: bool = False
    blur: bool = False


def rng_of(spec: DrawnSlideSpec, what: str) -> np.random.Generator:
    """Random numbers for one part of the drawing, the same for equal specs."""
    return rng_for(spec.seed, "synthetic", what)
