"""What every segmenter must do, whoever wrote it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.interfaces import NetworkSegmenter
from ccrl_wsi.nuclei.segmenters import SEGMENTERS, make_segmenter, segmenter_fingerprint
from tests.drawn_networks import ink_segmenter

MPP = 0.25
STAIN, PAPER = (80, 50, 110), (240, 225, 235)


def make_watershed():
    return make_segmenter(NucleiSettings(segmenter="watershed"), "cpu")


def make_compact():
    return make_segmenter(NucleiSettings(segmenter="compact", window_px=256), "cpu")


def make_user_model():
    settings = NucleiSettings(segmenter="tests.drawn_networks:DarkBlobs", window_px=256)
    return make_segmenter(settings, "cpu")


MAKERS = {
    "hovernet fast": lambda: ink_segmenter("fast"),
    "hovernet original": lambda: ink_segmenter("original"),
    "compact": make_compact,
    "watershed": make_watershed,
    "modelabc": make_user_model,
}


@pytest.fixture(params=MAKERS)
def segmenter(request):
    return MAKERS[request.param]()


def draw_image(height=150, width=210):
    image = np.full((height, width, 3), PAPER, np.uint8)
    for x, y, radius in [(30, 30, 10), (100, 60, 12), (180, 40, 9), (60, 120, 11), (150, 110, 10)]:
        cv2.circle(image, (x, y), radius, STAIN, cv2.FILLED)
    return image


def test_drawn_nuclei_are_found(segmenter):
    assert segmenter(draw_image(), MPP).n_nuclei == 5


def test_labels_are_consecutive_and_every_column_has_a_row_for_each(segmenter):
    image = draw_image()

    found = segmenter(image, MPP)

    assert found.labels.shape == image.shape[:2]
    assert found.labels.dtype == np.int32
    assert np.array_equal(np.unique(found.labels), np.arange(found.n_nuclei + 1))
    assert len(found.nucleus_type) == len(found.type_probability) == found.n_nuclei
    assert found.probability.dtype == found.type_probability.dtype == np.float32
    assert found.nucleus_type.dtype == np.int16


def test_probabilities_are_shares_or_unknown(segmenter):
    found = segmenter(draw_image(), MPP)

    for values in (found.probability, found.type_probability):
        known = values[~np.isnan(values)]
        assert ((known >= 0) & (known <= 1)).all()


def test_types_have_names(segmenter):
    found = segmenter(draw_image(), MPP)

    assert (found.nucleus_type >= 0).all()
    assert (found.nucleus_type < max(1, len(segmenter.type_names))).all()


def test_an_empty_image_has_no_nuclei(segmenter):
    found = segmenter(np.full((120, 90, 3), PAPER, np.uint8), MPP)

    assert found.n_nuclei == found.labels.max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (2, 40), (7, 5)])
def test_an_image_smaller_than_a_nucleus_is_no_trouble(segmenter, shape):
    found = segmenter(np.full((*shape, 3), PAPER, np.uint8), MPP)

    assert found.labels.shape == shape
    assert found.n_nuclei == 0


def test_the_same_image_gives_the_same_nuclei(segmenter):
    first, second = segmenter(draw_image(), MPP), segmenter(draw_image(), MPP)

    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.probability, second.probability, equal_nan=True)


def test_a_network_and_what_follows_it_are_two_parts(segmenter):
    if not isinstance(segmenter, NetworkSegmenter):
        pytest.skip("no network")
    images = [draw_image(150, width) for width in (180, 210, 240)]
    predictions = [segmenter.predict(image, MPP) for image in images]

    # The host's part may be done in other threads, for several tiles at once.
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda p: segmenter.segment(p.wait()), predictions))

    for image, one in zip(images, found, strict=True):
        whole = segmenter(image, MPP)
        assert np.array_equal(one.labels, whole.labels)
        assert np.array_equal(one.probability, whole.probability, equal_nan=True)
        assert np.array_equal(one.nucleus_type, whole.nucleus_type)


def test_only_the_watershed_has_no_network():
    are_networks = {name: isinstance(make(), NetworkSegmenter) for name, make in MAKERS.items()}
    assert [name for name, is_one in are_networks.items() if not is_one] == ["watershed"]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"hovernet_fast-pannuke.*watershed"):
        make_segmenter(NucleiSettings(segmenter="hovernet"), "cpu")


def test_the_fingerprint_changes_with_the_weights_content(tmp_path):
    file = tmp_path / "weights.pth"
    names = [segmenter_fingerprint(NucleiSettings(segmenter=name)) for name in SEGMENTERS]
    for content in (b"one", b"two"):
        file.write_bytes(content)
        names.append(segmenter_fingerprint(NucleiSettings(weights=file)))

    assert len(set(names)) == len(SEGMENTERS) + 2
    with pytest.raises(ModelError, match="none.pth"):
        segmenter_fingerprint(NucleiSettings(weights=tmp_path / "none.pth"))
