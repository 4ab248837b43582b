"""What failed, as the output folder remembers it: failures.csv, and what Python said."""

from __future__ import annotations

import csv

from ccrl_wsi.errors import StorageError, StoreError
from pipelines.faults import Fault
from pipelines.jobs import Failure
from pipelines.output_folder import OutputFolder, write_text

CLUSTER = "cluster"
"""How failures call the stage at which the cohort's clusters are made."""


def write_log(folder: OutputFolder, name: str, fault: Fault) -> str:
    """Where in the folder the trace was written; nothing where that was not possible."""
    path = folder.log(name)
    try:
        folder.make(path.parent)
        write_text(path, folder.told(f"{fault.message}\n\n{fault.trace}"))
        folder.publish(path)
    except (StoreError, StorageError):
        return ""
    return path.relative_to(folder.root).as_posix()


def read_failures(folder: OutputFolder) -> list[Failure]:
    """What failures.csv says; nothing if there is none."""
    path = folder.table("failures.csv")
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Failure(**row) for row in csv.DictReader(file)]


def why_no_clusters(folder: OutputFolder) -> str:
    """Why the cohort's clusters could not be made the last time, and what to do; else empty."""
    return next((f.message for f in read_failures(folder) if f.stage == CLUSTER), "")
