"""Names and colours of clusters: the same in overlays, pictures and reports."""

from __future__ import annotations

import colorsys

_DISTINCT = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (86, 180, 233), (213, 94, 0), (240, 228, 66),
    (51, 34, 136), (153, 153, 51), (17, 119, 51), (204, 121, 167), (136, 34, 85), (170, 68, 153),
)  # fmt: skip
"""Okabe and Ito (2008), without black; then Tol's 'muted' colours that differ from those.

Pinks and purples come last: on H&E they are hard to see.
"""

_GOLDEN_TURN = 0.618033988749895


def cluster_names(k: int) -> tuple[str, ...]:
    """``C01`` ... for ``k`` clusters; sorted as text they are in order."""
    return tuple(f"C{number:02d}" for number in range(1, k + 1))


def cluster_colors(k: int) -> tuple[tuple[int, int, int], ...]:
    """RGB 0..255 of ``k`` clusters; the first do not change with ``k``.

    The first twelve are told apart with the common colour-vision deficiencies. No thirty colours
    are, so the rest differ in lightness as well as in hue.
    """
    colors = list(_DISTINCT[:k])
    for extra in range(k - len(colors)):
        hue = (0.03 + extra * _GOLDEN_TURN) % 1.0
        lightness = (0.30, 0.55, 0.78)[extra % 3]
        red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.65)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colors)
