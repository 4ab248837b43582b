"""Tables as files, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ccrl_wsi.errors import StoreError
from pipelines.output_folder import write_text


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_tidy(stem: Path, table: pd.DataFrame) -> None:
    """Write ``stem`` with .csv and .parquet, each whole or not at all."""
    write_text(stem.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n"))
    target = stem.with_suffix(".parquet")
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        table.to_parquet(temporary, index=False)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"Cannot write {target}: {error.strerror or error}.") from error
