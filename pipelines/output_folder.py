"""Where everything of a run lies, and with which settings the folder was made."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_wsi.config import Settings, cell_settings
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.settings_tree import differences

LAYOUT_VERSION = 1


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """Paths inside the folder given with ``-o``."""

    root: Path

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
        return self.root / "logs" / f"{slide_id}.log"

    def table(self, name: str) -> Path:
        """A table or report at the top of the folder."""
        return self.root / name


def claim(root: Path, settings: Settings, models: Mapping[str, str]) -> OutputFolder:
    """Make the folder, or check that what is in it was made with the same settings.

    Parameters
    ----------
    models
        What the segmenter and the encoder are, by name: fingerprints.

    Raises
    ------
    ConfigError
        If the folder cannot be written, holds something else, or its cells were made otherwise.
    """
    check_writable(root)
    folder = OutputFolder(root.resolve())
    wanted = {"cells": cell_settings(settings), "models": dict(models)}
    if folder.run_file.exists():
        _check_same(folder, wanted)
        return folder
    if (root / "slides").exists() or (root / "work").exists():
        raise ConfigError(
            f"{root} holds results but no run.json that says how they were made. "
            "Give another folder with -o."
        )
    write_json(folder.run_file, {"layout": LAYOUT_VERSION, **wanted})
    return folder


def open_output(root: Path) -> OutputFolder:
    """The folder of an earlier run.

    Raises
    ------
    ConfigError
        If there is none at ``root``.
    """
    folder = OutputFolder(root.resolve())
    if not folder.run_file.is_file():
        raise ConfigError(
            f"{root} is not the output of `ccrl-wsi run`: it has no run.json. "
            "Give the folder that was given with -o."
        )
    return folder


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
            f"{folder.root} was made by another version (layout {found.get('layout')}, "
            f"this is {LAYOUT_VERSION}). Give another folder with -o."
        )
    changed = differences(found["cells"], wanted["cells"])
    changed += differences(found["models"], wanted["models"])
    if changed:
        raise ConfigError(
            f"{folder.root} was made with other settings ({'; '.join(changed)}). Run with the same "
            "settings to continue it, give another folder with -o, or delete this one."
        )
