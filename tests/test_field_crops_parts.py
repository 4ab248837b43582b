"""Light, nuclei and windows: the parts that field crops are made of."""

import numpy as np
import pytest

from ccrl_wsi.crops.fixed import cut_fixed
from ccrl_wsi.datasets.illumination import PlateLightEstimate
from ccrl_wsi.nuclei.fluorescent_nuclei import centres_of, find_fluorescent_nuclei


def vignette(side=512):
    y, x = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return 1.6 - 0.5 * (x**2 + y**2)


def test_the_light_of_a_plate_is_made_even():
    rng = np.random.default_rng(0)
    light = vignette()
    fields = [
        (1000 * light[..., None] * rng.uniform(0.5, 1.5, (512, 512, 1))).astype(np.uint16)
        for _ in range(6)
    ]
    before, after = PlateLightEstimate(even=False), PlateLightEstimate()
    for field in fields:
        before.add(field)
        after.add(field)

    def corner_to_middle(estimate):
        mean = np.mean([estimate.light().corrected(f).astype(float) for f in fields], axis=0)
        return mean[:48, :48].mean() / mean[232:280, 232:280].mean()

    assert corner_to_middle(before) < 0.4
    # Not quite 1: the median filter rounds off the very corners.
    assert 0.8 < corner_to_middle(after) < 1.1


def test_channels_use_the_whole_range_and_keep_their_order():
    ramp = np.linspace(500, 60000, 128 * 128).reshape(128, 128, 1)
    field = np.concatenate([ramp, ramp / 50], axis=2)
    estimate = PlateLightEstimate(even=False)
    estimate.add(field)
    corrected = estimate.light().corrected(field)
    assert corrected.min(axis=(0, 1)).tolist() == [0, 0]
    assert corrected.max(axis=(0, 1)).tolist() == [255, 255]
    assert (np.diff(corrected[..., 0].ravel().astype(int)) >= 0).all()


def test_a_field_of_another_size_is_refused_and_no_field_too():
    estimate = PlateLightEstimate()
    with pytest.raises(ValueError, match="no field"):
        estimate.light()
    estimate.add(np.ones((32, 32, 3)))
    with pytest.raises(ValueError, match="32, 32, 3"):
        estimate.add(np.ones((32, 40, 3)))
    assert np.isfinite(estimate.light().corrected(np.ones((32, 32, 3)))).all()


def discs(centres, radius=8, side=160, noise=2.0):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    image = 10 + noise * rng.normal(size=(side, side))
    for cx, cy in centres:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = 150
    return image


def test_nuclei_are_found_where_they_are_and_parted_where_they_touch():
    centres = [(30, 40), (46, 40), (100, 100), (30, 130)]
    labels = find_fluorescent_nuclei(discs(centres), diameter_px=16)
    found = centres_of(labels)
    assert len(found) == 4
    for centre in centres:
        assert np.hypot(*(found - centre).T).min() < 1.5


@pytest.mark.parametrize("noise", [0.0, 5.0])
def test_a_field_without_nuclei_has_none(noise):
    assert find_fluorescent_nuclei(discs([], noise=noise), 16).max() == 0
    assert centres_of(np.zeros((5, 5), np.int32)).shape == (0, 2)


def test_debris_is_no_nucleus():
    image = discs([(40, 40)]) + discs([(100, 100)], radius=2)
    assert find_fluorescent_nuclei(image, 16).max() == 1


def test_windows_are_centred_and_whole():
    image = np.arange(20 * 30 * 4, dtype=np.uint32).astype(np.uint8).reshape(20, 30, 4)
    centres = np.array([[10.0, 9.6], [2.0, 10.0], [26.0, 16.0], [26.2, 10.0]])
    crops, is_whole = cut_fixed(image, centres, 8)
    assert is_whole.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(crops[0], image[6:14, 6:14])
    np.testing.assert_array_equal(crops[1], image[12:20, 22:30])
    assert crops.shape == (3, 8, 8, 4)
    assert cut_fixed(image, np.empty((0, 2)), 8)[0].shape == (0, 8, 8, 4)
