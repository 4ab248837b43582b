"""Finished slides open in the programs they are exported for."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import replace

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from ccrl_wsi.errors import StoreError
from ccrl_wsi.outputs.anndata_file import export_anndata
from ccrl_wsi.outputs.geoparquet_file import export_cohort_geoparquet, export_geoparquet
from ccrl_wsi.outputs.tiaviz import export_tiaviz
from ccrl_wsi.parts import write_part
from ccrl_wsi.store import assemble_store, open_store, update_description, write_clusters
from tests.drawn_cells import describe_store, draw_cells


def make_store(folder, slide_id, n, **changes):
    part = folder / f"{slide_id}.npz"
    write_part(part, draw_cells(n, seed=n), {"fingerprint": "f00d"})
    notes = {"patient": f"P-{slide_id}", "group": None}
    path = folder / f"{slide_id}.zarr"
    assemble_store(path, [part], describe_store(slide_id, notes=notes, **changes))
    colors = [(1, 2, 3), (4, 5, 6)]
    write_clusters(path, np.arange(n) % 3 - 1, np.ones(n), ["C01", "C02"], colors, "cb")
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [make_store(folder, name, n) for name, n in (("A", 12), ("B", 0), ("C", 7))]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_cohort_becomes_one_anndata_with_slide_patient_and_group(stores, tmp_path, suffix):
    anndata = pytest.importorskip("anndata", reason="needs the extra 'spatial'")
    target = tmp_path / f"cohort{suffix}"
    for _ in range(2):
        assert export_anndata(stores, target) == 19
    read = anndata.read_h5ad if suffix == ".h5ad" else anndata.read_zarr
    cohort = read(target)
    assert cohort.obs["slide_id"].tolist() == ["A"] * 12 + ["C"] * 7
    assert cohort.obs["patient"].tolist() == ["P-A"] * 12 + ["P-C"] * 7
    assert cohort.obs["group"].isna().all()
    np.testing.assert_array_equal(cohort.X[12:], open_store(stores[2]).embedding())
    assert cohort.obs["cluster"].cat.categories.tolist() == ["C01", "C02"]
    assert list(cohort.uns["cluster_colors"]) == ["#010203", "#040506"]
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_an_anndata_tells_micrometres_site_and_scanner(stores, tmp_path, suffix):
    anndata = pytest.importorskip("anndata", reason="needs the extra 'spatial'")
    slide = replace(describe_store("E").slide, mpp=0.5)
    coarse = make_store(tmp_path, "E", 3, slide=slide)
    traits = [{"site": "Basel", "scanner": None}, {"site": None, "scanner": "GT450"}]
    export_anndata([stores[0], coarse], tmp_path / f"x{suffix}", traits)
    read = anndata.read_h5ad if suffix == ".h5ad" else anndata.read_zarr
    cohort = read(tmp_path / f"x{suffix}")
    assert cohort.obs["slide_mpp"].tolist() == [0.25] * 12 + [0.5] * 3
    um = cohort.obsm["spatial"] * cohort.obs["slide_mpp"].to_numpy()[:, None]
    np.testing.assert_array_equal(cohort.obsm["spatial_um"], um)
    assert cohort.obs["site"].tolist()[:12] == ["Basel"] * 12
    assert cohort.obs["site"].isna().sum() == 3
    assert cohort.obs["scanner"].tolist()[12:] == ["GT450"] * 3
    assert dict(cohort.uns["ccrl"]) == {
        "schema_version": open_store(coarse).attrs["schema_version"],
        "segmenter": "watershed",
        "encoder": "morphology",
        "encoder_fingerprint": "beef",
        "codebook": "cb",
    }


def test_slides_of_different_encoders_are_not_mixed(stores, tmp_path):
    pytest.importorskip("anndata", reason="needs the extra 'spatial'")
    other = make_store(tmp_path, "D", 3, encoder_fingerprint="other")
    with pytest.raises(StoreError, match="A and D differ"):
        export_anndata([stores[0], other], tmp_path / "x.h5ad")


def test_h5py_is_asked_for_by_name_where_it_is_missing(stores, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(StoreError, match="ccrl-wsi\\[spatial\\]"):
        export_anndata(stores, tmp_path / "x.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_an_anndata_can_be_looked_at_without_reading_it(stores, tmp_path):
    anndata = pytest.importorskip("anndata", reason="needs the extra 'spatial'")
    export_anndata(stores, tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    assert backed.isbacked
    np.testing.assert_array_equal(backed.X[12:15], open_store(stores[2]).embedding(0, 3))
    chosen = backed[backed.obs["slide_id"] == "C"].to_memory()
    assert chosen.n_obs == 7
    backed.file.close()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_an_anndata_is_what_the_stores_hold(stores, tmp_path, suffix):
    anndata = pytest.importorskip("anndata", reason="needs the extra 'spatial'")
    export_anndata(stores[:1], tmp_path / f"x{suffix}")
    read = anndata.read_h5ad if suffix == ".h5ad" else anndata.read_zarr
    cohort, own = read(tmp_path / f"x{suffix}"), anndata.read_zarr(stores[0] / "tables/cells")
    names = [name for name in own.obs if name != "region"]
    pd.testing.assert_frame_equal(cohort.obs[names], own.obs[names], check_index_type=False)
    np.testing.assert_array_equal(cohort.obsm["spatial"], own.obsm["spatial"])
    assert cohort.var_names.tolist() == own.var_names.tolist()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_an_anndata_of_no_cells_opens(stores, tmp_path, suffix):
    anndata = pytest.importorskip("anndata", reason="needs the extra 'spatial'")
    assert export_anndata([stores[1]], tmp_path / f"x{suffix}") == 0
    read = anndata.read_h5ad if suffix == ".h5ad" else anndata.read_zarr
    assert read(tmp_path / f"x{suffix}").shape == (0, 4)


def test_geoparquet_carries_outlines_and_every_column(stores, tmp_path):
    assert export_geoparquet(stores[0], tmp_path / "a.parquet") == 12
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    store = open_store(stores[0])
    assert frame["uuid"].tolist() == store.obs("uuid").tolist()
    assert frame["cluster"].isna().sum() == 4
    assert frame.index.tolist() == list(range(12))
    np.testing.assert_array_equal(frame["solidity"], store.obs("solidity"))
    assert frame.geometry.is_valid.all()


def test_geoparquet_of_no_cells_is_an_empty_file(stores, tmp_path):
    assert export_geoparquet(stores[1], tmp_path / "b.parquet") == 0
    assert len(geopandas.read_parquet(tmp_path / "b.parquet")) == 0


def test_a_cohort_becomes_one_geoparquet(stores, tmp_path):
    assert export_cohort_geoparquet(stores, tmp_path / "cohort.parquet") == 19
    cohort = geopandas.read_parquet(tmp_path / "cohort.parquet")
    assert cohort["slide_id"].tolist() == ["A"] * 12 + ["C"] * 7
    assert cohort["patient"].tolist() == ["P-A"] * 12 + ["P-C"] * 7
    assert cohort["group"].isna().all()
    assert cohort["cell_id"].tolist() == [*range(12), *range(7)]
    own = export_geoparquet(stores[2], tmp_path / "c.parquet")
    alone = geopandas.read_parquet(tmp_path / "c.parquet")
    rest = cohort.iloc[12:]
    assert own == len(rest)
    assert rest.geometry.geom_equals_exact(alone.geometry, 0, align=False).all()
    assert rest["cluster"].tolist()[1:3] == alone["cluster"].tolist()[1:3] == ["C01", "C02"]
    np.testing.assert_array_equal(rest["area_um2"], alone["area_um2"])
    assert cohort.crs is None
    np.testing.assert_allclose(
        geopandas.read_parquet(tmp_path / "cohort.parquet", bbox=None).total_bounds,
        cohort.total_bounds,
    )


def test_what_geoparquet_says_of_itself_is_valid(stores, tmp_path):
    export_cohort_geoparquet(stores, tmp_path / "x.parquet")
    geo = json.loads(pq.read_metadata(tmp_path / "x.parquet").metadata[b"geo"])
    [column] = geo["columns"].values()
    assert geo["primary_column"] == "geometry"
    bounds = geopandas.read_parquet(tmp_path / "x.parquet").total_bounds
    np.testing.assert_allclose(column["bbox"], bounds)
    assert column["geometry_types"] == ["Polygon"]


def test_a_cohort_whose_first_slide_lacks_what_others_have_is_one_table(tmp_path):
    plain, noted = make_store(tmp_path, "A", 3), make_store(tmp_path, "B", 4)
    update_description(plain, {"notes": {"patient": None, "group": None}})
    update_description(noted, {"notes": {"patient": "P", "group": "g"}})
    export_cohort_geoparquet([plain, noted], tmp_path / "x.parquet")
    cohort = geopandas.read_parquet(tmp_path / "x.parquet")
    assert cohort["group"].isna().tolist() == [True] * 3 + [False] * 4
    assert cohort["patient"].tolist()[3:] == ["P"] * 4


def check_tiaviz_properties(store_path, properties):
    assert [p["type"] for p in properties[:3]] == ["none", "C01", "C02"]
    assert "type_probability" not in properties[0]
    assert properties[0]["nucleus_type"] in ("background", "neoplastic", "inflammatory")
    area = open_store(store_path).obs("area_um2")
    np.testing.assert_allclose([p["area_um2"] for p in properties], area, atol=1e-4)


def test_tiaviz_gets_flat_geojson(stores, tmp_path):
    assert export_tiaviz(stores[0], tmp_path / "a.geojson") == 12
    document = json.loads((tmp_path / "a.geojson").read_text())
    assert [f["id"] for f in document["features"]] == open_store(stores[0]).obs("uuid").tolist()
    check_tiaviz_properties(stores[0], [f["properties"] for f in document["features"]])
    rings = [f["geometry"]["coordinates"][0] for f in document["features"]]
    batch = next(open_store(stores[0]).iter_cells(100))
    np.testing.assert_array_equal(np.concatenate(rings), batch.outlines.xy)
    from tiatoolbox.annotation.storage import DictionaryStore

    check_annotations(DictionaryStore.from_geojson(tmp_path / "a.geojson"), stores[0])


def check_annotations(opened, store_path):
    """As TIAToolbox reads it: the cells around the first one, with their properties."""
    batch = next(open_store(store_path).iter_cells(100))
    assert len(opened) == 12
    x, y = batch.centroid_px[0]
    found = opened.query(shapely.box(x - 5, y - 5, x + 5, y + 5))
    ring = shapely.Polygon(batch.outlines.ring(0))
    assert any(shapely.equals(annotation.geometry, ring) for annotation in found.values())
    assert {annotation.properties["type"] for annotation in opened.values()} == {
        "none", "C01", "C02"
    }  # fmt: skip


def test_tiaviz_gets_an_annotation_store(stores, tmp_path):
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        with pytest.raises(StoreError, match=r"export to \.geojson"):
            export_tiaviz(stores[0], tmp_path / "a.db")
        assert list(tmp_path.iterdir()) == []
        return
    assert export_tiaviz(stores[0], tmp_path / "a.db") == 12
    with sqlite3.connect(tmp_path / "a.db") as database:
        rows = database.execute("SELECT key, properties FROM annotations ORDER BY id").fetchall()
    assert [key for key, _ in rows] == open_store(stores[0]).obs("uuid").tolist()
    check_tiaviz_properties(stores[0], [json.loads(text) for _, text in rows])
    from tiatoolbox.annotation.storage import SQLiteStore

    opened = SQLiteStore(tmp_path / "a.db")
    check_annotations(opened, stores[0])
    opened.close()


def test_a_file_name_that_says_no_format_is_refused(stores, tmp_path):
    with pytest.raises(StoreError, match=r"\.db or \.geojson"):
        export_tiaviz(stores[0], tmp_path / "a.txt")
    with pytest.raises(StoreError, match=r"\.h5ad or \.zarr"):
        export_anndata(stores, tmp_path / "a.txt")


def test_scanpy_finds_neighbours_and_draws_a_map(tmp_path):
    scanpy = pytest.importorskip("scanpy", reason="needs the extra 'scanpy'")
    stores = [make_store(tmp_path, name, n) for name, n in (("A", 150), ("B", 90))]
    export_anndata(stores, tmp_path / "cohort.h5ad")
    cohort = scanpy.read_h5ad(tmp_path / "cohort.h5ad")
    scanpy.pp.neighbors(cohort, n_neighbors=10, use_rep="X")
    scanpy.tl.umap(cohort, maxiter=20)
    assert cohort.obsm["X_umap"].shape == (240, 2)
    assert np.isfinite(cohort.obsm["X_umap"]).all()
    assert cohort.obsp["connectivities"].shape == (240, 240)
    scanpy.get.obs_df(cohort, ["cluster", "slide_id", "area_um2"])
    # Its plots take a category's colours from here.
    assert list(cohort.uns["cluster_colors"]) == ["#010203", "#040506"]
