"""What went wrong in a job, as a record that travels: a sentence, where it was, the trace."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from ccrl_wsi.errors import CcrlError

Item = TypeVar("Item")
Result = TypeVar("Result")

_STAGE, _PLACE = "ccrl_wsi_stage", "ccrl_wsi_place"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an item has no result.

    Parameters
    ----------
    message
        A sentence for people.
    stage
        The step that failed, as the stopwatch calls it; empty where nobody said.
    place
        The tile, for example; empty where nobody said.
    trace
        Python's traceback, for a log.
    """

    message: str
    stage: str = ""
    place: str = ""
    trace: str = ""


@contextmanager
def telling(*, stage: str = "", place: str = "") -> Iterator[None]:
    """An error that leaves the block knows where it was; the innermost block has the say."""
    try:
        yield
    except Exception as error:
        for name, value in ((_STAGE, stage), (_PLACE, place)):
            if value and not hasattr(error, name):
                with suppress(AttributeError):  # A class with slots cannot be told.
                    setattr(error, name, value)
        raise


def guarded(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, Fault | None]:
    """Result and no fault, or the fault of whatever error there was."""
    try:
        return work(item), None
    except Exception as error:  # noqa: BLE001 (one slide's misfortune must not end the others)
        return None, fault_of(error)


def fault_of(error: Exception) -> Fault:
    """The record of an error; one of ours is a sentence already."""
    said = str(error).strip()
    if not isinstance(error, CcrlError):
        named = f"{type(error).__name__}: {said}" if said else type(error).__name__
        said = f"{named.rstrip('.')}. This was not foreseen; the log says where it comes from."
    return Fault(
        message=said,
        stage=getattr(error, _STAGE, ""),
        place=getattr(error, _PLACE, ""),
        trace="".join(traceback.format_exception(error)),
    )
