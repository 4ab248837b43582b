"""The overlay is what QuPath's reading code asks for."""

from __future__ import annotations

import gzip
import json
import math
import re
import uuid

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.config import OverlaySettings
from ccrl_wsi.errors import StoreError
from ccrl_wsi.outputs.byte_rows import decimals, to_lines
from ccrl_wsi.outputs.geojson import OverlayChunk, OverlayClass, OverlayOptions, write_overlay
from ccrl_wsi.outputs.overlay import write_slide_overlay
from ccrl_wsi.parts import write_part
from ccrl_wsi.records import Outlines
from ccrl_wsi.store import assemble_store, cell_uuids, open_store, write_clusters
from tests.drawn_cells import describe_store, draw_cells, draw_outlines

CLASSES = (OverlayClass("C01", (31, 119, 180)), OverlayClass('odd "µ", name', (0, 5, 255)))
OBJECT_TYPES = {"detection", "cell", "annotation", "tile", "tmaCore", "root"}
FEATURE_KEYS = {"type", "id", "geometry", "properties", "nucleusGeometry"}
PROPERTY_KEYS = {
    "objectType",
    "classification",
    "measurements",
    "metadata",
    "name",
    "color",
    "isLocked",
}


def check_as_qupath(document):
    """QuPath's reading rules, strictly: what it would drop, guess or refuse is an error."""
    assert document["type"] == "FeatureCollection"
    seen = set()
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        assert set(feature) <= FEATURE_KEYS
        assert str(uuid.UUID(feature["id"])) == feature["id"]
        assert feature["id"] not in seen
        seen.add(feature["id"])
        check_geometry(feature["geometry"])
        properties = feature["properties"]
        assert set(properties) <= PROPERTY_KEYS
        assert properties["objectType"] in OBJECT_TYPES
        if "classification" in properties:
            check_classification(properties["classification"])
        for name, value in properties.get("measurements", {}).items():
            assert isinstance(name, str)
            assert isinstance(value, int | float)
            assert math.isfinite(value)


def check_geometry(geometry):
    shape = shapely.geometry.shape(geometry)
    # Reading reduces to 0.01 px and fails for the whole file if that gives nothing valid.
    assert shape.is_valid
    assert shapely.set_precision(shape, 0.01).is_valid
    assert not shapely.set_precision(shape, 0.01).is_empty
    if geometry["type"] == "Polygon":
        for ring in geometry["coordinates"]:
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
    np.testing.assert_array_equal(
        shapely.get_coordinates(shape), np.round(shapely.get_coordinates(shape), 2)
    )


def check_classification(classification):
    assert set(classification) == {"name", "color"}
    assert len(classification["color"]) == 3
    assert all(isinstance(v, int) and 0 <= v <= 255 for v in classification["color"])


def draw_chunk(n, seed=0):
    rng = np.random.default_rng(seed)
    centroid = rng.uniform(20, 90000, (n, 2))
    distance = rng.uniform(0, 3, n)
    distance[::3] = [np.nan, np.inf, -np.inf][seed % 3]
    return OverlayChunk(
        cell_uuids(f"s{seed}", centroid, np.ones(n)),
        draw_outlines(centroid, rng),
        centroid,
        np.arange(n) % 3 - 1,
        {"CCRL distance": distance, "Nucleus: Area µm^2": rng.uniform(1, 1e6, n)},
    )


def read(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def write_one(folder, chunks, **options):
    n = sum(len(chunk.uuid) for chunk in chunks)
    return write_overlay(folder, "S01", chunks, OverlayOptions(n, CLASSES, **options))


def features_one_by_one(chunk, classes):
    """The slow twin: what the overlay must hold, cell by cell."""
    for i, name in enumerate(chunk.uuid):
        properties = {"objectType": "detection"}
        if chunk.class_index[i] >= 0:
            chosen = classes[chunk.class_index[i]]
            properties["classification"] = {"name": chosen.name, "color": list(chosen.color)}
        properties["measurements"] = {
            key: round(float(values[i]), 4)
            for key, values in chunk.measurements.items()
            if math.isfinite(values[i])
        }
        ring = np.round(chunk.outlines.ring(i), 2).tolist()
        geometry = {"type": "Polygon", "coordinates": [ring]}
        yield {"type": "Feature", "id": name, "geometry": geometry, "properties": properties}


class TestNumbers:
    @given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.integers(0, 4))
    def test_come_back_rounded_without_exponent_or_minus_zero(self, values, n_decimals):
        lines = to_lines(decimals(np.array(values), n_decimals))
        for value, line in zip(values, lines, strict=True):
            written = line.decode()
            assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", written), written
            assert written != "-0"
            assert abs(json.loads(written) - value) <= 0.5001 * 10**-n_decimals + 1e-6

    @given(st.integers(-(10**8), 10**8))
    def test_of_two_decimals_are_exact(self, hundredths):
        (line,) = to_lines(decimals(np.array([hundredths / 100]), 2))
        assert float(line) == hundredths / 100

    @pytest.mark.parametrize(
        ("value", "written"),
        [(0, "0"), (-0.001, "0"), (1.5, "1.5"), (-12.34, "-12.34"), (100, "100"), (0.05, "0.05")],
    )
    def test_look_as_a_person_would_write_them(self, value, written):
        assert to_lines(decimals(np.array([value]), 2)) == [written.encode()]


class TestOverlay:
    def test_follows_every_reading_rule(self, tmp_path):
        (path,) = write_one(tmp_path, [draw_chunk(40), draw_chunk(17, seed=1)])
        document = read(path)
        assert len(document["features"]) == 57
        check_as_qupath(document)

    def test_says_what_the_cells_are(self, tmp_path):
        chunk = draw_chunk(5)
        (path,) = write_one(tmp_path, [chunk])
        features = read(path)["features"]
        assert [f["id"] for f in features] == chunk.uuid
        for i, feature in enumerate(features):
            ring = feature["geometry"]["coordinates"][0]
            np.testing.assert_array_equal(ring, chunk.outlines.ring(i))
            assert feature["properties"]["objectType"] == "detection"
        assert "classification" not in features[0]["properties"]
        assert features[1]["properties"]["classification"] == {
            "name": "C01",
            "color": [31, 119, 180],
        }
        assert features[2]["properties"]["classification"]["name"] == 'odd "µ", name'

    def test_is_what_its_slow_twin_writes(self, tmp_path):
        chunks = [draw_chunk(40, seed) for seed in range(3)]
        (path,) = write_one(tmp_path, chunks)
        expected = [f for chunk in chunks for f in features_one_by_one(chunk, CLASSES)]
        assert read(path)["features"] == expected

    def test_of_several_blocks_reads_as_one_file(self, tmp_path, monkeypatch):
        chunks = [draw_chunk(30, seed) for seed in range(2)]
        (whole,) = write_one(tmp_path / "whole", chunks)
        monkeypatch.setattr("ccrl_wsi.outputs.geojson._BLOCK", 1000)
        (path,) = write_one(tmp_path / "blocks", chunks)
        assert path.read_bytes().count(b"\x1f\x8b\x08") > 10
        assert gzip.decompress(path.read_bytes()) == gzip.decompress(whole.read_bytes())
        with gzip.open(path, "rt", encoding="utf-8") as file:
            assert len(json.load(file)["features"]) == 60

    def test_leaves_out_measurements_that_are_not_finite(self, tmp_path):
        chunk = draw_chunk(4)
        (path,) = write_one(tmp_path, [chunk])
        found = [f["properties"]["measurements"] for f in read(path)["features"]]
        assert list(found[0]) == ["Nucleus: Area µm^2"]
        assert list(found[1]) == ["CCRL distance", "Nucleus: Area µm^2"]
        assert found[1]["CCRL distance"] == round(chunk.measurements["CCRL distance"][1], 4)

    def test_counts_from_the_scanned_area(self, tmp_path):
        chunk = draw_chunk(3)
        (path,) = write_one(tmp_path, [chunk], origin_px=(7, 11))
        for i, feature in enumerate(read(path)["features"]):
            expected = np.round(chunk.outlines.ring(i) - [7, 11], 2)
            np.testing.assert_array_equal(feature["geometry"]["coordinates"][0], expected)

    def test_gives_points_above_the_limit(self, tmp_path):
        chunk = draw_chunk(5)
        (path,) = write_one(tmp_path, [chunk], points_above=4)
        document = read(path)
        check_as_qupath(document)
        assert {f["geometry"]["type"] for f in document["features"]} == {"Point"}
        xy = [f["geometry"]["coordinates"] for f in document["features"]]
        np.testing.assert_array_equal(xy, np.round(chunk.centroid_px, 2))

    def test_is_split_into_numbered_files_that_hold_each_cell_once(self, tmp_path):
        chunks = [draw_chunk(n, seed=n) for n in (3, 9, 1, 7)]
        paths = write_one(tmp_path, chunks, split_above=6)
        assert [p.name for p in paths] == [f"S01.part-00{i}.geojson.gz" for i in (1, 2, 3, 4)]
        documents = [read(path) for path in paths]
        assert [len(d["features"]) for d in documents] == [6, 6, 6, 2]
        ids = [f["id"] for d in documents for f in d["features"]]
        assert ids == [i for chunk in chunks for i in chunk.uuid]

    def test_of_exactly_one_full_file_is_not_followed_by_an_empty_one(self, tmp_path):
        assert len(write_one(tmp_path, [draw_chunk(12)], split_above=6)) == 2

    def test_replaces_all_files_of_an_earlier_one_and_no_other(self, tmp_path):
        write_one(tmp_path, [draw_chunk(12)], split_above=6)
        write_overlay(tmp_path, "S01.part-x", [draw_chunk(1)], OverlayOptions(1, CLASSES))
        write_overlay(tmp_path, "S012", [draw_chunk(1)], OverlayOptions(1, CLASSES))
        write_one(tmp_path, [draw_chunk(2)])
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "S01.geojson.gz",
            "S01.part-x.geojson.gz",
            "S012.geojson.gz",
        ]

    def test_of_no_cells_is_an_empty_collection(self, tmp_path):
        (path,) = write_one(tmp_path, [])
        assert read(path) == {"type": "FeatureCollection", "features": []}

    def test_is_the_same_bytes_for_the_same_cells_however_they_come(self, tmp_path):
        chunk = draw_chunk(20)
        whole = write_one(tmp_path / "a", [chunk])[0].read_bytes()
        pieces = [chunk.part(0, 1), chunk.part(1, 13), chunk.part(13, 20)]
        cut = write_one(tmp_path / "b", pieces)[0].read_bytes()
        assert whole == cut
        assert write_one(tmp_path / "c", [chunk])[0].read_bytes() == whole

    def test_opens_with_geopandas(self, tmp_path):
        chunk = draw_chunk(6)
        (path,) = write_one(tmp_path, [chunk])
        plain = tmp_path / "plain.geojson"
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        frame = geopandas.read_file(plain)
        assert frame["id"].tolist() == chunk.uuid
        assert frame.geometry.is_valid.all()
        assert set(frame["objectType"]) == {"detection"}

    def test_mends_rings_that_cross_or_vanish(self, tmp_path):
        crossing = np.array([[0, 0], [10, 10], [10, 0], [0, 8], [0, 0]], float)
        flat = np.array([[50, 50], [60, 50], [55, 50], [50, 50]], float)
        tiny = np.array([[5, 5], [5.001, 5], [5.001, 5.001], [5, 5]], float)
        good = np.array([[0, 0], [3, 0], [3, 3], [0, 0]], float)
        rings = [crossing, flat, good, tiny]
        start = np.cumsum([0, *map(len, rings)])
        chunk = OverlayChunk(
            cell_uuids("k", np.arange(8.0).reshape(4, 2), np.ones(4)),
            Outlines(np.concatenate(rings), start),
            np.zeros((4, 2)),
            np.zeros(4, int),
            {},
        )
        (path,) = write_one(tmp_path, [chunk])
        document = read(path)
        check_as_qupath(document)
        assert document["features"][2]["geometry"]["coordinates"][0] == good.tolist()

    def test_that_fails_leaves_nothing_behind(self, tmp_path):
        def chunks():
            yield draw_chunk(3)
            raise StoreError("the store broke")

        with pytest.raises(StoreError, match="broke"):
            write_overlay(tmp_path, "S01", chunks(), OverlayOptions(6, CLASSES))
        assert list(tmp_path.iterdir()) == []


class TestSlideOverlay:
    @pytest.fixture
    def store_path(self, tmp_path):
        part = tmp_path / "p.npz"
        write_part(part, draw_cells(30), {"fingerprint": "f00d"})
        assemble_store(tmp_path / "S01.zarr", [part], describe_store())
        return tmp_path / "S01.zarr"

    def test_carries_cluster_names_colours_and_ids_of_the_store(self, store_path, tmp_path):
        cluster = np.arange(30) % 3 - 1
        colors = [(1, 2, 3), (4, 5, 6)]
        write_clusters(store_path, cluster, np.ones(30), ["C01", "C02"], colors, "cb")
        store = open_store(store_path)
        settings = OverlaySettings(measurements=("area_um2", "eosin_mean"))
        (path,) = write_slide_overlay(store, tmp_path / "overlays", settings)
        features = read(path)["features"]
        check_as_qupath(read(path))
        assert path.name == "S01.geojson.gz"
        assert [f["id"] for f in features] == store.obs("uuid").tolist()
        assert features[2]["properties"]["classification"] == {"name": "C02", "color": [4, 5, 6]}
        assert "classification" not in features[0]["properties"]
        assert "CCRL cluster" not in features[0]["properties"]["measurements"]
        assert features[2]["properties"]["measurements"]["CCRL cluster"] == 2
        assert list(features[1]["properties"]["measurements"]) == [
            "CCRL cluster",
            "CCRL distance",
            "Detection probability",
            "Nucleus: Area µm^2",
        ]

    def test_shows_nucleus_types_before_there_are_clusters(self, store_path, tmp_path):
        store = open_store(store_path)
        (path,) = write_slide_overlay(store, tmp_path, OverlaySettings())
        names = [f["properties"]["classification"]["name"] for f in read(path)["features"]]
        types = store.categories("nucleus_type")
        assert names == [types[code] for code in store.obs("nucleus_type")]


@pytest.mark.data
def test_a_file_that_qupath_wrote_passes_the_same_check_and_has_our_shape(data_dir, tmp_path):
    project = data_dir / "qupath" / "CosciaLab_Qupath_to_LMD" / "demo_Qupath_project"
    theirs = json.loads((project / "Single_cells.geojson").read_text())
    check_as_qupath(theirs)
    (path,) = write_one(tmp_path, [draw_chunk(5)])
    cell = next(f for f in theirs["features"] if f["properties"]["objectType"] == "cell")
    for feature in read(path)["features"]:
        assert set(feature) <= set(cell)
        assert set(feature["properties"]) <= set(cell["properties"])
        assert type(feature["geometry"]["coordinates"][0][0]) is list
