"""Where everything of a run lies, and with which settings the folder was made."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ccrl_wsi.cell_identity import cell_settings
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError, ConfigError, StoreError
from ccrl_wsi.object_storage import ObjectFolder, is_url
from ccrl_wsi.settings_tree import differences
from pipelines.remote_folder import RemoteFolder
from pipelines.staged_work import StagedWork

Job = TypeVar("Job")
Result = TypeVar("Result")

LAYOUT_VERSION = 1


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """Paths inside the folder given with ``-o``.

    Parameters
    ----------
    root
        The folder; the driver's desk if the folder is in an object store.
    remote
        That store. What is written below ``root`` is published there.
    """

    root: Path
    remote: RemoteFolder | None = field(default=None, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker gets a desk of its own: it may share no disk with this computer."""
        if self.remote is None:
            return OutputFolder, (self.root,)
        return _remote_folder, (self.remote.objects,)

    @property
    def name(self) -> str:
        """What the user calls it: a path or a URL."""
        return str(self.root) if self.remote is None else self.remote.objects.url

    @property
    def run_file(self) -> Path:
        """Settings and models the cells were made with."""
        return self.root / "run.json"

    @property
    def codebook(self) -> Path:
        """The cohort's clusters."""
        return self.root / "codebook.safetensors"

    @property
    def overlays(self) -> Path:
        """Files for QuPath, all slides together."""
        return self.root / "overlays"

    @property
    def slides(self) -> Path:
        """One store a slide."""
        return self.root / "slides"

    @property
    def exports(self) -> Path:
        """Where `export` writes unless told otherwise."""
        return self.root / "exports"

    @property
    def logs(self) -> Path:
        """What Python said when slides failed."""
        return self.root / "logs"

    def store(self, slide_id: str) -> Path:
        """The slide's Zarr store."""
        return self.slides / f"{slide_id}.zarr"

    def work(self, slide_id: str) -> Path:
        """What is needed until the slide is finished: its tissue mask and parts."""
        return self.root / "work" / slide_id

    def part(self, slide_id: str, name: str) -> Path:
        """One partition's result."""
        return self.work(slide_id) / "parts" / f"{name}.npz"

    def tissue(self, slide_id: str) -> Path:
        """The slide's tissue mask, for workers."""
        return self.work(slide_id) / "tissue.npz"

    def state(self, slide_id: str) -> Path:
        """How far the slide is; written last."""
        return self.root / "state" / f"{slide_id}.json"

    def log(self, slide_id: str) -> Path:
        """What Python said when the slide failed."""
        return self.logs / f"{slide_id}.log"

    def table(self, name: str) -> Path:
        """A table or report at the top of the folder."""
        return self.root / name

    def publish(self, *paths: Path) -> None:
        """Make files that were written, or removed, known to everyone; in no order."""
        if self.remote is not None:
            self.remote.publish(paths)

    def publish_tables(self) -> None:
        """The same for all files at the top of the folder."""
        if self.remote is not None:
            self.remote.publish_tables()

    def remove(self, path: Path) -> None:
        """Delete a file if it is there."""
        path.unlink(missing_ok=True)
        self.publish(path)

    def make(self, path: Path) -> None:
        """Make the folder ``path`` in this one, which is not made anew if it is gone.

        Raises
        ------
        StoreError
            If it is, or if the disk is full or does not allow it.
        """
        try:
            if not self.root.is_dir():
                raise StoreError(f"{self.root} is gone. Bring it back, then run again.")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"Cannot make {path}: {error.strerror}.") from error

    def clear_work(self, slide_id: str, *, is_likely: bool = True) -> None:
        """Delete what is needed only until the slide is finished, if there is anything."""
        if self.remote is not None:
            self.remote.clear(self.work(slide_id), is_likely=is_likely)
        shutil.rmtree(self.work(slide_id), ignore_errors=True)

    def look_up(self, slide_ids: Iterable[str]) -> None:
        """Make the slides' stores known here, to be opened for reading."""
        if self.remote is not None:
            self.remote.look_up([self.store(slide_id) for slide_id in slide_ids])

    def forget(self, *slide_ids: str) -> None:
        """The slides' stores may be other ones now."""
        if self.remote is not None:
            self.remote.forget(self.remote.name_of(self.store(name)) for name in slide_ids)

    def fetch_here(self, path: Path) -> None:
        """Bring a file to this disk if it is not on it."""
        if self.remote is not None and not path.exists():
            self.remote.fetch(path)

    def names_in(self, folder: Path) -> frozenset[str]:
        """Names of what lies directly in ``folder``, nothing if there is none."""
        if self.remote is not None:
            return self.remote.names_in(folder)
        return frozenset(p.name for p in folder.iterdir()) if folder.is_dir() else frozenset()

    def readable_part(self, path: Path) -> Path | BinaryIO:
        """A part whose manifest is asked for."""
        return path if self.remote is None else self.remote.part(path)

    @contextmanager
    def fetched(self, path: Path) -> Iterator[Path]:
        """A file or a store that is read as a whole, on this disk."""
        if self.remote is None:
            yield path
            return
        with self.remote.fetched(path) as copy:
            yield copy

    @contextmanager
    def changing(self, store: Path) -> Iterator[Path]:
        """A store to be changed, on this disk."""
        if self.remote is None:
            yield store
            return
        with self.remote.changing(store) as copy:
            yield copy

    def work_on(self, work: Callable[[Job], Result]) -> Callable[[Job], Result]:
        """``work`` as workers do it, who may share no disk with this computer."""
        if self.remote is None:
            return work
        lock = self.remote.lock
        return StagedWork(work, self.remote.objects, self.root, lock.sign if lock else None)

    def place_of(self, path: Path) -> Path | str:
        """Where the user finds the file ``path``."""
        return path if self.remote is None else self.remote.told(str(path))

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell errors by the names that the user knows."""
        try:
            yield
        except CcrlError as error:
            if self.remote is not None:
                error.args = (self.remote.told(str(error)),)
            raise

    def told(self, text: str) -> str:
        """A sentence with the names that the user knows."""
        return text if self.remote is None else self.remote.told(text)


def claim(root: Path | str, settings: Settings, models: Mapping[str, str]) -> OutputFolder:
    """Make the folder, or check that what is in it was made with the same settings.

    A run holds the folder first: :func:`made_folder`, then :func:`claim_held`.

    Parameters
    ----------
    models
        What the segmenter and the encoder are, by name: fingerprints.

    Raises
    ------
    ConfigError
        If the folder cannot be written, holds something else, or its cells were made otherwise.
    """
    folder = made_folder(root)
    claim_held(folder, settings, models)
    return folder


def made_folder(root: Path | str) -> OutputFolder:
    """The folder, made where there is none.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    if not is_url(root):
        check_writable(Path(root))
    return _folder_at(root)


def claim_held(folder: OutputFolder, settings: Settings, models: Mapping[str, str]) -> None:
    """As :func:`claim`, of a folder that nobody else works in."""
    wanted = {"cells": cell_settings(settings), "models": dict(models)}
    if folder.run_file.exists():
        with folder.telling():
            _check_same(folder, wanted)
        return
    if folder.names_in(folder.root) & {folder.slides.name, "work"}:
        raise ConfigError(
            f"{folder.name} holds results but no run.json that says how they were made. "
            "Give another folder with -o."
        )
    write_json(folder.run_file, {"layout": LAYOUT_VERSION, **wanted})
    folder.publish(folder.run_file)


def open_output(root: Path | str) -> OutputFolder:
    """The folder of an earlier run.

    Raises
    ------
    ConfigError
        If there is none at ``root``.
    """
    folder = _folder_at(root)
    if not folder.run_file.is_file():
        raise ConfigError(
            f"{root} is not the output of `ccrl-wsi run`: it has no run.json. "
            "Give the folder that was given with -o."
        )
    return folder


def _folder_at(root: Path | str) -> OutputFolder:
    if isinstance(root, str) and is_url(root):
        folder = _remote_folder(ObjectFolder.at(root))
        if folder.remote is not None:
            folder.remote.refresh()
        return folder
    return OutputFolder(Path(root).resolve())


def _remote_folder(objects: ObjectFolder) -> OutputFolder:
    remote = RemoteFolder(objects)
    return OutputFolder(remote.desk, remote)


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write ``tree`` whole or not at all."""
    write_text(path, json.dumps(tree, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all.

    Raises
    ------
    StoreError
        If the disk is full or does not allow it.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror}. Free some space, then run the same command "
            "again: what is finished stays."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}). Delete it and run again.") from None
    return tree


def check_writable(root: Path) -> None:
    """Make the folder ``root`` and try to write into it.

    Raises
    ------
    ConfigError
        If that is not possible.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise ConfigError(
            f"Cannot write into {root}: {error.strerror}. Give another folder with -o."
        ) from None


def _check_same(folder: OutputFolder, wanted: Mapping[str, Any]) -> None:
    try:
        found = read_json(folder.run_file)
    except StoreError:
        raise ConfigError(
            f"{folder.run_file} is damaged, so nobody knows how the results beside it were made. "
            "Give another folder with -o."
        ) from None
    if found.get("layout") != LAYOUT_VERSION:
        raise ConfigError(
            f"{folder.name} was made by another version (layout {found.get('layout')}, "
            f"this is {LAYOUT_VERSION}). Give another folder with -o."
        )
    changed = differences(found["cells"], wanted["cells"])
    changed += differences(found["models"], wanted["models"])
    if changed:
        raise ConfigError(
            f"{folder.name} was made with other settings ({'; '.join(changed)}). Run with the same "
            "settings to continue it, give another folder with -o, or delete this one."
        )
