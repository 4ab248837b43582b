"""Ctrl-C and SIGTERM as a wish that is followed when the work is in order."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import NoReturn

_HEARD = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While inside, the signals only set :attr:`asked`; leaving follows them.

    Parameters
    ----------
    at_once_when_repeated
        A second signal stops at once, wherever the work is.
    """

    def __init__(self, at_once_when_repeated: bool = True) -> None:
        self._number: int | None = None
        self._at_once_when_repeated = at_once_when_repeated
        self._before: dict[int, object] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def follow(self) -> NoReturn:
        """Raise what the signal means: ``SystemExit(143)`` for SIGTERM, else KeyboardInterrupt."""
        if self._number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def __enter__(self) -> StopSignals:
        # Python hears signals in its main thread only; elsewhere nobody asks.
        if threading.current_thread() is threading.main_thread():
            # A job in the background may have been told to ignore Ctrl-C.
            heard = [n for n in _HEARD if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None: a handler that was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        if self.asked and kind is None:
            self.follow()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        repeated, self._number = self.asked, number
        if repeated and self._at_once_when_repeated:
            self.follow()
