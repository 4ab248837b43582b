"""Numbers of things, as sentences name them."""

from __future__ import annotations


def counted(n: int, thing: str) -> str:
    """``1 slide``, ``2 slides``: for things whose plural is with an s."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
