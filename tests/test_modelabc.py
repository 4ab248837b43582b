"""Users' models of TIAToolbox as segmenters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.errors import ModelError
from ccrl_wsi.nuclei.modelabc import load_modelabc, read_result
from tests.drawn_networks import DarkBlobs

INT_MIN = np.iinfo(np.int32).min


def load(name, **changes):
    settings = NucleiSettings(segmenter=name, window_px=256, **changes)
    return load_modelabc(settings, "cpu")


def two_squares():
    rgb = np.full((300, 400, 3), 230, np.uint8)
    rgb[10:20, 15:30] = 40
    rgb[230:260, 235:260] = 40
    return rgb


def test_nuclei_and_types_are_those_of_the_model_across_windows():
    segmenter = load("tests.drawn_networks:DarkBlobs")

    found = segmenter(two_squares(), 0.25)

    assert segmenter.type_names == ("Background", "Small", "Large")
    assert segmenter.margin == DarkBlobs.lost
    assert np.array_equal(found.labels > 0, two_squares()[..., 0] < 128)
    assert found.nucleus_type.tolist() == [1, 2]
    assert found.type_probability.tolist() == [0.75, 0.75]
    assert np.isnan(found.probability).all()


def test_a_model_takes_as_many_windows_at_once_as_asked_also_on_cpu_cores(monkeypatch):
    segmenter, batches = load("tests.drawn_networks:DarkBlobs", batch_size=3), []
    infer = segmenter.model.infer_batch

    def counted(model, batch, **options):
        batches.append(len(batch))
        return infer(model, batch, **options)

    monkeypatch.setattr(segmenter.model, "infer_batch", counted)
    segmenter(two_squares(), 0.25)
    assert batches == [3, 1]


def test_local_weights_are_loaded(tmp_path):
    torch.save({"threshold": torch.tensor(20.0)}, tmp_path / "w.pth")
    segmenter = load("tests.drawn_networks:DarkBlobs", weights=tmp_path / "w.pth")

    assert segmenter(two_squares(), 0.25).n_nuclei == 0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no.such.module:Model", "cannot be imported"),
        ("tests.drawn_networks:NoSuchModel", "cannot be imported"),
        ("collections:Counter", "no TIAToolbox ModelABC"),
    ],
)
def test_what_is_no_model_is_told(name, complaint):
    with pytest.raises(ModelError, match=complaint):
        load(name)


def test_a_label_image_alone_is_enough():
    labels = np.array([[0, 7, 7], [0, 0, 3]])

    found = read_result(labels, (2, 3), "m", is_typed=False)

    assert found.labels.tolist() == [[0, 2, 2], [0, 0, 1]]
    assert found.nucleus_type.tolist() == [0, 0]


def test_contours_alone_are_filled_in():
    square = [[2, 2], [6, 2], [6, 6], [2, 6]]
    padded = [[8, 1], [9, 1], [9, 3], [INT_MIN, INT_MIN]]
    info = {"contours": np.array([square, padded]), "type": [2, 1], "prob": [0.5, 1.0]}

    found = read_result({"info_dict": info}, (8, 12), "m", is_typed=True)

    assert (found.labels == 1).sum() == 25
    assert (found.labels == 2).sum() == 5
    assert found.nucleus_type.tolist() == [2, 1]


def test_rows_follow_contours_where_the_labels_have_more_nuclei():
    labels = np.zeros((6, 9), np.int32)
    labels[0, 0], labels[1:4, 2:5], labels[1:4, 6:9] = 1, 2, 3
    contours = [[[6, 1], [8, 1], [8, 3]], [[2, 1], [4, 1], [4, 3]]]
    info = {"contours": contours, "type": [5, 4], "prob": [0.9, 0.8]}

    found = read_result((labels, info), (6, 9), "m", is_typed=True)

    assert found.labels[2, 7] == 1
    assert found.labels[2, 3] == 2
    assert found.labels[0, 0] == 0
    assert found.nucleus_type.tolist() == [5, 4]


@pytest.mark.parametrize("result", [None, np.zeros((4, 4), np.float32), {"task": "x"}])
def test_a_postproc_that_returns_no_nuclei_is_told(result):
    with pytest.raises(ModelError, match="neither a label image"):
        read_result(result, (4, 4), "m", is_typed=False)
