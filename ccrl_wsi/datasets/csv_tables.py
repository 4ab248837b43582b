"""CSV files as people and programs write them: any line ends, gzip, a byte-order mark, blanks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from ccrl_wsi.errors import StoreError

NO_NUMBER = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "inf", "-inf"]
"""How tables write that there is no number. As text, NA and None may be names."""
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}
_GZIP = b"\x1f\x8b"
_WELL = re.compile(r"^([A-Za-z]{1,2})0*(\d+)$")
_DAMAGE = (OSError, ValueError, EOFError, pd.errors.ParserError)


def read_csv(path: Path, is_text: Callable[[str], bool]) -> pd.DataFrame:
    """The table ``path``, plain or gzipped whatever its name, with CR, LF or CRLF line ends.

    Columns that ``is_text`` names are strings without blanks around them, empty where nothing is
    written; the others are numbers where all of them are, with NaN for none.

    Raises
    ------
    StoreError
        If the file is absent, damaged, empty or names a column twice.
    """
    try:
        compression: Literal["gzip"] | None = "gzip" if _is_gzipped(path) else None
        header = pd.read_csv(
            path, nrows=1, encoding="utf-8-sig", header=None, dtype=str, compression=compression
        )
        names = [str(name).strip() for name in header.iloc[0]]
        texts = {name for name in names if is_text(name)}
        table = pd.read_csv(
            path,
            encoding="utf-8-sig",
            header=None,
            skiprows=1,
            names=names if len(set(names)) == len(names) else None,
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values=dict.fromkeys((n for n in names if n not in texts), NO_NUMBER),
            skip_blank_lines=True,
            compression=compression,
        )
    except FileNotFoundError:
        raise StoreError(f"There is no table {path}.") from None
    except (*_DAMAGE, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{path} cannot be read as a table ({reason}).") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StoreError(f"{path} has two columns named {twice[0]}. Rename one of them.")
    separator = next((name for mark, name in _OTHER_SEPARATORS.items() if mark in names[0]), None)
    if len(names) == 1 and separator:
        raise StoreError(f"{path} has its columns separated by {separator}. Save it with commas.")
    for name in texts:
        table[name] = table[name].fillna("").str.strip()
    return table


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def check_columns(path: Path, table: pd.DataFrame, wanted: Iterable[str]) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    StoreError
        With the name of the first that is missing.
    """
    for name in wanted:
        if name not in table.columns:
            there = ", ".join(map(str, table.columns[:12]))
            raise StoreError(f"{path} has no column {name}; it has: {there or 'nothing'}.")


def well_name(text: str) -> str:
    """A well's name with two digits: ``b2`` and ``B002`` are ``B02``; other names stay."""
    found = _WELL.match(text.strip())
    return f"{found[1].upper()}{int(found[2]):02d}" if found else text.strip()


def concentration_key(value: object) -> str:
    """A concentration so that equal ones are equal texts: 0.30000001 and "0.3" are ``0.3``.

    What is no number is empty.
    """
    try:
        number = float(str(value))
    except ValueError:
        return ""
    return "" if number != number else f"{number:.6g}"
