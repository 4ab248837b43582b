"""``ccrl-wsi profile``: an encoder's profiles of wells, as a table that other tools read too."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.datasets.bbbc021 import read_fields, read_mechanisms
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.evaluation.profile_aggregation import Average, to_wells
from ccrl_wsi.profile_set import ABOUT, Profiles

log = logging.getLogger("ccrl_wsi")

COLUMNS = {
    "plate": "Metadata_Plate",
    "well": "Metadata_Well",
    "batch": "Metadata_Batch",
    "compound": "Metadata_Compound",
    "concentration": "Metadata_Concentration",
    "mechanism": "Metadata_moa",
}
Embed = Callable[[ByteArray, FloatArray], FloatArray]


def profile_crops(crops: CropSet, embed: Embed, folder: Path, how: Average) -> Profiles:
    """Profiles of the wells that ``crops`` come from: means or medians of their embeddings.

    Parameters
    ----------
    crops
        As :func:`pipelines.field_crops.gather_field_crops` gives them.
    embed
        An encoder.
    folder
        The data set, whose tables say what wells got.
    """
    about = {
        field.key: [getattr(field, name) for name in ABOUT]
        for field in read_fields(folder, read_mechanisms(folder))
    }
    rows = [about[crops.source_names[source]] for source in crops.source]
    vectors = embed(crops.crops, crops.measurements).astype(np.float64)
    names = tuple(f"Embedding_{i:04d}" for i in range(vectors.shape[1]))
    cells = Profiles(vectors, names, pd.DataFrame(rows, columns=list(ABOUT)))
    return to_wells(cells, how)


def write_profiles(path: Path, profiles: Profiles) -> None:
    """Write ``profiles`` as CSV or Parquet, with pycytominer's names.

    Raises
    ------
    ConfigError
        If the suffix is another.
    StoreError
        If the file cannot be written.
    """
    _check_suffix(path)
    about = profiles.about.rename(columns=COLUMNS)
    features = pd.DataFrame(profiles.features, columns=list(profiles.names))
    table = pd.concat([about, features], axis=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith((".csv", ".csv.gz")):
            table.to_csv(path, index=False)
        else:
            table.to_parquet(path, index=False)
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error.strerror or error}.") from error


def _check_suffix(path: Path) -> None:
    if not path.name.endswith((".csv", ".csv.gz", ".parquet")):
        raise ConfigError(f"{path}: profiles are written as .csv, .csv.gz or .parquet.")


def profile(encoder: Path, folder: Path, out: Path, overrides: list[str]) -> Profiles:
    """Crops of the data set ``folder`` cut as ``encoder`` asks, embedded, averaged, written.

    Parameters
    ----------
    overrides
        Settings of the crops, such as ``nucleus_px=14``.
    """
    from ccrl_wsi.data_settings import DataSettings
    from ccrl_wsi.devices import resolve_device
    from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
    from ccrl_wsi.settings_tree import load_tree
    from pipelines.crop_sets import gather_crops

    _check_suffix(out)  # before the work, not after
    ready = CcrlEncoder(encoder, resolve_device("auto"), 1024)
    if ready.header.training.get("data") != "bbbc021":
        raise ConfigError(
            f"{encoder} was trained on {ready.header.training.get('data', 'unknown data')}, not on "
            "fields of cultured cells (data.kind=bbbc021)."
        )
    rule = ready.header.crop
    trained = ready.header.training.get("settings", {}).get("data", {})
    same = {name: trained[name] for name in ("nucleus_px", "illumination") if name in trained}
    settings = load_tree(DataSettings, [], overrides)
    decided = sorted({"kind", "path", "size_px", "mpp"} & settings.model_fields_set)
    if decided:
        raise ConfigError(
            f"{decided[0]} is not a setting of profiles: --data is the folder, and the size of "
            "crops is what the encoder was trained on."
        )
    given = {**same, **{n: getattr(settings, n) for n in settings.model_fields_set}}
    fixed = {"kind": "bbbc021", "path": folder, "size_px": rule.size_px, "mpp": rule.mpp}
    data = DataSettings.model_validate({**given, **fixed})
    crops = gather_crops(data, 0)
    profiles = profile_crops(crops, ready, folder, "mean")
    write_profiles(out, profiles)
    log.info("%d wells, %d cells", len(profiles), len(crops))
    return profiles
