"""What damaged files make libraries raise, as one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shapely

from ccrl_wsi.errors import StoreError

DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, shapely.errors.ShapelyError)
"""Of zarr, pyarrow and shapely."""

ADVICE = "Delete {store} and run again: only this slide is done anew."


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Raise what damaged files of the store ``path`` cause as :class:`StoreError`."""
    try:
        yield
    except DAMAGE as error:
        first_line = str(error).partition("\n")[0]
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {first_line}). "
            + ADVICE.format(store=path.name)
        ) from error
