"""What figures say, in words: numbers to the sentences beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ccrl_wsi.report_content import ClusterCard, MeasurementSummary

_IS = {
    "area_um2": ("small", "large"),
    "eccentricity": ("round", "elongated"),
    "haematoxylin_mean": ("pale", "dark"),
}
_HAS = {
    "solidity": ("an irregular outline", "a smooth outline"),
    "contrast": ("a smooth texture", "a grainy texture"),
    "haematoxylin_around": ("little haematoxylin around", "much haematoxylin around"),
    "eosin_around": ("little eosin around", "much eosin around"),
}
"""By measurement: what a cluster is, or has, whose median is below or above the middle half of all
cells."""


def traits_in_words(card: ClusterCard) -> str:
    """Such as ``large and dark, with much eosin around``; empty where nothing stands out."""
    is_what = listed(_said(card, _IS))
    has_what = listed(_said(card, _HAS))
    return ", ".join(part for part in (is_what, has_what and f"with {has_what}") if part)


def _said(card: ClusterCard, words: Mapping[str, tuple[str, str]]) -> list[str]:
    found = []
    for measurement in card.measurements:
        low, high = words.get(measurement.name, ("", ""))
        if measurement.median < measurement.cohort[0]:
            found.append(low)
        elif measurement.median > measurement.cohort[2]:
            found.append(high)
    return [word for word in found if word]


def number(value: float) -> str:
    """The digits that matter, with thousands apart: 1,234; 56.7; 0.89; 0.065."""
    if value != value:
        return "–"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def signed(value: float) -> str:
    """Two decimals with a sign: +0.42, −0.17; 0.00 has none."""
    text = f"{value:+.2f}"
    return "0.00" if text[1:] == "0.00" else text.replace("-", "−")


def percent(share: float) -> str:
    """A share as people say it."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def p_text(p: float) -> str:
    """A p-value as journals print it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return "< 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def count(n: int, one: str, many: str = "") -> str:
    """``1 slide``, ``2 slides``, ``1,000 slides``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def short_names(names: Sequence[str], most: int) -> list[str]:
    """Names of ``most`` characters at most, cut in the middle, all different."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        head = most // 2
        short = name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"
        number_of_it = 2
        unique = short
        while unique in taken:
            unique = f"{short} ({number_of_it})"
            number_of_it += 1
        taken.add(unique)
        found.append(unique)
    return found


def unit_of(measurement: MeasurementSummary) -> str:
    """The unit as it is printed."""
    return measurement.unit.replace("um2", "µm²").replace("um", "µm").replace("^2", "²")
