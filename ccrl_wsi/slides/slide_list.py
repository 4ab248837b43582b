"""Which slides to process: files, folders, patterns and tables, as one list."""

from __future__ import annotations

import csv
import glob
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.records import SlideSource

# Of a DICOM slide any one file stands for all: they are named one by one, not found in folders.
SUFFIXES = frozenset(
    ".svs .tif .tiff .ndpi .vms .vmu .scn .mrxs .svslide .bif .czi".split()  # noqa: SIM905
)

COLUMNS = ("path", "slide_id", "mpp", "patient", "group", "site", "scanner")


def list_slides(arguments: Sequence[str]) -> list[SlideSource]:
    """The slides that ``arguments`` name, in order, each once.

    An argument is a slide file; a folder, searched with its subfolders for files with a slide's
    suffix; a pattern such as ``'slides/**/*.svs'``; or a CSV with a ``path`` column and, at
    will, ``slide_id``, ``mpp``, ``patient``, ``group``, ``site`` and ``scanner``. Paths in a CSV
    count from its folder. Lines of one file with different ids are slides of their own: two
    pieces of tissue on one glass, say, each with its regions.
    A slide that is named but missing is listed: it fails when its turn comes, the others do not.

    Raises
    ------
    ConfigError
        If nothing is found, a table is faulty, two slides share a name, or two lines say different
        things of one.
    """
    named = [(source, _is_table(a)) for a in arguments for source in _sources(a)]
    # What a table says of a slide outweighs that a folder also holds it.
    in_tables = {source.path.absolute() for source, is_said in named if is_said}
    found: dict[tuple[Path, str], SlideSource] = {}
    for source, is_said in named:
        path = source.path.absolute()
        if is_said or path not in in_tables:
            first = found.setdefault((path, source.slide_id), source)
            _refuse_contradiction(first, source)
    sources = list(found.values())
    if not sources:
        raise ConfigError("No slides given. Name files, folders, patterns or a CSV of slides.")
    _check_names(sources)
    return sources


def safe_name(name: str) -> str:
    """``name`` with nothing but letters, digits, ``-`` and ``_``: ``a b (1)`` gives ``a_b_1``."""
    return re.sub(r"[^\w-]+", "_", name).strip("_-") or "slide"


def _source(path: Path) -> SlideSource:
    return SlideSource(path, safe_name(path.stem))


def _is_table(argument: str) -> bool:
    return Path(argument).suffix.lower() == ".csv"


def _refuse_contradiction(first: SlideSource, second: SlideSource) -> None:
    said = [name for name in COLUMNS[2:] if getattr(first, name) != getattr(second, name)]
    if said:
        raise ConfigError(
            f"{first.path} is listed twice as {first.slide_id}, with another {' and '.join(said)}. "
            "Delete one of the lines, or give them different names in the column slide_id."
        )


def _sources(argument: str) -> Iterator[SlideSource]:
    path = Path(argument).expanduser()
    if _is_table(argument):
        yield from _read_table(path)
    elif path.is_dir():
        yield from map(_source, _in_folder(path))
    elif glob.has_magic(argument) and not path.exists():
        yield from map(_source, _matches(argument, path))
    else:
        yield _source(path)


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        and file.is_file()
    )
    if not files and folder.suffix.lower() in SUFFIXES:
        return [folder]  # A pattern's match that fails alone, as a missing file does.
    if not files:
        raise ConfigError(f"The folder {folder} holds no slides ({' '.join(sorted(SUFFIXES))}).")
    return files


def _matches(argument: str, pattern: Path) -> list[Path]:
    # The glob module, because a Path cannot expand an absolute pattern.
    found = (Path(match) for match in glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise ConfigError(f"No file matches {argument}. Check the folder and the suffix.")
    return files


def _read_table(path: Path) -> Iterator[SlideSource]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the slide list {path}: {error}.") from None
    header = lines[0] if lines else ""
    delimiter = ";" if header.count(";") > header.count(",") else ","
    rows = csv.reader(lines, delimiter=delimiter)
    columns = _check_columns(path, next(rows, []))
    n_slides = 0
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        n_slides += 1
        values = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        yield _row(path, f"{path}, line {rows.line_num}", values)
    if n_slides == 0:
        raise ConfigError(f"The slide list {path} has no lines below its header.")


def _check_columns(path: Path, header: Sequence[str]) -> list[str]:
    columns = [name.strip().lower() for name in header]
    unknown = [n for n in columns if n not in COLUMNS and not n.startswith("#")]
    if unknown:
        raise ConfigError(
            f"{path} has columns that mean nothing here: {', '.join(map(repr, unknown))}. Known "
            f"are {', '.join(COLUMNS)}; begin the name with # to keep a column as a remark."
        )
    if "path" not in columns:
        raise ConfigError(f"{path} needs a column named path in its first line.")
    return columns


def _row(table: Path, place: str, values: dict[str, str]) -> SlideSource:
    if not values.get("path"):
        raise ConfigError(f"{place}: the path is empty.")
    path = table.parent / Path(values["path"]).expanduser()
    slide_id = values.get("slide_id") or safe_name(path.stem)
    if slide_id != safe_name(slide_id):
        raise ConfigError(
            f"{place}: slide_id {slide_id!r} names files, so it may have letters, digits, - and _ "
            f"only: {safe_name(slide_id)!r} would do."
        )
    return SlideSource(
        path=path,
        slide_id=slide_id,
        mpp=_number(place, values.get("mpp", "")),
        patient=values.get("patient") or None,
        group=values.get("group") or None,
        site=values.get("site") or None,
        scanner=values.get("scanner") or None,
    )


def _number(place: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ConfigError(f"{place}: mpp {text!r} is not a positive number such as 0.25.")
    return value


def _check_names(sources: Sequence[SlideSource]) -> None:
    first: dict[str, Path] = {}
    for source in sources:
        # Some file systems do not tell a.zarr from A.zarr.
        other = first.setdefault(source.slide_id.casefold(), source.path)
        if other is not source.path:
            raise ConfigError(
                f"{other} and {source.path} would both be called {source.slide_id}. Rename one, "
                "or name them in the slide_id column of a CSV."
            )
