"""Classes from QuPath: read as it writes them, joined to the right cells."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import shapely

from ccrl_wsi.errors import LabelError
from ccrl_wsi.outputs.qupath_labels import join_labels, read_labelled_objects

UUIDS = [f"00000000-0000-5000-8000-{i:012d}" for i in range(6)]
CENTROIDS = np.array([[10.0, 10], [20, 10], [30, 10], [40, 10], [50, 10], [60, 10]])


def box(left, right, top=0, bottom=20):
    return shapely.geometry.mapping(shapely.box(left, top, right, bottom))


def feature(label, *, uuid=None, geometry=None, **more):
    said = {"type": "Feature", "geometry": geometry, "properties": {"classification": label}}
    return said | ({"id": uuid} if uuid else {}) | more


def read(tmp_path, tree, name="S01.geojson"):
    text = tree if isinstance(tree, str) else json.dumps(tree)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return read_labelled_objects(path)


def joined(tmp_path, *features):
    found = join_labels(read(tmp_path, list(features)), UUIDS, CENTROIDS)
    return found, [found.names[code] if code >= 0 else None for code in found.code]


ONE = feature("Tumor", uuid=UUIDS[0])


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"type": "FeatureCollection", "features": [ONE]}, "a.geojson"),
        ({"type": "FeatureCollection", "features": [ONE]}, "a.geojson.gz"),
        ({"features": [ONE], "type": "FeatureCollection", "crs": {"features": 1}}, "a.json"),
        ({"properties": {"features": [feature("No", uuid=UUIDS[1])]}, "features": [ONE]}, "a.json"),
        ({"name": '"features": [', "features": [ONE]}, "a.json"),
        (ONE | {"properties": {"features": [], "classification": "Tumor"}}, "a.json"),
        ([ONE], "a.json"),
        (ONE, "a.geojson"),
        ("\ufeff" + json.dumps([ONE]), "a.geojson"),
        (json.dumps({"type": "FeatureCollection", "features": [ONE]}, indent=2), "a.geojson"),
        ([feature(None, childObjects=[ONE])], "a.geojson"),
    ],
)
def test_every_form_that_qupath_writes_is_read(tmp_path, tree, name):
    objects = read(tmp_path, tree, name)
    assert (objects.ids, objects.labels) == ([UUIDS[0]], ["Tumor"])


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ("Tumor", "Tumor"),
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"names": ["Tumor", "Positive"], "color": [200, 0, 0]}, "Tumor: Positive"),
        ({"name": " Immune cells "}, "Immune cells"),
        ({"name": "Ignore*"}, None),
        ({"name": "C07", "color": [1, 2, 3]}, None),
        ({"name": None}, None),
        ({"names": 5}, None),
        ({"names": 5, "name": "Tumor"}, "Tumor"),
        ({"names": [5, None, ["a"]]}, None),
        ({"name": 5}, None),
        (None, None),
        ("", None),
        (3, None),
    ],
)
def test_a_class_is_a_label_if_a_person_gave_it(tmp_path, given, label):
    objects = read(tmp_path, [feature(given, uuid=UUIDS[0])])
    assert objects.labels == ([label] if label else [])
    assert objects.n_others == (label is None)


@pytest.mark.parametrize(
    "text",
    [
        "", "hello", "{", "[", "[1]", '[{"type": "Feature"}', '{"type": "Topology"}',
        '{"features": [{"type": "Feature", "properties": 3}]}', "[null]", '{"features": 3}',
        '[{"type": "Feature"}, nonsense]',
    ],
)  # fmt: skip
def test_what_is_no_geojson_is_told_in_a_sentence(tmp_path, text):
    with pytest.raises(LabelError, match="is not GeoJSON as QuPath writes it"):
        read(tmp_path, text)


def test_missing_and_broken_files_are_told(tmp_path):
    with pytest.raises(LabelError, match="There is no file"):
        read_labelled_objects(tmp_path / "none.geojson")
    whole = gzip.compress(json.dumps([ONE] * 50).encode())
    (tmp_path / "cut.geojson.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabelError, match="cannot be read"):
        read_labelled_objects(tmp_path / "cut.geojson.gz")
    (tmp_path / "latin.geojson").write_bytes(b"[\xff\xfe]")
    with pytest.raises(LabelError, match="cannot be read"):
        read_labelled_objects(tmp_path / "latin.geojson")
    with pytest.raises(LabelError, match="unpack it"):
        read_labelled_objects(tmp_path / "x.zip")
    ring = {"type": "Polygon", "coordinates": [[[0, 0], [1]]]}
    with pytest.raises(LabelError, match="broken outline"):
        read(tmp_path, [feature("A", geometry=ring)])


def test_an_id_is_asked_first_and_areas_hold_the_rest(tmp_path):
    found, labels = joined(
        tmp_path,
        feature("Immune", uuid=UUIDS[1].upper(), geometry=box(0, 100)),
        feature("Tumor", geometry=box(5, 35)),
    )
    assert labels == ["Tumor", "Immune", "Tumor", None, None, None]
    assert found.names == ("Immune", "Tumor")
    assert (found.n_by_id, found.n_by_area) == (1, 2)
    assert (found.n_unmatched, found.n_conflicts) == (0, 0)


def test_a_smaller_area_counts_more_than_one_around_it(tmp_path):
    small, large = feature("Gland", geometry=box(15, 25)), feature("Stroma", geometry=box(5, 45))
    for order in ((small, large), (large, small)):
        found, labels = joined(tmp_path, *order)
        assert labels == ["Stroma", "Gland", "Stroma", "Stroma", None, None]
        assert found.n_conflicts == 1


def test_areas_of_one_class_do_not_conflict(tmp_path):
    found, _ = joined(
        tmp_path, feature("A", geometry=box(5, 25)), feature("A", geometry=box(15, 45))
    )
    assert (found.n_by_area, found.n_conflicts) == (4, 0)


def test_of_two_objects_with_one_id_the_later_counts(tmp_path):
    found, labels = joined(tmp_path, feature("A", uuid=UUIDS[3]), feature("B", uuid=UUIDS[3]))
    assert labels[3] == "B"
    assert found.n_conflicts == 1


def test_objects_that_fit_nothing_are_counted(tmp_path):
    found, labels = joined(
        tmp_path,
        feature("A", uuid="ffffffff-0000-5000-8000-000000000000"),
        feature("A", geometry={"type": "Point", "coordinates": [10, 10]}),
        feature("A", geometry=box(900, 950)),
        feature("B", uuid="not an id", geometry=box(55, 65)),
    )
    assert labels == [None] * 5 + ["B"]
    assert found.n_unmatched == 3


def test_areas_of_several_pieces_and_ones_that_cross_themselves_are_areas(tmp_path):
    two = shapely.geometry.mapping(
        shapely.MultiPolygon([shapely.box(5, 0, 15, 20), shapely.box(35, 0, 45, 20)])
    )
    bow = {"type": "Polygon", "coordinates": [[[15, 0], [25, 20], [25, 0], [15, 20], [15, 0]]]}
    _, labels = joined(tmp_path, feature("A", geometry=two), feature("B", geometry=bow))
    assert labels[0] == labels[3] == "A"
    assert labels[1] == "B"


def test_a_slide_without_cells_takes_no_labels(tmp_path):
    objects = read(tmp_path, [feature("A", geometry=box(0, 9)), ONE])
    found = join_labels(objects, [], np.zeros((0, 2)))
    assert len(found.code) == 0
    assert found.n_unmatched == 2


@pytest.mark.data
def test_real_exports_of_qupath_are_read(data_dir):
    folder = data_dir / "qupath" / "CosciaLab_Qupath_to_LMD"
    objects = read_labelled_objects(folder / "demo_Qupath_project" / "Single_cells.geojson")
    assert len(objects) + objects.n_others == 131
    assert "class_1" in objects.labels
    for file in folder.rglob("*.geojson"):
        found = read_labelled_objects(file)
        centres = [area.representative_point() for area in found.areas if area is not None]
        if centres:
            xy = shapely.get_coordinates(centres)
            cells = join_labels(found, [f"cell {i}" for i in range(len(xy))], xy)
            assert (cells.code >= 0).all()
