"""Fields of slides with labels: what is cut, what is unsure, what goes wrong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.records import Segmentation
from ccrl_wsi.slides.slide_list import list_slides
from pipelines.cli import main
from pipelines.field_sets import gather_fields
from pipelines.label_fields import FieldPlan, label_fields, unsure_pixels
from tests.drawn_fields import small_settings

SETTINGS = load_settings(overrides=["nuclei.segmenter=watershed", "tiles.mpp=0.5"])
PLAN = FieldPlan(per_slide=4, side_px=128)


@pytest.fixture(scope="module")
def fields(slide_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("fields")
    n, problems = label_fields(list_slides([str(slide_file)]), out, PLAN, SETTINGS)
    assert (n, problems) == (4, [])
    return out


def boxes_of(folder):
    return [
        tuple(map(int, path.stem.split("__")[1].split("_")))
        for path in sorted((folder / "images").iterdir())
    ]


def test_fields_are_pieces_of_the_slide_that_do_not_overlap(fields, drawn):
    for left, top in boxes_of(fields):
        image = cv2.imread(str(fields / "images" / f"drawn__{left}_{top}.png"))[..., ::-1]
        assert np.array_equal(image, drawn.rgb[top : top + 128, left : left + 128])
    for number, (left, top) in enumerate(boxes_of(fields)):
        for other_left, other_top in boxes_of(fields)[number + 1 :]:
            assert abs(left - other_left) >= 128 or abs(top - other_top) >= 128


def test_labels_are_the_segmenters_nuclei(fields, drawn):
    left, top = boxes_of(fields)[0]
    name = f"drawn__{left}_{top}.png"
    labels = cv2.imread(str(fields / "labels" / name), cv2.IMREAD_UNCHANGED)
    truth = drawn.labels[top : top + 128, left : left + 128]

    shared = ((labels > 0) & (truth > 0)).sum()
    assert labels.dtype == np.uint16
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, labels.max() + 1))
    assert 2 * shared / ((labels > 0).sum() + (truth > 0).sum()) > 0.7


def test_they_can_be_learned_from(fields):
    source = {"kind": "label_maps", "path": str(fields), "mpp": 0.5}
    data = small_settings("data.field_px=128", data={"sources": [source]}).data

    found = gather_fields(data, 0.5)

    assert len(found) == 4
    assert found.source_names == ("label_maps drawn",)
    assert found.n_nuclei > 10


def test_what_somebody_corrected_is_left_alone(fields, slide_file):
    file = sorted((fields / "labels").iterdir())[0]
    before = file.read_bytes()
    cv2.imwrite(str(file), np.zeros((128, 128), np.uint16))
    corrected = file.read_bytes()

    n, problems = label_fields(list_slides([str(slide_file)]), fields, PLAN, SETTINGS)

    assert (n, problems) == (0, [])
    assert file.read_bytes() == corrected
    file.write_bytes(before)


def test_the_same_seed_draws_the_same_fields(fields, slide_file, tmp_path):
    label_fields(list_slides([str(slide_file)]), tmp_path, PLAN, SETTINGS)

    assert boxes_of(tmp_path) == boxes_of(fields)


def test_nuclei_of_low_probability_are_unsure_with_their_surroundings():
    labels = np.zeros((20, 20), np.int32)
    labels[5:8, 5:8], labels[14, 14] = 1, 2
    found = Segmentation.untyped(labels, np.array([0.5, 0.9], np.float32))

    mask = unsure_pixels(found)

    expected = np.zeros((20, 20), bool)
    expected[3:10, 3:10] = True
    assert np.array_equal(mask > 0, expected)


def test_a_slide_that_cannot_be_read_is_told_and_the_others_are_labelled(
    slide_file, tmp_path, monkeypatch, caplog
):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    command = ["ccrl-wsi", "label-fields", str(broken), str(slide_file), "-o", str(tmp_path / "o")]
    command += ["--set", "nuclei.segmenter=watershed", "--set", "tiles.mpp=0.5"]
    command += ["--per-slide", "1", "--side", "128"]
    monkeypatch.setattr("sys.argv", command)

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 1
    assert len(list((tmp_path / "o" / "labels").iterdir())) == 1


def test_a_slide_too_small_for_a_field_is_told(slide_file, tmp_path):
    plan = FieldPlan(1, 5000)

    n, problems = label_fields(list_slides([str(slide_file)]), tmp_path, plan, SETTINGS)

    assert n == 0
    assert "no place is half tissue" in problems[0]
