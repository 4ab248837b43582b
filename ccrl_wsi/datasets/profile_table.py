"""Tables of profiles as other tools write them: CSV, Parquet, or AnnData in Zarr.

Columns named as pycytominer does: what begins with ``Metadata_`` or ``Image_Metadata_`` tells of
the row, what is a number is a feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ccrl_wsi.datasets.bbbc021 import batch_of_plate
from ccrl_wsi.datasets.csv_tables import concentration_key, read_csv, well_name
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.profile_set import ABOUT, Profiles

CSV, PARQUET, ZARR = (".csv", ".csv.gz"), (".parquet", ".pq"), (".zarr",)
PREFIXES = ("image_metadata_", "metadata_", "meta_")
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "plate": ("plate", "plate_dapi", "plateid", "assay_plate_barcode"),
    "well": ("well", "well_dapi", "well_position"),
    "batch": ("batch", "week"),
    "compound": ("compound", "pert_iname", "broad_sample", "treatment"),
    "concentration": ("concentration", "dose", "mmoles_per_liter", "pert_dose"),
    "mechanism": ("moa", "mechanism", "mechanism_of_action"),
}
"""Names without prefix, in lower case, in the order of preference."""
COUNTERS = ("tablenumber", "imagenumber", "objectnumber", "site", "replicate", "unnamed: 0", "")
"""Columns of numbers that no prefix marks and that are no features."""


@dataclass(frozen=True, eq=False, slots=True)
class ProfileTable:
    """Profiles, and sentences about what was left out or is not known."""

    profiles: Profiles
    remarks: tuple[str, ...]


def read_profile_table(path: Path, columns: Mapping[str, str | None]) -> ProfileTable:
    """The profiles in ``path``, as the file has them: of cells, wells or treatments.

    Parameters
    ----------
    path
        ``.csv``, ``.csv.gz``, ``.parquet`` or an AnnData ``.zarr``.
    columns
        Column names by entry of ``ABOUT``; None: recognised by ``USUAL_NAMES``.

    Raises
    ------
    ConfigError
        If a column asked for is not there, or the suffix is none of these.
    StoreError
        If the file is absent or damaged, or holds no row or no feature.
    """
    table = _read(path, {name for name in columns.values() if name})
    found = {name: _column(path, table, name, columns.get(name)) for name in ABOUT}
    about = _about(table, found)
    used = {name for name in found.values() if name}
    candidates = [c for c in table.columns if c not in used and not _is_about(str(c))]
    features = [c for c in candidates if pd.api.types.is_numeric_dtype(table[c])]
    features = [c for c in features if not pd.api.types.is_bool_dtype(table[c])]
    if not features or not len(table):
        raise StoreError(
            f"{path} holds {len(table)} rows and {len(features)} columns of numbers that are not "
            "metadata. Profiles have a row a cell, well or treatment and a column a feature."
        )
    remarks = [*_about_text(table[[c for c in candidates if c not in features]])]
    remarks += _about_concentrations(table, found["concentration"], about)
    values = table[features].to_numpy(np.float64)
    profiles = Profiles(values, tuple(map(str, features)), about)
    return ProfileTable(profiles, tuple(remarks))


def add_treatments(profiles: Profiles, wells: pd.DataFrame) -> tuple[Profiles, list[str]]:
    """What a data set's ``wells`` know of the plates and wells of ``profiles`` filled in.

    Parameters
    ----------
    profiles
        With plates and wells.
    wells
        Columns plate, well, compound, concentration, mechanism.

    Returns
    -------
    profiles, remarks
        Rows of wells that are not known are left out; sentences say so.
    """
    about = profiles.about[["plate", "well", "batch"]]
    joined = about.merge(wells, on=["plate", "well"], how="left", sort=False, validate="m:1")
    is_known = joined["compound"].notna().to_numpy()
    filled = Profiles(profiles.features, profiles.names, joined[list(ABOUT)]).where(is_known)
    remarks = []
    if not is_known.all():
        first = about[~is_known].iloc[0]
        remarks.append(
            f"{(~is_known).sum()} rows are of wells that the data set does not list, such as "
            f"{first['plate']} {first['well']}: left out"
        )
    return filled, remarks


def _read(path: Path, asked: set[str]) -> pd.DataFrame:
    name = path.name.lower()
    if not path.exists():
        raise StoreError(f"There is no table {path}.")
    if name.endswith(CSV):
        return read_csv(path, lambda column: column in asked or _is_about(column))
    if name.endswith(PARQUET):
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read as Parquet ({error}).") from error
        is_named = any(name is not None for name in table.index.names)
        return table.reset_index() if is_named else table
    if name.endswith(ZARR):
        return _read_zarr(path)
    raise ConfigError(f"{path} is no table of profiles: give .csv, .csv.gz, .parquet or .zarr.")


def _read_zarr(path: Path) -> pd.DataFrame:
    """X and obs of an AnnData as one table."""
    try:
        import anndata
    except ImportError:
        raise ConfigError(
            'Profiles in Zarr are read by anndata. `pip install "ccrl-wsi[spatial]"`, or give CSV '
            "or Parquet."
        ) from None
    try:
        data: Any = anndata.read_zarr(path)
    except Exception as error:  # noqa: BLE001 - whatever zarr and anndata say of a damaged store
        raise StoreError(f"{path} cannot be read as an AnnData ({error}).") from error
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    features = pd.DataFrame(values, columns=[str(name) for name in data.var_names])
    about = data.obs.reset_index(drop=True)
    # All of obs tells of the row, whatever its columns are called.
    about.columns = pd.Index([c if _is_about(c) else f"Metadata_{c}" for c in map(str, about)])
    return pd.concat([about, features], axis=1)


def _is_about(column: str) -> bool:
    lowered = column.casefold()
    if lowered.startswith(PREFIXES) or lowered in COUNTERS:
        return True
    return any(lowered in names for names in USUAL_NAMES.values()) or lowered.startswith(
        ("image_filename", "image_pathname")
    )


def _about_text(columns: pd.DataFrame) -> list[str]:
    """A sentence about columns that are no features, with what in them is no number."""
    if columns.empty:
        return []
    said = []
    for name in columns.columns[:5]:
        values = columns[name]
        is_text = pd.to_numeric(values, errors="coerce").isna() & values.notna()
        first = f" ({str(values[is_text].iloc[0])[:20]!r})" if is_text.any() else ""
        said.append(f"{name}{first}")
    some = ", ".join(said) + (" ..." if columns.shape[1] > len(said) else "")
    return [f"{columns.shape[1]} columns do not hold numbers only and are left out: {some}"]


def _about_concentrations(
    table: pd.DataFrame, column: str | None, about: pd.DataFrame
) -> list[str]:
    """A sentence about concentrations that cannot be told apart, as they are no numbers."""
    if column is None:
        return []
    written = pd.Series(_texts(table[column]))
    odd = (written != "") & about["concentration"].isna()
    if not odd.any():
        return []
    return [
        f"{odd.sum()} concentrations are no numbers, such as {written[odd].iloc[0]!r}: "
        "those of one compound are taken for one treatment"
    ]


def _column(path: Path, table: pd.DataFrame, entry: str, asked: str | None) -> str | None:
    """Name of the column that holds ``entry`` of ``ABOUT``."""
    if asked is not None:
        if asked not in table.columns:
            raise ConfigError(
                f"columns.{entry}={asked}: {path} has no such column. It has: "
                f"{', '.join(map(str, table.columns[:12]))}."
            )
        return asked
    plain = {_without_prefix(str(c)): str(c) for c in reversed(table.columns) if _is_about(str(c))}
    return next((plain[name] for name in USUAL_NAMES[entry] if name in plain), None)


def _without_prefix(column: str) -> str:
    lowered = column.casefold()
    prefix = next((p for p in PREFIXES if lowered.startswith(p)), "")
    return lowered.removeprefix(prefix)


def _about(table: pd.DataFrame, found: Mapping[str, str | None]) -> pd.DataFrame:
    about = pd.DataFrame(index=range(len(table)))
    for entry in ABOUT:
        column = found[entry]
        about[entry] = _texts(table[column]) if column else [""] * len(table)
    about["well"] = [well_name(name) for name in about["well"]]
    amounts = [concentration_key(value) for value in about["concentration"]]
    about["concentration"] = np.array([float(a) if a else np.nan for a in amounts])
    if found["batch"] is None:
        about["batch"] = [batch_of_plate(plate) for plate in about["plate"]]
    return about[list(ABOUT)]


def _texts(values: pd.Series[Any]) -> Sequence[str]:
    return ["" if pd.isna(value) else str(value).strip() for value in values]
