"""What damaged files make libraries raise, as one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shapely

from ccrl_wsi.errors import StoreError

DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, shapely.errors.ShapelyError)
"""Of zarr, pyarrow and shapely."""

_NOT_THE_STORE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE)
)
"""A full disk, a right that is missing, too many open files: the store itself may be sound."""

ADVICE = "Delete {store} and run again: only this slide is done anew."


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Raise what damaged files of the store ``path`` cause as :class:`StoreError`.

    Only what reads or writes this one store belongs inside: the advice is to delete it.
    """
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _NOT_THE_STORE:
            raise StoreError(
                f"{path} cannot be read or written ({error.strerror}). Check free space and "
                "permissions, then run the same command again: what is finished stays."
            ) from error
        first_line = str(error).partition("\n")[0]
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}: {first_line}). "
            + ADVICE.format(store=path.name)
        ) from error
