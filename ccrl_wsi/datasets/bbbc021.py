"""BBBC021's tables: which field is which well, what the well was treated with, and mechanisms.

Fields of MCF-7 cells, 16 bits, three channels in a file each: DNA (DAPI), tubulin, actin (Caie
et al. 2010; Broad Bioimage Benchmark Collection, version 1). ``BBBC021_v1_image.csv`` has a row a
field, ``BBBC021_v1_moa.csv`` a row a treatment whose mechanism is known; some copies of the latter
have the line ends of old Macs. Both may be gzipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ccrl_wsi.datasets.csv_tables import check_columns, concentration_key, read_csv, well_name
from ccrl_wsi.errors import StoreError

CHANNELS = ("DAPI", "Tubulin", "Actin")
CONTROL = "DMSO"
IMAGE_TABLE, MOA_TABLE = "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"
PLATE, WELL = "Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI"
COMPOUND, CONCENTRATION = "Image_Metadata_Compound", "Image_Metadata_Concentration"
_SITE = re.compile(r"_s(\d+)_")

MechanismTable = dict[tuple[str, str], str]
"""Mechanism by compound and :func:`concentration_key`."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of view: three files of one place in a well.

    Parameters
    ----------
    files
        File of each of ``CHANNELS`` relative to the data set, as the table says; empty: none said.
    mechanism
        Empty where the treatment's mechanism is not known.
    """

    plate: str
    well: str
    site: int
    compound: str
    concentration: float
    mechanism: str
    files: tuple[str, ...]

    @property
    def batch(self) -> str:
        """``Week1`` of the plate ``Week1_22123``."""
        return batch_of_plate(self.plate)

    @property
    def key(self) -> str:
        """``Week1_22123-B02-s1``, unique in the data set."""
        return f"{self.plate}-{self.well}-s{self.site}"


def batch_of_plate(plate: str) -> str:
    """The week of a plate, by which the published evaluations tell batches."""
    return plate.split("_")[0]


def read_mechanisms(folder: Path) -> MechanismTable:
    """``BBBC021_v1_moa.csv``: mechanisms by treatment; the controls are ``DMSO``.

    Raises
    ------
    StoreError
        If it is absent or damaged, or names two mechanisms of one treatment.
    """
    path = find_table(folder, MOA_TABLE)
    table = read_csv(path, lambda name: True)
    check_columns(path, table, ("compound", "concentration", "moa"))
    known: MechanismTable = {}
    columns = (table["compound"], table["concentration"], table["moa"])
    for compound, concentration, mechanism in zip(*columns, strict=True):
        key = (compound, concentration_key(concentration))
        if known.setdefault(key, mechanism) != mechanism:
            raise StoreError(
                f"{path} names two mechanisms of {compound} at {key[1]}: {known[key]} and "
                f"{mechanism}. Keep one."
            )
    return known


def read_fields(folder: Path, mechanisms: MechanismTable | None = None) -> list[Field]:
    """``BBBC021_v1_image.csv``: every field with its treatment, in the order of the table.

    Raises
    ------
    StoreError
        If it is absent or damaged.
    """
    path = find_table(folder, IMAGE_TABLE)
    # All as text: a compound may be called 5-fluorouracil, NA or 1234.
    table = read_csv(path, lambda name: True)
    check_columns(path, table, (PLATE, WELL, COMPOUND, CONCENTRATION))
    mechanisms = mechanisms or {}
    fields, n_seen = [], dict[tuple[str, str], int]()
    for row in table.to_dict("records"):
        plate, well = str(row[PLATE]), well_name(str(row[WELL]))
        n_seen[plate, well] = n_seen.get((plate, well), 0) + 1
        names = [str(row.get(f"Image_FileName_{channel}", "")) for channel in CHANNELS]
        folders = [str(row.get(f"Image_PathName_{channel}", "")) for channel in CHANNELS]
        found = next((match for name in names if (match := _SITE.search(name))), None)
        amount = concentration_key(row[CONCENTRATION])
        compound = str(row[COMPOUND])
        fields.append(
            Field(
                plate=plate,
                well=well,
                site=int(found[1]) if found else n_seen[plate, well],
                compound=compound,
                concentration=float(amount) if amount else np.nan,
                mechanism=mechanisms.get((compound, amount), ""),
                files=tuple(
                    f"{at}/{name}" if at and name else name
                    for at, name in zip(folders, names, strict=True)
                ),
            )
        )
    return fields


def read_wells(folder: Path) -> pd.DataFrame:
    """One row a well: plate, well, compound, concentration, mechanism.

    Raises
    ------
    StoreError
        If a table is absent or damaged, or the fields of a well were treated differently.
    """
    rows: dict[tuple[str, str], Field] = {}
    for field in read_fields(folder, read_mechanisms(folder)):
        first = rows.setdefault((field.plate, field.well), field)
        if (first.compound, concentration_key(first.concentration)) != (
            field.compound,
            concentration_key(field.concentration),
        ):
            raise StoreError(
                f"{find_table(folder, IMAGE_TABLE)} says that well {field.well} of plate "
                f"{field.plate} got {first.compound} and {field.compound}. Keep one."
            )
    names = ("plate", "well", "compound", "concentration", "mechanism")
    return pd.DataFrame([{name: getattr(f, name) for name in names} for f in rows.values()])


def find_table(folder: Path, name: str) -> Path:
    """The table ``name`` in ``folder``, plain or gzipped.

    Raises
    ------
    StoreError
        If it is in neither form.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise StoreError(f"There is no {name} in {folder}, nor {name}.gz. Is the data set whole?")


def name_problems(fields: list[Field], mechanisms: MechanismTable) -> list[str]:
    """A sentence for every compound in no row of the mechanisms' table, with its fields."""
    named = {compound for compound, _ in mechanisms}
    counts: dict[str, int] = {}
    for field in fields:
        if field.compound not in named:
            counts[field.compound] = counts.get(field.compound, 0) + 1
    return [
        f"{compound or 'no compound'}: not in {MOA_TABLE}; its {n} fields have no mechanism"
        for compound, n in sorted(counts.items())
    ]
