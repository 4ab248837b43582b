"""One run at a time in a folder of an object store: an object that is written again and again.

The lock names its owner and is renewed by a thread. One that was not renewed for long, by the
clock of the store, or whose process on this computer has ended, is taken over. It is made only if
there is none (If-None-Match on S3, the like elsewhere). Where a store cannot do that, and when a
lock is taken over, it is written, and read again after a while: the last to write holds it.

What remains is that a process which is stopped for longer than that pause, between seeing a free
folder and writing its lock, can enter beside another one, which then notices and ends.
"""

from __future__ import annotations

import json
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import psutil

from ccrl_wsi.errors import ConfigError, RunStopped, StorageError
from ccrl_wsi.object_storage import ObjectFolder
from pipelines.folder_sign import Sign
from pipelines.this_computer import is_alive, this_computer

LOCK = ".lock"
BEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
SETTLE_SECONDS = 1.0


@contextmanager
def exclusive_objects(objects: ObjectFolder) -> Iterator[ObjectLock]:
    """Hold the folder ``objects``; a process that ends without giving it back is noticed.

    Raises
    ------
    ConfigError
        If another process holds it.
    """
    lock = ObjectLock(objects)
    lock.take()
    try:
        yield lock
    finally:
        lock.give_back()


class ObjectLock:
    """The lock of one process on one folder."""

    def __init__(self, objects: ObjectFolder) -> None:
        self._objects = objects
        process = psutil.Process()
        self._own = {
            "owner": uuid4().hex,
            "host": platform.node(),
            "computer": this_computer(),
            "process": process.pid,
            "began": process.create_time(),
        }
        self._is_lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="object lock", daemon=True)

    def take(self) -> None:
        """Hold the folder from now on.

        Raises
        ------
        ConfigError
            If another process holds it.
        """
        found = self._read()
        if found is None:
            if not self._objects.write(LOCK, self._content(), only_new=True):
                raise self._refusal(self._read() or {})
        elif self._is_abandoned(found):
            self._objects.write(LOCK, self._content())
        else:
            raise self._refusal(found)
        time.sleep(SETTLE_SECONDS)
        last = self._read() or {}
        if last.get("owner") != self._own["owner"]:
            raise self._refusal(last)
        self._thread.start()

    @property
    def sign(self) -> Sign:
        """By what another computer knows this folder."""
        return Sign(self._objects, LOCK, str(self._own["owner"]))

    def check(self) -> None:
        """Make sure that the folder is still held.

        Raises
        ------
        RunStopped
            If another process took it over, or may have.
        """
        if self._is_lost:
            raise RunStopped(
                f"{self._objects.url} could not be held: this process was stopped or cut off for "
                "too long, and another run may work there. Run the same command again when that "
                "one has ended: what is finished stays."
            )

    def give_back(self) -> None:
        """Let others hold the folder."""
        self._ended.set()
        self._thread.join()
        with suppress(StorageError):  # It is taken over when it is old.
            if (self._read() or {}).get("owner") == self._own["owner"]:
                self._objects.delete([LOCK])

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(StorageError):
                if (self._read() or {}).get("owner") != self._own["owner"]:
                    self._is_lost = True
                    return
                self._objects.write(LOCK, self._content())
                renewed = time.monotonic()
            self._is_lost = time.monotonic() - renewed > STALE_SECONDS

    def _content(self) -> bytes:
        return json.dumps({**self._own, "renewed": time.time()}, sort_keys=True).encode()

    def _read(self) -> dict[str, Any] | None:
        """What the lock says; an empty one if it cannot be understood, None if there is none."""
        try:
            found = json.loads(self._objects.read(LOCK))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _is_abandoned(self, found: dict[str, Any]) -> bool:
        if found.get("computer") == self._own["computer"]:
            return not is_alive(found.get("process"), found.get("began"))
        age = self._age()
        return age is not None and age > STALE_SECONDS

    def _age(self) -> float | None:
        """Seconds since the lock was written, by the clock of the store alone."""
        probe = f"{LOCK}-{self._own['owner']}"
        self._objects.write(probe, b"")
        written, now = self._objects.modified(LOCK), self._objects.modified(probe)
        self._objects.delete([probe])
        return None if written is None or now is None else (now - written).total_seconds()

    def _refusal(self, found: dict[str, Any]) -> ConfigError:
        who = "of another user"
        if "process" in found:
            who = f"process {found['process']} on {found.get('host')}"
        return ConfigError(
            f"Another run ({who}) is working in {self._objects.url}. Wait for it, or give another "
            f"folder with -o. If it has died, {STALE_SECONDS:.0f} seconds after its last sign of "
            "life this command takes over."
        )
