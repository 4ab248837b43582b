"""Options that several commands share."""

from __future__ import annotations

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
Out = Annotated[
    Path, typer.Option("-o", "--out", help="Folder for all results; an earlier run is continued.")
]
Finished = Annotated[Path, typer.Argument(help="The folder given to `run` with -o.")]
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
