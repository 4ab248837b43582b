"""Names and colours of clusters: the same in overlays, pictures and reports."""

from __future__ import annotations

_COLORS = (
    (51, 102, 238), (102, 68, 0), (255, 187, 153), (102, 238, 238), (187, 119, 102),
    (68, 170, 170), (153, 170, 0), (170, 51, 85), (187, 238, 0), (153, 153, 255),
    (17, 85, 136), (119, 119, 0), (51, 34, 34), (0, 34, 85), (102, 119, 119),
    (34, 0, 238), (51, 51, 68), (136, 170, 153), (34, 0, 153), (68, 85, 68),
    (0, 51, 0), (187, 170, 221), (170, 204, 187), (204, 68, 119), (204, 153, 102),
    (221, 238, 204), (136, 136, 187), (68, 119, 153), (238, 238, 136), (187, 204, 85),
)  # fmt: skip
"""Found by a search for the greatest least CIEDE2000 difference between any two, as seen with
normal colour vision and without long-, middle- or short-wave cones (Machado et al., IEEE Trans.
Vis. Comput. Graph. 15 (2009) 1291, severity 1): 14 among the first twelve, 8.6 among all thirty.
All differ from white and from what H&E looks like; the first twelve clearly.
``tests/test_palette.py`` measures all of this.
"""


def cluster_names(k: int) -> tuple[str, ...]:
    """``C01`` ... for ``k`` clusters; sorted as text they are in order."""
    return tuple(f"C{number:02d}" for number in range(1, k + 1))


def cluster_colors(k: int) -> tuple[tuple[int, int, int], ...]:
    """RGB 0..255 of ``k`` clusters; the first do not change with ``k``.

    Up to thirty are told apart, also with the common colour-vision deficiencies. There are no more
    clusters than that; of other things the thirty-first has the colour of the first again.
    """
    return tuple(_COLORS[number % len(_COLORS)] for number in range(k))
