"""Parts in grid order to one slide's store. Memory holds one part and one shard, not the slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.parts import part_manifest, read_part, read_part_fields
from ccrl_wsi.records import Cells
from ccrl_wsi.store import layout
from ccrl_wsi.store.encoding import (
    Node,
    RowWriter,
    consolidate,
    create_categorical,
    create_mappings,
    create_rows,
    dataframe_attributes,
    write_mapping,
    write_strings,
)
from ccrl_wsi.store.ids import cell_keys, cell_uuids, count_repeats
from ccrl_wsi.store.layout import Chunking, StoreDescription
from ccrl_wsi.store.placing import new_store
from ccrl_wsi.store.shapes import OutlineWriter

_FIXED_COLUMNS: dict[str, Any] = {
    "cell_id": np.int64,
    "uuid": str,
    "tile_row": np.int32,
    "tile_column": np.int32,
    "probability": np.float32,
    "type_probability": np.float32,
    "is_clipped": np.bool_,
}


@dataclass(frozen=True, slots=True)
class _Sizes:
    n_cells: int
    n_crops: int
    n_dimensions: int
    crop_side: int


def assemble_store(
    path: Path,
    part_paths: Sequence[Path],
    description: StoreDescription,
    chunking: Chunking | None = None,
) -> int:
    """Write the store ``path`` from parts in grid order and seal it; returns the number of cells.

    The store appears under its name when it is complete, in place of an older one; one with the
    same cells stays, with its clusters. Equal parts and descriptions give equal files, byte for
    byte.

    Raises
    ------
    StoreError
        If there is no part, one is damaged, or one was computed with other settings.
    """
    sizes = _measure(part_paths, description)
    try:
        with new_store(path, description) as folder:
            _write(folder, part_paths, description, sizes, chunking or Chunking())
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror or error}. Check free space and permissions."
        ) from error
    return sizes.n_cells


def _measure(part_paths: Sequence[Path], description: StoreDescription) -> _Sizes:
    if not part_paths:
        raise StoreError(
            f"{description.slide.slide_id}: no parts to assemble. Write one without cells for a "
            "slide without tissue."
        )
    headers = [part_manifest(path) for path in part_paths]
    for part, header in zip(part_paths, headers, strict=True):
        if header["fingerprint"] != description.fingerprint:
            raise StoreError(
                f"{part} was computed with other settings ({header['fingerprint']}, expected "
                f"{description.fingerprint}). Delete it and run again."
            )
    first = read_part(part_paths[0])
    n_cells = sum(header["n_cells"] for header in headers)
    n_crops = sum(header["n_crops"] for header in headers)
    if n_crops not in (0, n_cells):
        raise StoreError(f"{part_paths[0].parent}: {n_crops} crops for {n_cells} cells.")
    if first.measurements.shape[1] != len(description.measurement_names):
        raise StoreError(
            f"{part_paths[0]} has {first.measurements.shape[1]} measurements, "
            f"{len(description.measurement_names)} are named."
        )
    return _Sizes(n_cells, n_crops, first.embedding.shape[1], first.crops.shape[1])


def _write(
    folder: Path,
    part_paths: Sequence[Path],
    description: StoreDescription,
    sizes: _Sizes,
    chunking: Chunking,
) -> None:
    writer = _StoreWriter(folder, description, sizes, chunking)
    repeats = _repeats(part_paths)
    first = 0
    with OutlineWriter(folder / layout.PARQUET, max(1, chunking.shard_rows // 4)) as outlines:
        for part in part_paths:
            cells = read_part(part)
            writer.append(cells, first, repeats[first : first + len(cells)])
            outlines.append(cells.outlines)
            first += len(cells)
    writer.flush()
    consolidate(folder)


def _repeats(part_paths: Sequence[Path]) -> IntArray:
    """How many equal cells come before each cell: needs the whole slide, at 16 bytes a cell.

    Cells of different parts can agree only if two overlap within a hundredth of a pixel at a
    seam, but an id that is not unique would spoil the store.
    """
    keys = []
    for path in part_paths:
        fields = read_part_fields(path, ("centroid_px", "area_um2"))
        keys.append(cell_keys(fields["centroid_px"], fields["area_um2"]))
    return count_repeats(np.concatenate(keys))


class _StoreWriter:
    """The zarr side of a store that is being assembled."""

    def __init__(
        self, folder: Path, description: StoreDescription, sizes: _Sizes, chunking: Chunking
    ) -> None:
        self._description = description
        self._sizes = sizes
        self._chunking = chunking
        self._names = column_names(description.measurement_names)
        root = self._create_groups(folder)
        self._writers = {name: RowWriter(array) for name, array in self._create_arrays(root)}

    def _create_groups(self, folder: Path) -> Node:
        counts = {"cells": self._sizes.n_cells, "crops": self._sizes.n_crops}
        root: Node = zarr.create_group(folder, zarr_format=3)
        root.attrs.update(layout.CONTAINER_ATTRIBUTES)
        root.attrs.update({"ccrl": layout.ccrl_attributes(self._description, counts)})
        root.create_group("tables").create_group("cells", attributes=layout.TABLE_ATTRIBUTES)
        shapes = root.create_group("shapes")
        if self._sizes.n_cells:
            # spatialdata refuses an element without shapes; geopandas reads the file regardless.
            shapes.create_group("nuclei", attributes=layout.SHAPES_ATTRIBUTES)
        return root

    def _create_arrays(self, root: Node) -> list[tuple[str, Node]]:
        n, chunking, table = self._sizes.n_cells, self._chunking, root[layout.TABLE]
        create_mappings(table, ("layers", "obsm", "obsp", "varm", "varp", "uns"))
        obs = table.create_group("obs", attributes=dataframe_attributes(self._names))
        types = self._description.type_names or layout.UNTYPED
        arrays = [
            ("X", create_rows(table, "X", (n, self._sizes.n_dimensions), np.float32, chunking)),
            ("spatial", create_rows(table["obsm"], "spatial", (n, 2), np.float64, chunking)),
            ("_index", create_rows(obs, "_index", (n,), str, chunking)),
            ("region", create_categorical(obs, "region", [layout.REGION], n, chunking)),
            ("nucleus_type", create_categorical(obs, "nucleus_type", types, n, chunking)),
        ]
        for name in self._names:
            if name not in ("region", "nucleus_type"):
                dtype = _FIXED_COLUMNS.get(name, np.float32)
                arrays.append((name, create_rows(obs, name, (n,), dtype, chunking)))
        self._write_small(table)
        if self._sizes.n_crops:
            side = self._sizes.crop_side
            small = Chunking(max(1, chunking.chunk_rows // 16), max(1, chunking.shard_rows // 8))
            shape = (n, side, side, 3)
            arrays.append(("crops", create_rows(root, layout.CROPS, shape, np.uint8, small)))
        return arrays

    def _write_small(self, table: Node) -> None:
        var = table.create_group("var", attributes=dataframe_attributes([]))
        write_strings(var, "_index", [f"e{i:03d}" for i in range(self._sizes.n_dimensions)])
        if self._sizes.n_cells:
            keys = {"region": layout.REGION, "region_key": "region", "instance_key": "cell_id"}
            write_mapping(table["uns"], "spatialdata_attrs", keys)
        made = {
            "schema_version": layout.SCHEMA_VERSION,
            "slide_id": self._description.slide.slide_id,
            "mpp": self._description.mpp,
            "slide_mpp": self._description.slide.mpp,
            "encoder": self._description.encoder,
            "encoder_fingerprint": self._description.encoder_fingerprint,
        }
        write_mapping(table["uns"], "ccrl", made)

    def append(self, cells: Cells, first: int, repeats: IntArray) -> None:
        """Add ``cells``; the first of them gets the id ``first``."""
        ids = np.arange(first, first + len(cells), dtype=np.int64)
        slide = self._description.slide
        rows: dict[str, Any] = {
            "X": cells.embedding,
            "spatial": cells.centroid_px,
            "_index": [f"{slide.slide_id}-{i}" for i in ids.tolist()],
            "region": np.zeros(len(cells), np.int8),
            "nucleus_type": cells.nucleus_type,
            "cell_id": ids,
            "uuid": cell_uuids(slide.content_key, cells.centroid_px, cells.area_um2, repeats),
            "tile_row": cells.tile[:, 0],
            "tile_column": cells.tile[:, 1],
            "area_um2": cells.area_um2,
            "probability": cells.probability,
            "type_probability": cells.type_probability,
            "is_clipped": cells.is_clipped,
            "crops": cells.crops,
        }
        measured = dict(zip(self._description.measurement_names, cells.measurements.T, strict=True))
        for name, writer in self._writers.items():
            writer.append(rows[name] if name in rows else measured[name])

    def flush(self) -> None:
        """Write what still waits for a full shard."""
        for writer in self._writers.values():
            writer.flush()


def column_names(measurement_names: Sequence[str]) -> list[str]:
    """The columns of ``obs`` in order, before clustering.

    Raises
    ------
    StoreError
        If a measurement has the name of another column.
    """
    fixed = [
        "cell_id",
        "region",
        "uuid",
        "tile_row",
        "tile_column",
        "nucleus_type",
        "type_probability",
        "probability",
        "is_clipped",
        "area_um2",
    ]
    measured = [name for name in measurement_names if name != "area_um2"]
    names = [*fixed, *measured]
    twice = sorted({name for name in names if names.count(name) > 1})
    taken = [name for name in measured if name in layout.LATE_COLUMNS]
    if twice or taken:
        raise StoreError(f"Columns named twice: {', '.join([*twice, *taken])}. Rename them.")
    return names
