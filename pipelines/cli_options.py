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


def on_disk(path: Path | None) -> Path | None:
    """Refuse a URL where only a folder will do. A path has lost one of its slashes."""
    if path is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path.as_posix()):
        raise typer.BadParameter(f"{path}: a folder on disk is needed here, not an address.")
    return path


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
        help="Folder for all results, or s3://bucket/folder; an earlier run is continued.",
    ),
]
Finished = Annotated[str, typer.Argument(help="What was given to `run` with -o.")]
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
