"""What people know of slides: patient, group, site and scanner, from the run and from a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ccrl_wsi.errors import ConfigError

TRAITS = ("patient", "group", "site", "scanner")


@dataclass(frozen=True, slots=True)
class Traits:
    """One slide's, or one patient's; None where nothing is known."""

    patient: str | None = None
    group: str | None = None
    site: str | None = None
    scanner: str | None = None

    def over(self, other: Traits) -> Traits:
        """These, and ``other``'s where these are unknown."""
        known = {n: getattr(self, n) for n in TRAITS if getattr(self, n) is not None}
        return replace(other, **known)


@dataclass(frozen=True, slots=True)
class TraitsTable:
    """A table such as ``--groups cohort.csv``.

    Parameters
    ----------
    slides
        Traits by what the column slide_id says.
    patients
        Traits by patient, from lines without a slide.
    unused
        Columns that mean nothing here.
    """

    slides: Mapping[str, Traits]
    patients: Mapping[str, Traits]
    unused: tuple[str, ...]


def read_traits(path: Path) -> TraitsTable:
    """Read a CSV with the columns slide_id and/or patient, and group, site or scanner.

    A line with a slide_id speaks of that slide, one with a patient alone of all his slides. Other
    columns are left alone. Commas or semicolons; UTF-8.

    Raises
    ------
    ConfigError
        If it cannot be read, lacks these columns, or says two things of one slide or patient.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the table of groups {path}: {error}.") from None
    header = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=";" if header.count(";") > header.count(",") else ",")
    columns = [name.strip().lower() for name in next(reader, [])]
    _check_columns(path, columns)
    slides: dict[str, Traits] = {}
    patients: dict[str, Traits] = {}
    for cells in reader:
        values = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        traits = Traits(**{name: values.get(name) or None for name in TRAITS})
        slide = values.get("slide_id", "")
        if slide:
            _add(slides, slide, traits, f"{path}, line {reader.line_num}: slide {slide!r}")
        elif traits.patient:
            whose = f"{path}, line {reader.line_num}: patient {traits.patient!r}"
            _add(patients, traits.patient, traits, whose)
    if not slides and not patients:
        raise ConfigError(f"{path} has no line with a slide_id or a patient below its header.")
    unused = tuple(name for name in columns if name not in ("slide_id", *TRAITS))
    return TraitsTable(slides, patients, unused)


def traits_of(
    known: Mapping[str, Traits], names: Mapping[str, str], table: TraitsTable | None
) -> tuple[dict[str, Traits], list[str]]:
    """The traits of every slide, and sentences about what of the table found no slide.

    Parameters
    ----------
    known
        By slide_id: what the run was told. The table outweighs it.
    names
        Other names of slides, such as those of their files, and the slide_id meant.
    """
    if table is None:
        return dict(known), []
    found = dict(known)
    strangers = []
    for name, traits in table.slides.items():
        slide = name if name in known else names.get(name)
        if slide is None:
            strangers.append(name)
        else:
            found[slide] = traits.over(found[slide])
    for slide, traits in found.items():
        about_patient = table.patients.get(traits.patient or "")
        if about_patient is not None:
            said = next((t for n, t in table.slides.items() if names.get(n, n) == slide), Traits())
            found[slide] = said.over(about_patient.over(traits))
    patients = {traits.patient for traits in found.values()}
    strange_patients = [name for name in table.patients if name not in patients]
    return found, _sentences(strangers, strange_patients, table.unused)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not {"slide_id", "patient"} & set(columns):
        raise ConfigError(f"{path} needs a column slide_id or patient in its first line.")
    if len({"slide_id", *TRAITS} & set(columns)) < 2:
        raise ConfigError(
            f"{path} says nothing of its slides: add a column group, site, scanner or patient."
        )
    twice = sorted({name for name in columns if columns.count(name) > 1 and name})
    if twice:
        raise ConfigError(f"{path} has the column {twice[0]!r} twice. Rename one.")


def _add(known: dict[str, Traits], name: str, traits: Traits, whose: str) -> None:
    if known.setdefault(name, traits) != traits:
        raise ConfigError(f"{whose} stands there twice, with different values. Keep one line.")


def _sentences(slides: Sequence[str], patients: Sequence[str], unused: Sequence[str]) -> list[str]:
    sentences = []
    for what, names in (("slides", slides), ("patients", patients)):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            sentences.append(
                f"The table of groups names {what} that this run does not have: {shown}."
            )
    if unused:
        sentences.append(f"Columns of the table of groups that are not used: {', '.join(unused)}.")
    return sentences
