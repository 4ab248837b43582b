"""Photograph features with weights drawn at random: where files come from, what is computed."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.embeddings.encoders import check_encoder, is_light, make_encoder
from ccrl_wsi.embeddings.imagenet import MEAN, STD
from ccrl_wsi.embeddings.imagenet_weights import download_place
from ccrl_wsi.errors import ModelError
from tests.drawn_crops import coloured_crops


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    return tmp_path / "hub" / "checkpoints"


def made(weights, name="imagenet"):
    return make_encoder(EmbeddingSettings(encoder=name, weights=weights, batch_size=2), "cpu")


def test_features_are_those_before_the_last_layer(network, weights):
    crops = coloured_crops(3, side=32)
    encoder = made(weights)
    pixels = torch.from_numpy(crops.crops).permute(0, 3, 1, 2) / 255
    large = interpolate(pixels, (224, 224), mode="bilinear", antialias=True)
    wanted = (large - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    twin = torch.nn.Sequential(*list(network.children())[:-1], torch.nn.Flatten())
    with torch.no_grad():
        expected = twin(wanted).numpy()
    found = encoder(crops.crops, crops.measurements)
    assert found.shape == (3, encoder.n_dimensions) == (3, 512)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert (encoder.name, encoder.standardise) == ("imagenet", False)


def test_the_fingerprint_is_that_of_the_weights(network, weights, tmp_path):
    same = tmp_path / "same.safetensors"
    save_file(network.state_dict(), same)
    other = tmp_path / "other.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), other)
    first, again, another = (made(path).fingerprint for path in (weights, same, other))
    assert first == again != another


def test_offline_it_says_which_file_to_put_where(offline):
    with pytest.raises(ModelError) as told:
        made(None)
    message = str(told.value)
    assert "https://download.pytorch.org/models/resnet18-" in message
    assert str(offline / "resnet18-") in message
    assert "embedding.weights=FILE" in message


def test_a_file_put_there_is_found(offline, weights):
    place = download_place("resnet18")
    place.parent.mkdir(parents=True)
    place.write_bytes(weights.read_bytes())
    assert made(None).fingerprint == made(weights).fingerprint


def test_files_that_cannot_be_used_are_told(weights, tmp_path):
    with pytest.raises(ModelError, match="There is no weight file"):
        made(tmp_path / "gone.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read"):
        made(cut)
    with pytest.raises(ModelError, match=r"imagenet50 \(resnet50\): .* another network"):
        made(weights, "imagenet50")
    evil = tmp_path / "evil.pth"
    torch.save({"fc.weight": torch.nn.Linear(2, 2)}, evil)
    with pytest.raises(ModelError, match="more than tensors"):
        made(evil)


def test_it_needs_a_gpu_to_be_light(weights):
    settings = EmbeddingSettings(encoder="imagenet", weights=weights)
    assert not is_light(settings)
    from ccrl_wsi.config import CropSettings

    check_encoder(settings, CropSettings(scale=1.5), 0.5)


def test_photograph_features_can_be_computed_in_half_precision(weights):
    crops = coloured_crops(3, side=32)
    asked = {"encoder": "imagenet", "weights": weights, "precision": "bfloat16"}
    encoder = make_encoder(EmbeddingSettings(**asked), "cpu")
    one, other = (e(crops.crops, crops.measurements) for e in (encoder, made(weights)))
    assert one.dtype == np.float32
    assert one.tobytes() != other.tobytes()
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert ((one * other).sum(axis=1) / lengths).min() > 0.999
