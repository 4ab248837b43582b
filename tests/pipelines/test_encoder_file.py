"""A trained network as a file: all of it, and what a training set says of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ccrl_wsi.crop_set import CropSet, channel_statistics
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.checkpoint import load_checkpoint, read_header
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.errors import ModelError
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.training.settings import ExportSettings
from pipelines import encoder_file
from pipelines.encoder_file import EncoderPlan, write_encoder

PLAN = EncoderPlan("preact_resnet18", {"n_channels": 3, "widths": [4, 6], "stem_stride": 2})
RECORD = {"data": "drawn", "licence": "none"}


def crops(n=300, side=16, scale=1.5, mpp=0.5):
    rng = np.random.default_rng(0)
    measurements = rng.uniform(1, 90, (n, len(NAMES))).astype(np.float32)
    measurements[:, NAMES.index("area_um2")] = rng.lognormal(3.5, 0.5, n)
    return CropSet(
        crops=rng.integers(40, 220, (n, side, side, 3), dtype=np.uint8),
        measurements=measurements,
        source=np.zeros(n, np.int32),
        label=np.full(n, -1, np.int32),
        source_names=("drawn",),
        class_names=(),
        scale=scale,
        mpp=mpp,
    )


@pytest.fixture
def network():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network(PLAN.architecture, PLAN.arguments).train()
    with torch.no_grad():
        network(torch.randn(64, 3, 16, 16))
    return network


def embedded(network, some):
    mean, std = channel_statistics(some.crops)
    pixels = ((some.crops / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.no_grad():
        return copy.deepcopy(network).eval()(torch.tensor(pixels, dtype=torch.float32)).numpy()


def test_the_file_says_what_the_training_set_and_the_settings_say(network, tmp_path):
    path = tmp_path / "deep" / "encoder.safetensors"

    header = write_encoder(path, network, PLAN, crops(), ExportSettings(name="mine"), RECORD)

    assert read_header(path) == header
    assert (header.name, header.architecture) == ("mine", "preact_resnet18")
    assert header.arguments == PLAN.arguments
    assert (header.crop.scale, header.crop.size_px, header.crop.mpp) == (1.5, 16, 0.5)
    assert (header.n_dimensions, header.size, header.training) == (6, None, RECORD)
    mean, std = channel_statistics(crops().crops)
    np.testing.assert_allclose(header.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(header.std, std, rtol=1e-12)
    assert {p.name for p in path.parent.iterdir()} == {"encoder.safetensors", "encoder.json"}


def test_the_file_embeds_as_the_network_in_evaluation(network, tmp_path):
    path, some = tmp_path / "e.safetensors", crops()

    write_encoder(path, network, PLAN, some, ExportSettings(), RECORD)

    found = CcrlEncoder(path, "cpu", 64)(some.crops, some.measurements)
    np.testing.assert_allclose(found, embedded(network, some), rtol=1e-4, atol=1e-4)


def test_the_network_is_left_as_it_was_and_equal_networks_are_equal_files(network, tmp_path):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    for name in ("a", "b"):
        write_encoder(
            tmp_path / f"{name}.safetensors", network, PLAN, crops(), ExportSettings(), RECORD
        )

    assert network.training
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


@pytest.mark.parametrize("half", [False, True])
def test_the_size_is_weighed_against_the_training_set_as_the_file_embeds_it(
    network, tmp_path, half
):
    path, some = tmp_path / "e.safetensors", crops()

    header = write_encoder(
        path, network, PLAN, some, ExportSettings(size_weight=0.5, half=half), RECORD
    )

    found = CcrlEncoder(path, "cpu", 64)(some.crops, some.measurements).astype(np.float64)
    assert found.shape == (300, header.n_dimensions) == (300, 7)
    assert found[:, 6].var() == pytest.approx(0.25 * found[:, :6].var(axis=0).sum(), rel=1e-4)
    area = some.measurements[:, NAMES.index("area_um2")]
    assert np.corrcoef(found[:, 6], np.log(area))[0, 1] == pytest.approx(1)


def test_half_is_sixteen_bits_in_the_file(network, tmp_path):
    path, some = tmp_path / "e.safetensors", crops()

    write_encoder(path, network, PLAN, some, ExportSettings(half=True), RECORD)

    state, wanted = load_checkpoint(path)[1], network.state_dict()
    assert torch.equal(state["stem.weight"], wanted["stem.weight"].half().float())
    assert not torch.equal(state["stem.weight"], wanted["stem.weight"])


class Louder(nn.Module):
    """A network that is not what its plan says."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.n_dimensions = inner, inner.n_dimensions

    def state_dict(self, **_):
        return self.inner.state_dict()

    def forward(self, x):
        return 1.001 * self.inner(x)


def test_embeddings_that_the_file_does_not_give_are_refused_and_the_older_file_stays(
    network, tmp_path
):
    path = tmp_path / "e.safetensors"
    write_encoder(path, network, PLAN, crops(), ExportSettings(), RECORD)
    older = path.read_bytes()

    with pytest.raises(ModelError, match=r"differ by up to .*e\.safetensors was not written"):
        write_encoder(path, Louder(network), PLAN, crops(), ExportSettings(), {"data": "new"})

    assert path.read_bytes() == older
    assert {p.name for p in tmp_path.iterdir()} == {"e.safetensors", "e.json"}


def test_weights_that_lose_too_much_in_sixteen_bits_are_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_file, "HALF_ROUNDING", 1e-6)
    with pytest.raises(ModelError, match=r"export\.half=false"):
        write_encoder(
            tmp_path / "e.safetensors", network, PLAN, crops(), ExportSettings(half=True), RECORD
        )
    assert not list(tmp_path.iterdir())


def test_a_broken_network_is_refused(network, tmp_path):
    with torch.no_grad():
        network.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        write_encoder(tmp_path / "e.safetensors", network, PLAN, crops(), ExportSettings(), RECORD)


def test_a_network_that_has_collapsed_is_refused(network, tmp_path):
    with torch.no_grad():
        for block in network.blocks:
            block.norm1.weight.zero_()
            block.norm1.bias.fill_(1)
            block.norm2.weight.zero_()
        network.stem.weight.zero_()
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(ModelError, match="has collapsed"):
        write_encoder(path, network, PLAN, crops(), ExportSettings(), RECORD)
    assert not path.exists()


def test_a_plan_of_another_network_is_refused(network, tmp_path):
    other = EncoderPlan("preact_resnet18", {"widths": [4, 8]})
    with pytest.raises(ModelError, match="are not those of preact_resnet18"):
        write_encoder(tmp_path / "e.safetensors", network, other, crops(), ExportSettings(), RECORD)


@pytest.mark.parametrize("n", [1, 2])
def test_a_handful_of_crops_is_enough(network, tmp_path, n):
    path = tmp_path / "e.safetensors"
    assert write_encoder(path, network, PLAN, crops(n), ExportSettings(), RECORD).n_dimensions == 6
