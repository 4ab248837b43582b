"""Slides that are enlarged, and cohorts of slides that show unlike detail."""

from __future__ import annotations

from collections.abc import Sequence

MOST_ENLARGED = 1.25
"""Scanners that are called alike differ by less than this."""


def enlarged_sentence(slide_mpp: float, mpp: float) -> str:
    """A warning where a slide's pixels are enlarged to ``mpp``; else empty."""
    times = slide_mpp / mpp
    if times <= MOST_ENLARGED:
        return ""
    return (
        f"its pixels of {slide_mpp:.3g} um are enlarged {times:.1f} times, which brings no detail "
        f"back: outlines, embeddings and clusters may set it apart from slides of {mpp:.2g} um."
    )


def pixel_sizes_sentence(slide_mpps: Sequence[float], mpp: float) -> str:
    """A warning where slides of one cohort show clearly unlike detail at ``mpp``; else empty.

    Slides of smaller pixels are reduced to ``mpp`` and are alike.
    """
    shown = [max(own, mpp) for own in slide_mpps]
    if not shown or max(shown) <= MOST_ENLARGED * min(shown):
        return ""
    n_coarse = sum(own > MOST_ENLARGED * min(shown) for own in shown)
    return (
        f"{n_coarse} of {len(shown)} slides {'has' if n_coarse == 1 else 'have'} larger pixels "
        f"than the others (up to {max(shown):.3g} um, against {min(shown):.3g} um) and less "
        "detail: clusters may tell pixel sizes rather than nuclei. Give each pixel size an output "
        "folder of its own, or name the scanner in the slide list, and the report tells how "
        "clusters depend on it."
    )
