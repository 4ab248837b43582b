"""A slide's store opens where it should, is exact, and knows when it is broken."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import uuid
import warnings

import geopandas
import numpy as np
import pytest

from ccrl_wsi.errors import StoreError
from ccrl_wsi.parts import write_part
from ccrl_wsi.records import Cells
from ccrl_wsi.store import (
    Chunking,
    add_files,
    assemble_store,
    cell_uuids,
    check_store,
    codebook_of,
    is_sealed,
    open_store,
    seal_store,
    write_clusters,
    write_labels,
)
from tests.drawn_cells import MEASUREMENTS, TYPES, describe_store, draw_cells

TINY = Chunking(chunk_rows=16, shard_rows=32)
NAMES, COLORS = ["C01", "C02", "C03"], [(31, 119, 180), (255, 127, 14), (0, 0, 7)]


def write_parts(folder, pieces):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"p{i:06d}.npz" for i in range(len(pieces))]
    for path, cells in zip(paths, pieces, strict=True):
        write_part(path, cells, {"fingerprint": "f00d"})
    return paths


def make_store(folder, sizes=(40, 0, 33, 20), *, crop_side=0, clusters=True):
    pieces = [draw_cells(n, seed=i, crop_side=crop_side) for i, n in enumerate(sizes)]
    path = folder / "S01.zarr"
    n = assemble_store(path, write_parts(folder / "parts", pieces), describe_store(), TINY)
    if clusters:
        write_clusters(path, np.arange(n) % 3, np.arange(n, dtype=float), NAMES, COLORS, "cb1")
    return path, Cells.concat(pieces)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of 93 cells in several shards, and its cells. Not to be changed."""
    return make_store(tmp_path_factory.mktemp("store"), crop_side=8)


def copied(made, tmp_path):
    path = tmp_path / "S01.zarr"
    shutil.copytree(made[0], path)
    return path


def test_rows_come_back_in_part_order(made):
    path, cells = made
    store = open_store(path)
    assert (store.n_cells, store.n_dimensions, store.slide_id) == (93, 4, "S01")
    np.testing.assert_array_equal(store.embedding(), cells.embedding)
    np.testing.assert_array_equal(store.centroids(), cells.centroid_px)
    np.testing.assert_array_equal(store.obs("area_um2"), cells.area_um2)
    np.testing.assert_array_equal(store.obs("nucleus_type"), cells.nucleus_type)
    np.testing.assert_array_equal(store.obs("tile_column"), cells.tile[:, 1])
    np.testing.assert_array_equal(store.obs("solidity"), cells.measurements[:, 1])
    np.testing.assert_array_equal(store.crops(), cells.crops)
    assert store.categories("nucleus_type") == list(TYPES)


def test_slices_and_chosen_rows_are_the_same_rows(made):
    path, cells = made
    store = open_store(path)
    rows = np.array([0, 15, 16, 17, 31, 32, 92])
    np.testing.assert_array_equal(store.embedding_rows(rows), cells.embedding[rows])
    assert store.embedding_rows(rows[:0]).shape == (0, 4)
    np.testing.assert_array_equal(store.embedding(30, 35), cells.embedding[30:35])


@pytest.mark.parametrize("n_rows", [7, 93, 500])
def test_batches_together_are_all_cells(made, n_rows):
    path, cells = made
    batches = list(open_store(path).iter_cells(n_rows, ("cluster", "area_um2")))
    assert all(len(batch) <= n_rows for batch in batches)
    xy = np.concatenate([batch.outlines.xy for batch in batches])
    np.testing.assert_array_equal(xy, cells.outlines.xy)
    area = np.concatenate([batch.columns["area_um2"] for batch in batches])
    np.testing.assert_array_equal(area, cells.area_um2)
    cluster = np.concatenate([batch.columns["cluster"] for batch in batches])
    np.testing.assert_array_equal(cluster, np.arange(93) % 3)
    assert [batch.first for batch in batches] == list(range(0, 93, n_rows))


def test_a_column_that_is_not_there_is_named_with_those_that_are(made):
    with pytest.raises(StoreError, match="no column 'colour'; it has: cell_id"):
        open_store(made[0]).obs("colour")


def test_equal_parts_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_store(tmp_path / name, crop_side=8)
    a, b = ((tmp_path / name / "S01.zarr") for name in ("a", "b"))
    files = {p.relative_to(a).as_posix() for p in a.rglob("*") if p.is_file()}
    assert files == {p.relative_to(b).as_posix() for p in b.rglob("*") if p.is_file()}
    assert [f for f in files if (a / f).read_bytes() != (b / f).read_bytes()] == []


def test_the_store_does_not_depend_on_how_cells_are_cut_into_parts(tmp_path):
    whole = draw_cells(70)
    cut = [
        whole.where(np.arange(0, 1)),
        whole.where(np.arange(1, 50)),
        whole.where(np.arange(50, 70)),
    ]
    for name, pieces in (("a", [whole]), ("b", cut)):
        parts = write_parts(tmp_path / name, pieces)
        assemble_store(tmp_path / f"{name}.zarr", parts, describe_store(), TINY)
    seals = [json.loads((tmp_path / f"{n}.zarr" / "ccrl-seal.json").read_text()) for n in "ab"]
    assert seals[0] == seals[1]


def test_root_attributes_tell_how_it_was_made_but_not_on_which_disk(made):
    attrs = open_store(made[0]).attrs
    assert attrs["slide"]["path"] == "S01.svs"
    assert attrs["slide"]["content_key"] == "abc123"
    assert attrs["counts"] == {"cells": 93, "crops": 93}
    assert attrs["encoder"] == {"name": "morphology", "fingerprint": "beef"}
    assert attrs["measurement_names"] == list(MEASUREMENTS)
    assert attrs["settings"] == {"tiles": {"mpp": 0.25}}


def test_assembly_leaves_nothing_beside_the_store_and_replaces_an_older_one(tmp_path):
    make_store(tmp_path)
    path, _ = make_store(tmp_path, sizes=(5,))
    assert open_store(path).n_cells == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["S01.zarr", "parts"]


def test_a_killed_assembly_leaves_no_store_and_the_next_one_is_whole(tmp_path, monkeypatch):
    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ccrl_wsi.store.assemble.consolidate", die)
    with pytest.raises(KeyboardInterrupt):
        make_store(tmp_path)
    assert not (tmp_path / "S01.zarr").exists()
    monkeypatch.undo()
    path, _ = make_store(tmp_path)
    assert check_store(path) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["S01.zarr", "parts"]


def test_memory_does_not_grow_with_the_slide(tmp_path):
    piece = draw_cells(300, n_dimensions=256)
    peaks = []
    for n_parts in (3, 9):
        parts = write_parts(tmp_path / f"parts{n_parts}", [piece] * n_parts)
        tracemalloc.start()
        assemble_store(tmp_path / "S.zarr", parts, describe_store(), Chunking(300, 900))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Six parts more cost less than the vectors of two.
    assert peaks[1] - peaks[0] < 2 * piece.embedding.nbytes


def test_a_part_made_with_other_settings_is_refused(tmp_path):
    parts = write_parts(tmp_path / "parts", [draw_cells(3)])
    with pytest.raises(StoreError, match="other settings"):
        assemble_store(tmp_path / "S.zarr", parts, describe_store(fingerprint="x"), TINY)
    assert not (tmp_path / "S.zarr").exists()


def test_a_measurement_named_like_a_column_is_refused(tmp_path):
    parts = write_parts(tmp_path / "parts", [draw_cells(3)])
    names = ("solidity", "cluster")
    with pytest.raises(StoreError, match="twice: cluster"):
        assemble_store(tmp_path / "S.zarr", parts, describe_store(measurement_names=names), TINY)


class TestIds:
    def test_are_what_the_standard_library_calls_uuid5(self):
        from ccrl_wsi.store.ids import NAMESPACE

        found = cell_uuids("key", np.array([[1.5, 2.25]]), np.array([7.125]))
        assert found == [str(uuid.uuid5(NAMESPACE, "key|150|225|712|0"))]

    def test_differ_by_slide_place_and_area(self):
        xy, area = np.array([[1.0, 2.0], [1.0, 2.01], [1.0, 2.0]]), np.array([5.0, 5.0, 6.0])
        assert len({*cell_uuids("a", xy, area), *cell_uuids("b", xy, area)}) == 6

    def test_are_unique_where_cells_coincide_even_in_different_parts(self, tmp_path):
        cells = draw_cells(3)
        parts = write_parts(tmp_path / "parts", [cells, cells])
        assemble_store(tmp_path / "S.zarr", parts, describe_store(), TINY)
        uuids = open_store(tmp_path / "S.zarr").obs("uuid")
        assert len(set(uuids)) == 6
        assert uuids[:3].tolist() == cell_uuids("abc123", cells.centroid_px, cells.area_um2)

    def test_do_not_depend_on_a_negative_zero(self):
        a, b = (cell_uuids("k", np.array([[z, 1.0]]), np.ones(1)) for z in (0.0, -0.0))
        assert a == b


class TestClusters:
    def test_can_be_replaced_by_another_number_of_clusters(self, made, tmp_path):
        path = copied(made, tmp_path)
        write_clusters(path, np.zeros(93, int), np.ones(93), ["A", "B"], COLORS[:2], "cb2")
        store = open_store(path)
        assert store.categories("cluster") == ["A", "B"]
        assert store.columns[-2:] == ["cluster", "cluster_distance"]
        assert store.columns.count("cluster") == 1
        assert codebook_of(path) == "cb2"
        assert check_store(path) == []

    def test_of_another_number_of_cells_are_refused(self, made, tmp_path):
        path = copied(made, tmp_path)
        with pytest.raises(StoreError, match="93 cells; 2 clusters"):
            write_clusters(path, np.zeros(2, int), np.ones(2), NAMES, COLORS, "cb")
        with pytest.raises(StoreError, match="do not fit 3 names"):
            write_clusters(path, np.full(93, 3), np.ones(93), NAMES, COLORS, "cb")
        assert check_store(path) == []

    def test_killed_in_the_middle_leave_an_unfinished_store_that_can_be_finished(
        self, made, tmp_path, monkeypatch
    ):
        path = copied(made, tmp_path)
        before = (path / "ccrl-seal.json").read_bytes()

        def die(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("ccrl_wsi.store.clusters._write_columns", die)
        with pytest.raises(KeyboardInterrupt):
            write_clusters(path, np.arange(93) % 3, np.ones(93), NAMES, COLORS, "cb1")
        assert not is_sealed(path)
        assert codebook_of(path) is None
        with pytest.raises(StoreError, match="not finished"):
            open_store(path)
        assert "not finished" in check_store(path)[0]

        monkeypatch.undo()
        write_clusters(path, np.arange(93) % 3, np.arange(93.0), NAMES, COLORS, "cb1")
        assert (path / "ccrl-seal.json").read_bytes() == before

    def test_may_be_none_at_all(self, made, tmp_path):
        path = copied(made, tmp_path)
        write_clusters(path, np.full(93, -1), np.full(93, np.nan), [], [], "")
        assert open_store(path).categories("cluster") == []
        assert check_store(path) == []

    def test_a_store_without_them_says_so(self, tmp_path):
        path, _ = make_store(tmp_path, clusters=False)
        assert not open_store(path).has_clusters
        assert codebook_of(path) is None
        assert check_store(path) == []


class TestCheck:
    def test_a_whole_store_has_no_problems(self, made):
        assert check_store(made[0]) == []

    def test_every_file_is_watched(self, made, tmp_path):
        path = copied(made, tmp_path)
        shard = path / "tables/cells/X/c/0/0"
        shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
        (path / "tables/cells/obs/area_um2/c/0").unlink()
        (path / "stray.txt").write_text("?")
        problems = check_store(path)
        assert "tables/cells/X/c/0/0: changed since it was written" in problems
        assert "tables/cells/obs/area_um2/c/0: missing" in problems
        assert "stray.txt: not part of the store" in problems

    def test_an_absent_or_foreign_folder_is_one_sentence(self, tmp_path):
        assert "There is no store" in check_store(tmp_path / "x.zarr")[0]
        (tmp_path / "y.zarr").mkdir()
        assert "not a store of this package" in check_store(tmp_path / "y.zarr")[0]

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            ("obs/cluster/codes", 7, "in no cluster"),
            ("obsm/spatial", np.nan, "centroids are not finite"),
            ("X", np.inf, "embeddings are not finite"),
            ("obs/cell_id", 50, "do not count from 0"),
            ("obs/uuid", "x", "not UUIDs"),
            ("obs/cluster_distance", np.nan, "distances are not finite"),
        ],
    )
    def test_wrong_values_are_found_though_the_checksums_agree(
        self, made, tmp_path, name, value, complaint
    ):
        zarr = pytest.importorskip("zarr")
        path = copied(made, tmp_path)
        zarr.open_group(path, mode="r+")[f"tables/cells/{name}"][5] = value
        seal_store(path)
        assert any(complaint in problem for problem in check_store(path))

    def test_a_crossing_outline_is_found(self, tmp_path):
        cells = draw_cells(3)
        cells.outlines.xy[1:3] = cells.outlines.xy[[5, 1]]
        parts = write_parts(tmp_path / "parts", [cells])
        assemble_store(tmp_path / "S.zarr", parts, describe_store(), TINY)
        assert any("1 outlines cross" in problem for problem in check_store(tmp_path / "S.zarr"))


@pytest.mark.parametrize("sizes", [(0,), (1,), (40, 0, 33, 20)])
class TestReaders:
    @pytest.fixture
    def path(self, sizes, tmp_path):
        path, _ = make_store(tmp_path, sizes, crop_side=8)
        (tmp_path / "S01.geojson.gz").write_bytes(b"any")
        add_files(path, "overlays", [tmp_path / "S01.geojson.gz"])
        with warnings.catch_warnings():
            # Their own imports warn; reading our store must not.
            warnings.simplefilter("ignore")
            pytest.importorskip("anndata", reason="needs the extra 'spatial'")
            pytest.importorskip("spatialdata", reason="needs the extra 'spatial'")
        return path

    @pytest.mark.filterwarnings("error")
    def test_geopandas_opens_the_outlines(self, path, sizes):
        frame = geopandas.read_parquet(path / "shapes/nuclei/shapes.parquet")
        assert frame.index.name == "cell_id"
        assert frame.index.tolist() == list(range(sum(sizes)))
        assert frame.crs is None
        assert frame.geometry.is_valid.all()

    @pytest.mark.filterwarnings("error")
    def test_anndata_opens_the_table(self, path, sizes):
        import anndata

        table = anndata.read_zarr(path / "tables" / "cells")
        assert table.shape == (sum(sizes), 4)
        assert table.obs_names.tolist() == [f"S01-{i}" for i in range(sum(sizes))]
        assert table.obs["cluster"].cat.categories.tolist() == NAMES
        assert table.obs["nucleus_type"].cat.categories.tolist() == list(TYPES)
        assert table.obs["is_clipped"].dtype == bool
        assert table.obs["cell_id"].dtype == np.int64
        assert table.obsm["spatial"].shape == (sum(sizes), 2)
        assert list(table.uns["cluster_colors"]) == ["#1f77b4", "#ff7f0e", "#000007"]
        assert table.var_names.tolist() == ["e000", "e001", "e002", "e003"]

    @pytest.mark.filterwarnings("error")
    def test_spatialdata_opens_all_and_joins_outlines_to_rows(self, path, sizes):
        import spatialdata

        data = spatialdata.read_zarr(path)
        assert data["cells"].n_obs == sum(sizes)
        if not sum(sizes):
            return
        shapes, table = spatialdata.match_element_to_table(data, "nuclei", "cells")
        assert shapes["nuclei"].index.tolist() == table.obs["cell_id"].tolist()
        x, y = table.obsm["spatial"][0]
        around = data.query.bounding_box(
            axes=("x", "y"),
            min_coordinate=[x - 30, y - 30],
            max_coordinate=[x + 30, y + 30],
            target_coordinate_system="global",
        )
        assert 0 in around["nuclei"].index
        assert around["cells"].n_obs == len(around["nuclei"]) <= 3


def test_more_cells_than_a_shard_holds_come_back_whole(tmp_path):
    piece = draw_cells(7000, n_dimensions=2)
    parts = write_parts(tmp_path / "parts", [piece] * 10)
    n = assemble_store(tmp_path / "S.zarr", parts, describe_store())
    store = open_store(tmp_path / "S.zarr")
    assert n == store.n_cells == 70000
    np.testing.assert_array_equal(store.embedding(), np.tile(piece.embedding, (10, 1)))
    assert len(list((tmp_path / "S.zarr/tables/cells/X/c").iterdir())) == 2
    assert check_store(tmp_path / "S.zarr") == []


def test_labels_are_a_column_that_outlives_clusters(made, tmp_path):
    path = copied(made, tmp_path)
    code = np.arange(93) % 3 - 1
    write_labels(path, code, ["Stroma", "Tumor"], ["S01.geojson"])
    write_labels(path, code[::-1], ["Stroma", "Tumor"], ["S01.geojson"])
    write_clusters(path, np.zeros(93, int), np.ones(93), NAMES[:1], COLORS[:1], "cb2")
    store = open_store(path)
    assert store.columns[-3:] == ["label", "cluster", "cluster_distance"]
    np.testing.assert_array_equal(store.obs("label"), code[::-1])
    assert store.categories("label") == ["Stroma", "Tumor"]
    assert store.attrs["labels"] == {
        "names": ["Stroma", "Tumor"], "files": ["S01.geojson"], "cells": 62
    }  # fmt: skip
    assert check_store(path) == []


def test_labels_for_other_cells_or_an_unfinished_store_are_refused(made, tmp_path):
    path = copied(made, tmp_path)
    with pytest.raises(StoreError, match="has 93 cells; 3 labels were given"):
        write_labels(path, np.zeros(3, int), ["A"], [])
    assert check_store(path) == []
    (path / "ccrl-seal.json").unlink()
    with pytest.raises(StoreError, match="not finished"):
        write_labels(path, np.zeros(93, int), ["A"], [])


def test_a_label_without_a_name_is_found(made, tmp_path):
    path = copied(made, tmp_path)
    write_labels(path, np.full(93, 5), ["A"], [])
    assert check_store(path) == ["obs/label: 93 cells have a label without a name"]
