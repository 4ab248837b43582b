"""A cohort as one AnnData, written slide by slide: memory holds some thousand cells."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.arrays import AnyArray
from ccrl_wsi.errors import StoreError
from ccrl_wsi.outputs.same_space import check_same_space
from ccrl_wsi.store import SlideStore, TableFile, create_table, is_table, open_store

_ROWS_AT_ONCE = 16384
_SLIDE_COLUMNS = ("slide_id", "patient", "group", "site", "scanner")
_PIXEL_SIZE = "slide_mpp"


def export_anndata(
    store_paths: Sequence[Path], target: Path, traits: Sequence[Mapping[str, str | None]] = ()
) -> int:
    """Write all slides as one AnnData, ``target`` ending in .h5ad or .zarr; returns n cells.

    ``X`` is the embedding, ``obsm/spatial`` the centroid in level-0 pixels of its slide, whose
    size is ``slide_mpp`` in ``obs``, and ``obsm/spatial_um`` the same in micrometres, in which
    slides of different scanners can be compared. ``obs`` has the columns of the stores and
    slide_id, patient, group, site and scanner; ``uns/ccrl`` names segmenter, encoder and clusters.

    Parameters
    ----------
    traits
        Of each slide, where they are known: site and scanner, which stores do not tell.

    Raises
    ------
    StoreError
        If the slides were embedded by different encoders or clustered with different codebooks,
        or a package is missing; or ``target`` is a folder that is no AnnData.
    """
    if target.suffix not in (".h5ad", ".zarr"):
        raise StoreError(f"{target}: the name must end in .h5ad or .zarr.")
    _refuse_other_folder(target)
    stores = [open_store(path) for path in store_paths]
    said = list(traits) or [{} for _ in stores]
    check_same_space(stores)
    temporary = target.with_name(f".{target.name}.partial{target.suffix}")
    _remove(temporary)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, stores, said)
        _remove(target)
        temporary.rename(target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error.strerror or error}.") from error
    finally:
        _remove(temporary)
    return sum(store.n_cells for store in stores)


def _write(
    target: Path, stores: Sequence[SlideStore], traits: Sequence[Mapping[str, str | None]]
) -> None:
    table = create_table(target)
    try:
        columns = _Columns(stores, traits)
        writers = columns.create(table)
        for number, store in enumerate(stores):
            for start in range(0, store.n_cells, _ROWS_AT_ONCE):
                for path, rows in columns.read(number, start):
                    writers[path].append(rows)
        for writer in writers.values():
            writer.flush()
    finally:
        table.close()


class _Columns:
    """What the file has, and where it comes from."""

    def __init__(
        self, stores: Sequence[SlideStore], traits: Sequence[Mapping[str, str | None]]
    ) -> None:
        self._stores = stores
        self._mpp = [float(store.attrs["slide"]["mpp"]) for store in stores]
        names = dict.fromkeys(name for store in stores for name in store.columns)
        self._plain = [n for n in names if n != "region" and not _is_coded(stores, n)]
        self._coded = {
            name: _all_categories(stores, name)
            for name in names
            if name != "region" and _is_coded(stores, name)
        }
        self._of_slide = {
            name: [_note(store, name, said) for store, said in zip(stores, traits, strict=True)]
            for name in _SLIDE_COLUMNS
        }
        self._order = [name for name in names if name != "region"]

    def create(self, table: TableFile) -> dict[str, Any]:
        """All arrays, empty; those that take rows, by path."""
        n = sum(store.n_cells for store in self._stores)
        d = self._stores[0].n_dimensions
        table.frame("obs", [*self._order, *_SLIDE_COLUMNS, _PIXEL_SIZE])
        table.frame("var", [])
        table.strings("var/_index", [f"e{i:03d}" for i in range(d)])
        legend = self._stores[0].attrs.get("clusters", {}).get("colors", [])
        table.strings("uns/cluster_colors", ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in legend])
        table.mapping("uns/ccrl", _about(self._stores[0]))
        writers: dict[str, Any] = {
            "X": table.rows("X", (n, d), np.float32),
            "obsm/spatial": table.rows("obsm/spatial", (n, 2), np.float64),
            "obsm/spatial_um": table.rows("obsm/spatial_um", (n, 2), np.float64),
            f"obs/{_PIXEL_SIZE}": table.rows(f"obs/{_PIXEL_SIZE}", (n,), np.float64),
            "obs/_index": table.rows("obs/_index", (n,), str),
        }
        for name in self._plain:
            values = self._stores[0].obs(name, 0, 0)
            dtype = str if values.dtype.kind == "O" else values.dtype
            writers[f"obs/{name}"] = table.rows(f"obs/{name}", (n,), dtype)
        named = {name: _different(values) for name, values in self._of_slide.items()}
        for name, categories in {**self._coded, **named}.items():
            writers[f"obs/{name}"] = table.categorical(f"obs/{name}", categories, n)
        return writers

    def read(self, number: int, start: int) -> Iterator[tuple[str, AnyArray | list[str]]]:
        """Some rows of every array of one slide, by path."""
        store = self._stores[number]
        stop = min(start + _ROWS_AT_ONCE, store.n_cells)
        yield "X", store.embedding(start, stop)
        spatial, mpp = store.centroids(start, stop), self._mpp[number]
        yield "obsm/spatial", spatial
        yield "obsm/spatial_um", spatial * mpp
        yield f"obs/{_PIXEL_SIZE}", np.full(stop - start, mpp)
        yield "obs/_index", [f"{store.slide_id}-{i}" for i in range(start, stop)]
        for name in self._plain:
            yield f"obs/{name}", store.obs(name, start, stop)
        for name, categories in self._coded.items():
            yield f"obs/{name}", _codes(store, name, categories, (start, stop))
        for name, values in self._of_slide.items():
            own = values[number]
            code = -1 if own is None else _different(values).index(own)
            yield f"obs/{name}", np.full(stop - start, code, np.int16)


def _is_coded(stores: Sequence[SlideStore], name: str) -> bool:
    return any(name in store.columns and store.is_categorical(name) for store in stores)


def _all_categories(stores: Sequence[SlideStore], name: str) -> list[str]:
    return _different([c for s in stores if name in s.columns for c in s.categories(name)])


def _different(values: Sequence[str | None]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value is not None]


def _note(store: SlideStore, name: str, said: Mapping[str, str | None]) -> str | None:
    known = {**said, **store.attrs["notes"], "slide_id": store.slide_id}
    return str(known[name]) if known.get(name) else None


def _about(store: SlideStore) -> dict[str, Any]:
    """What all slides share: they are checked for it. Names are those of a store's table."""
    attrs = store.attrs
    return {
        "schema_version": attrs["schema_version"],
        "segmenter": attrs["segmenter"],
        "encoder": attrs["encoder"]["name"],
        "encoder_fingerprint": attrs["encoder"]["fingerprint"],
        "codebook": attrs.get("clusters", {}).get("codebook", ""),
    }


def _codes(
    store: SlideStore, name: str, categories: Sequence[str], rows: tuple[int, int]
) -> AnyArray:
    """Codes of the whole file for those of one slide, whose names may be others."""
    if name not in store.columns:
        return np.full(rows[1] - rows[0], -1, np.int16)
    # The last entry is for code -1.
    table = np.array([*(categories.index(c) for c in store.categories(name)), -1], np.int16)
    codes: AnyArray = table[store.obs(name, *rows)]
    return codes


def _refuse_other_folder(target: Path) -> None:
    """Only an AnnData is written over: a folder of that name may be anything."""
    if target.is_dir() and not (target.suffix == ".zarr" and is_table(target)):
        raise StoreError(
            f"{target} is a folder already, and no AnnData: nothing of it was touched. "
            "Give another name with -t."
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
