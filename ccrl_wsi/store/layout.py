"""Where things lie in a slide's store, and what is said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ccrl_wsi.records import SlideInfo

SCHEMA_VERSION = 1

TABLE = "tables/cells"
OBS = f"{TABLE}/obs"
SHAPES = "shapes/nuclei"
PARQUET = f"{SHAPES}/shapes.parquet"
CROPS = "crops"
METADATA = "zarr.json"
SEAL = "ccrl-seal.json"
BROKEN = f"{SEAL}.broken"
"""The checksums before a change that is not finished."""

REGION = "nuclei"
CLUSTER = "cluster"
CLUSTER_DISTANCE = "cluster_distance"
LABEL = "label"
LATE_COLUMNS = (CLUSTER, CLUSTER_DISTANCE, LABEL)
"""Of ``obs``, what comes after the cells."""
UNTYPED = ("nucleus",)

# Written by hand instead of through spatialdata, which is an optional package.
CONTAINER_ATTRIBUTES = {"spatialdata_attrs": {"version": "0.2"}}
TABLE_ATTRIBUTES = {
    "encoding-type": "anndata",
    "encoding-version": "0.1.0",
    "spatialdata-encoding-type": "ngff:regions_table",
    "region": REGION,
    "region_key": "region",
    "instance_key": "cell_id",
    "version": "0.2",
}
_AXES = [{"name": name, "type": "space", "unit": "unit"} for name in ("x", "y")]
SHAPES_ATTRIBUTES = {
    "encoding-type": "ngff:shapes",
    "axes": ["x", "y"],
    "coordinateTransformations": [
        {
            "type": "identity",
            "input": {"name": "xy", "axes": _AXES},
            "output": {"name": "global", "axes": _AXES},
        }
    ],
    "spatialdata_attrs": {"version": "0.3"},
}


@dataclass(frozen=True, slots=True)
class Chunking:
    """Rows in a chunk (what is read at once) and in a file (what is written at once)."""

    chunk_rows: int = 8192
    shard_rows: int = 65536

    def fitted(self, n_rows: int) -> Chunking:
        """The same, cut down for an array of only ``n_rows``, in whole chunks."""
        chunk = max(1, min(self.chunk_rows, n_rows))
        n_chunks = max(1, -(-min(self.shard_rows, n_rows) // chunk))
        return Chunking(chunk, chunk * n_chunks)


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """What a store says about the cells in it.

    Parameters
    ----------
    slide
        The slide; its ``content_key`` is the name space of the cells' ids.
    fingerprint
        What every part must have been computed with.
    measurement_names
        Names of the columns of ``Cells.measurements``.
    type_names
        Names of the nucleus types, by index; empty where the segmenter has none.
    segmenter, encoder, encoder_fingerprint
        Who found and who embedded the cells.
    mpp
        Micrometres per pixel the cells were computed at.
    settings, versions
        The resolved settings and the software.
    notes
        Anything else worth keeping (JSON values), such as the patient or the tissue area.
    """

    slide: SlideInfo
    fingerprint: str
    measurement_names: tuple[str, ...]
    type_names: tuple[str, ...]
    segmenter: str
    encoder: str
    encoder_fingerprint: str
    mpp: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def ccrl_attributes(description: StoreDescription, counts: Mapping[str, int]) -> dict[str, Any]:
    """The root attribute ``ccrl``: plain JSON."""
    slide = asdict(description.slide)
    # The folder is the machine's business; the name is the user's.
    slide["path"] = description.slide.path.name
    slide["level_downsamples"] = list(description.slide.level_downsamples)
    slide["level_tiles_px"] = [tile and list(tile) for tile in description.slide.level_tiles_px]
    return {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": description.fingerprint,
        "slide": slide,
        "mpp": description.mpp,
        "segmenter": description.segmenter,
        "type_names": list(description.type_names),
        "measurement_names": list(description.measurement_names),
        "encoder": {"name": description.encoder, "fingerprint": description.encoder_fingerprint},
        "counts": dict(counts),
        "settings": dict(description.settings),
        "versions": dict(description.versions),
        "notes": dict(description.notes),
    }
