"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

Slides = Annotated[
    list[str],
    typer.Argument(
        help="Slide files, folders, quoted globs, or one CSV with the columns path "
        "and, if wanted, slide_id, mpp, patient, group, site, scanner.",
        show_default=False,
    ),
]


_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
"""A path has lost one of the slashes of a URL. Drives of Windows have one letter."""


def on_disk(path: Path | None) -> Path | None:
    """Refuse a URL where only a place on disk can be written to."""
    if path is not None and _ADDRESS.match(path.as_posix()):
        raise typer.BadParameter(
            f"{_as_url(path)} is an address, and a folder on disk is needed here. Only `run` "
            "writes to object storage, and `cluster`, `report` and `import-labels` to what it "
            "wrote. Give a folder, and copy it there afterwards (such as with `aws s3 cp "
            "--recursive`)."
        )
    return path


def from_disk(path: Path | None) -> Path | None:
    """Refuse a URL where only what is on disk can be read."""
    if path is not None and _ADDRESS.match(path.as_posix()):
        raise typer.BadParameter(
            f"{_as_url(path)} is an address, and this is read from disk. Copy it there first."
        )
    return path


def folder_or_address(place: str) -> str:
    """Refuse what is neither: a URL with one slash would become a folder of that name."""
    if _ADDRESS.match(place) and "://" not in place:
        raise typer.BadParameter(
            f"{place} is no folder and no address. An address has two slashes: {_as_url(place)}."
        )
    return place


def _as_url(place: Path | str) -> str:
    return _ADDRESS.sub(r"\1://", str(place), count=1)


Out = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        callback=on_disk,
        help="Folder for all results; an earlier run is continued.",
    ),
]
RunOut = Annotated[
    str,
    typer.Option(
        "-o",
        "--out",
        callback=folder_or_address,
        help="Folder for all results, or s3://bucket/folder; an earlier run is continued.",
    ),
]
Finished = Annotated[
    str, typer.Argument(callback=folder_or_address, help="What was given to `run` with -o.")
]
ConfigFiles = Annotated[
    list[str],
    typer.Option(
        "-c", "--config", help="Settings file, or its name such as infer/20x. Repeatable."
    ),
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting, such as tiles.mpp=0.5. Repeatable."
    ),
]
On = Annotated[
    str,
    typer.Option(help="Where to run: local, serial, gpu, a YAML file, or tcp://host:8786."),
]
