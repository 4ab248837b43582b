"""One run at a time in an output folder, also where several computers share it.

The lock is the file ``.lock``: who holds it, and a number that its holder raises every few
seconds. Locks of the file system are used too, because they end with their process; but not all
file systems have them, and some keep them from other computers. So a newcomer that is granted the
lock watches the number of a holder on another computer: it is alone only if that stands still.
Nobody's clock is compared with anybody else's.
"""

from __future__ import annotations

import json
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO
from uuid import uuid4

import psutil

from ccrl_wsi.errors import ConfigError, RunStopped
from pipelines.folder_sign import Sign
from pipelines.this_computer import is_alive, this_computer

BEAT_SECONDS = 5.0
SILENT_BEATS = 6
"""A holder on another computer that misses this many beats is taken for dead."""

READINGS = 5
SHARED = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "fuse", "9p", "afs")
"""Beginnings of the names of file systems that other computers may see too."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a folder.

    Parameters
    ----------
    run
        Different for every run.
    host, process, started
        Where it runs; ``started`` is when the process began, in seconds, so that another process
        with the same number is told apart.
    since
        Date and time, for people.
    beat
        Raised again and again.
    computer
        Tells computers of one name apart, and containers that see other processes.
    """

    run: str
    host: str
    process: int
    started: float
    since: str
    beat: int = 0
    computer: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


class FolderLock:
    """Held while inside; :meth:`check` raises once another run took the folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / ".lock"
        self.me = _this_process()
        self._file: TextIO | None = None
        self._ended = threading.Event()
        self._taken_by: Holder | None = None
        self._last_beat = time.time()

    @property
    def sign(self) -> Sign:
        """By what another computer knows this folder."""
        return Sign(self.root, self.path.name, self.me.run)

    def check(self) -> None:
        """Make sure that the folder is still there and ours.

        Raises
        ------
        RunStopped
            If it is gone, or another run took it: this process had been standing still for long.
        """
        if not self.path.exists():
            raise RunStopped(
                f"{self.root} is gone. Bring it back and give the same command: what is finished "
                "in it stays."
            )
        if abs(time.time() - self._last_beat) > 2 * BEAT_SECONDS:
            # This process, or computer, stood still: what the beats know is as old.
            with suppress(OSError):
                self._look()
        if self._taken_by is not None:
            raise RunStopped(
                f"{self._taken_by} took {self.root} over, because this run gave no sign of life. "
                "Let it finish; what this run finished stays."
            )

    def __enter__(self) -> FolderLock:
        file = self.path.open("a+", encoding="utf-8")
        try:
            if not _try_lock(file):
                raise _refusal(self.root, self._read())
            self._wait_for_silence()
            self._write()
            self._settle()
        except BaseException:
            file.close()
            raise
        self._file, self._last_beat = file, time.time()
        self._beat = threading.Thread(target=self._keep_beating, daemon=True, name="folder lock")
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._beat.join()
        with suppress(OSError):  # The folder may be gone.
            holder = self._read()
            if holder is None or holder.run == self.me.run:
                self.path.write_text("", encoding="utf-8")
        if self._file is not None:
            self._file.close()

    def _wait_for_silence(self) -> None:
        """Return when whoever is named in the file is dead."""
        holder = self._read()
        if holder is None or _has_ended_here(holder):
            return
        deadline = time.monotonic() + BEAT_SECONDS * SILENT_BEATS
        while time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 4)
            now = self._read()
            if now is None:
                return
            if now != holder:
                raise _refusal(self.root, now)

    def _settle(self) -> None:
        """Of two newcomers that found the same dead holder, the one that wrote last remains."""
        if _is_shared(self.root):
            time.sleep(BEAT_SECONDS / 2)
        holder = self._read()
        if holder is not None and holder.run != self.me.run:
            raise _refusal(self.root, holder)

    def _keep_beating(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # Full or away for a moment: the next beat may get through.
                self._look()
                if self._taken_by is not None:
                    return
                self._write()
                self._last_beat = time.time()

    def _look(self) -> None:
        holder = self._read()
        if holder is not None and holder.run != self.me.run:
            self._taken_by = holder

    def _read(self) -> Holder | None:
        """Who is named in the file; None for nobody, and for what an older version wrote."""
        for _ in range(READINGS):
            text = self.path.read_text(encoding="utf-8")
            if not text.strip():
                return None
            with suppress(ValueError, TypeError):
                return Holder(**json.loads(text))
            time.sleep(0.05)  # It is just being written.
        return None

    def _write(self) -> None:
        self.me = Holder(**{**asdict(self.me), "beat": self.me.beat + 1})
        # In place: another file under the same name would not carry the lock.
        with self.path.open("r+", encoding="utf-8") as file:
            text = json.dumps(asdict(self.me))
            file.write(text)
            file.truncate(len(text))


@contextmanager
def exclusive(root: Path) -> Iterator[FolderLock]:
    """Hold the folder; it is free again when the process ends, however it ends.

    Raises
    ------
    ConfigError
        If another run holds it.
    """
    with FolderLock(root) as lock:
        yield lock


def _this_process() -> Holder:
    process = psutil.Process()
    return Holder(
        run=uuid4().hex,
        host=platform.node(),
        process=process.pid,
        started=process.create_time(),
        computer=this_computer(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _has_ended_here(holder: Holder) -> bool:
    """Whether the holder ran on this computer and is no more."""
    is_here = holder.computer == this_computer()
    return is_here and not is_alive(holder.process, holder.started)


def _is_shared(root: Path) -> bool:
    """Whether other computers may see the folder: then their locks may be unknown here."""
    place = root.resolve()
    mounts = [m for m in psutil.disk_partitions(all=True) if place.is_relative_to(m.mountpoint)]
    kind = max(mounts, key=lambda m: len(m.mountpoint)).fstype if mounts else ""
    return kind.lower().startswith(SHARED)


def _try_lock(file: TextIO) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # The file system has no locks.
        return True
    return True


def _refusal(root: Path, holder: Holder | None) -> ConfigError:
    return ConfigError(
        f"Another run ({holder or 'of another user'}) is working in {root}. "
        "Wait for it, or give another folder with -o."
    )
