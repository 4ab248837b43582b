"""Every method of `ccrl-wsi train`: from label files to an encoder that others take."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.config_files import find_config
from ccrl_wsi.embeddings.checkpoint import read_header
from ccrl_wsi.embeddings.encoders import is_light, make_encoder
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.settings import TrainSettings
from pipelines.crop_sets import gather_crops
from pipelines.train import train_encoder, what_decides
from tests.image_folders import save_consep

TINY = [
    "dcae.n_dimensions=4",
    "dcae.widths=[8, 8, 8]",
    "dcae.pretrain_epochs=1",
    "infogan.width=4",
    "pixels.n_components=5",
    "network.widths=[8, 8]",
    "schedule.batch_size=16",
    "schedule.epochs=2",
    "schedule.warmup_epochs=0",
    "compute.device=cpu",
    "compute.log_every_steps=2",
]
ARCHITECTURE = {
    "dcae": "dcae_encoder",
    "infogan": "infogan_critic",
    "pixels": "pixel_projection",
    "untrained": "preact_resnet18",
}


@pytest.fixture(scope="module")
def consep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consep")
    labels = np.pad(np.kron(np.arange(49).reshape(7, 7), np.ones((12, 12), np.int32)), 3)
    rgb = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    types = [[1 + i % 4] for i in range(48)]
    save_consep(folder, "train_1", labels.astype(np.int32), rgb, inst_type=types)
    return folder


def settings_of(method, consep, *more):
    return load_tree(TrainSettings, [], [f"method={method}", *TINY, f"data.path={consep}", *more])


@pytest.mark.parametrize("method", ARCHITECTURE)
def test_a_method_leaves_an_encoder_that_says_what_it_is(method, consep, tmp_path):
    settings = settings_of(method, consep)
    trained = train_encoder(settings, tmp_path)
    header = read_header(trained.encoder)
    assert (header.name, header.architecture) == (method, ARCHITECTURE[method])
    assert header.training["settings"]["method"] == method
    is_learned = method in ("dcae", "infogan")
    assert trained.n_steps == (6 if is_learned else 0)
    assert (tmp_path / "metrics.csv").exists() == (tmp_path / "curves.png").exists() == is_learned
    wanted = EmbeddingSettings(encoder=str(trained.encoder))
    encoder = make_encoder(wanted, "cpu")
    crops = gather_crops(settings.data, 0)
    vectors = encoder(crops.crops, crops.measurements)
    assert vectors.shape == (48, header.n_dimensions)
    assert is_light(wanted)
    # A finished training is not done again, and gives the same file.
    before = trained.encoder.read_bytes()
    assert train_encoder(settings, tmp_path).encoder.read_bytes() == before
    with pytest.raises(ConfigError, match="other settings"):
        train_encoder(settings_of(method, consep, "seed=1"), tmp_path)


def test_pixels_are_the_components_of_the_baseline(consep, tmp_path):
    from ccrl_wsi.baselines.pixels import PixelBaseline

    settings = settings_of("pixels", consep)
    crops = gather_crops(settings.data, 0)
    expected = PixelBaseline(5).fit(crops)(crops.crops, crops.measurements)
    path = train_encoder(settings, tmp_path).encoder
    found = make_encoder(EmbeddingSettings(encoder=str(path)), "cpu")
    np.testing.assert_allclose(
        found(crops.crops, crops.measurements), expected, rtol=1e-4, atol=1e-4
    )


def test_folders_of_ccrl_do_not_know_the_other_methods(consep):
    """So that what was begun before there were any is continued."""
    tree = what_decides(load_tree(TrainSettings, [], [f"data.path={consep}"]))
    assert not {"method", "dcae", "infogan", "pixels"} & tree.keys()
    assert "shapes" not in tree["data"]
    other = what_decides(settings_of("dcae", consep))
    assert {"method", "dcae"} <= other.keys()
    assert "infogan" not in other


@pytest.mark.parametrize("name", ["dcae", "dcae_cpu", "infogan", "infogan_cpu"])
def test_the_settings_files_train_what_they_are_called(name):
    settings = load_tree(TrainSettings, [find_config(f"train/{name}")])
    assert settings.method == name.removesuffix("_cpu")
    if not name.endswith("_cpu"):
        assert settings.schedule.batch_size == {"dcae": 256, "infogan": 64}[name]
        assert settings.infogan.width == 128
        assert settings.dcae.pretrain_epochs == 200
