"""The floors: pixels and the untrained network."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import find_objects
from sklearn.decomposition import PCA

from ccrl_wsi.baselines.pixels import PixelBaseline
from ccrl_wsi.baselines.untrained import ChannelScale, Untrained, channel_scale
from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.embeddings.network import PreActResNet18
from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.protocol import Embeddings, KMeansSettings, judge
from tests.drawn_crops import coloured_crops

WIDTHS = (4, 4, 8, 8)
SCALE = ChannelScale((0.7, 0.6, 0.8), (0.15, 0.17, 0.11))


def random_crops(n, side=8, seed=0):
    crops = coloured_crops(n, side=side, seed=seed)
    rng = np.random.default_rng(seed)
    # Few directions of different spread, so that components are well defined.
    basis = rng.normal(size=(6, side * side * 3))
    values = 128 + (rng.normal(size=(n, 6)) * [60, 30, 20, 12, 8, 5]) @ basis / 4
    return replace(crops, crops=np.clip(values, 0, 255).astype(np.uint8).reshape(crops.crops.shape))


def small_network():
    return PreActResNet18(3, WIDTHS)


@pytest.mark.parametrize("n", [300, 60])
def test_pixels_are_the_principal_components_of_0_to_1(n):
    """With more crops than pixels and channels (192), and with fewer."""
    fit, other = random_crops(n), random_crops(50, seed=1)
    found = PixelBaseline(4).fit(fit)
    flat = [c.crops.reshape(len(c), -1) / 255 for c in (fit, other)]
    slow = PCA(4, svd_solver="full").fit(flat[0])
    for crops, pixels in zip((fit, other), flat, strict=True):
        vectors = found(crops.crops, crops.measurements)
        assert vectors.dtype == np.float32
        assert np.abs(vectors) == pytest.approx(np.abs(slow.transform(pixels)), abs=1e-3)
    # Not whitened: the spread of a component is that of the pixels.
    spread = found(fit.crops, fit.measurements).var(axis=0, ddof=1)
    assert spread == pytest.approx(slow.explained_variance_, rel=1e-3)


def test_pixels_in_chunks_are_the_same(monkeypatch):
    crops = random_crops(200)
    whole = PixelBaseline(3).fit(crops)
    monkeypatch.setattr("ccrl_wsi.baselines.pixels.CHUNK", 70)
    parts = PixelBaseline(3).fit(crops)
    a, b = (e(crops.crops, crops.measurements) for e in (whole, parts))
    assert a == pytest.approx(b, abs=1e-3)


def test_pixels_are_the_same_again_and_say_when_not():
    crops = random_crops(60)
    first, again, other = (
        PixelBaseline(5).fit(c) for c in (crops, crops, crops.where(np.arange(50)))
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (first.name, first.n_dimensions, first.standardise) == ("pixels", 5, False)


def test_fewer_crops_than_components_give_fewer():
    crops = coloured_crops(6)
    assert PixelBaseline(64).fit(crops).n_dimensions == 6
    assert np.isfinite(PixelBaseline(64).fit(crops)(crops.crops, crops.measurements)).all()


def test_pixels_of_another_shape_or_of_nothing_are_refused():
    found = PixelBaseline(2).fit(coloured_crops(6))
    with pytest.raises(ValueError, match=r"\(9, 9, 3\)"):
        found(coloured_crops(6, side=9).crops, np.zeros((6, 1)))
    with pytest.raises(EvaluationError, match="no crops"):
        PixelBaseline().fit(coloured_crops(6).where(np.zeros(0, int)))


def test_untrained_weights_belong_to_the_seed_alone():
    crops = coloured_crops(10, side=32)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = Untrained(small_network, SCALE, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    again, other = (Untrained(small_network, SCALE, seed=s) for s in (1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    vectors = [e(crops.crops, crops.measurements) for e in (first, again, other)]
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])
    assert vectors[0].shape == (10, 8)
    assert (first.name, first.n_dimensions, first.standardise) == ("untrained", 8, False)


def test_untrained_is_its_network_on_normalised_pixels():
    crops = coloured_crops(5, side=32)
    encoder = Untrained(small_network, SCALE, seed=0, batch_size=2)
    pixels = (crops.crops / 255 - np.array(SCALE.mean)) / np.array(SCALE.std)
    images = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    with torch.no_grad():
        expected = encoder._network.eval()(images).numpy()
    assert encoder(crops.crops, crops.measurements) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_scale_of_channels_is_that_of_all_pixels():
    crops = random_crops(40)
    scale = channel_scale(crops)
    pixels = crops.crops.reshape(-1, 3) / 255
    assert scale.mean == pytest.approx(pixels.mean(axis=0))
    assert scale.std == pytest.approx(pixels.std(axis=0))
    flat = replace(crops, crops=np.full_like(crops.crops, 9))
    assert channel_scale(flat).std == pytest.approx((1 / 255,) * 3)


def crops_clipped_to_the_tile(image, size_px=32):
    """Twice the long side around the box's sides, cut off at the tile's edge, stretched."""
    crops = []
    for rows, columns in (find_objects(image.labels)[i - 1] for i in image.ids):
        margin = max(rows.stop - rows.start, columns.stop - columns.start) / 2
        top, left = (max(0, int(side.start - margin)) for side in (rows, columns))
        bottom, right = (int(side.stop + margin) for side in (rows, columns))
        pixels = image.rgb[top:bottom, left:right]
        crops.append(cv2.resize(pixels, (size_px, size_px), interpolation=cv2.INTER_CUBIC))
    return np.stack(crops)


@pytest.mark.data
def test_pixels_reach_what_is_known_of_them_on_consep(data_dir):
    """64 components, window 2, 32 px: measured once with other code on the same images."""
    images = list(read_consep(data_dir / "consep", "test", "merged"))
    label = np.concatenate([image.label for image in images])
    crops = replace(
        coloured_crops(len(label), n_classes=4, side=1),
        crops=np.concatenate([crops_clipped_to_the_tile(image) for image in images]),
        label=label,
    )
    k_means = KMeansSettings(4, n_seeds=1, n_init=3)
    judged = judge(Embeddings(PixelBaseline()), "fitted_on_test", crops, crops, k_means)
    found = [judged.mean(metric) for metric in ("ami", "ari", "purity")]
    assert found == pytest.approx([0.184, 0.200, 0.620], abs=0.003)
