import pytest
import torch

from ccrl_wsi.config_files import find_config
from ccrl_wsi.embeddings.network import build_network, expected_shapes, n_dimensions
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.settings import TrainSettings
from pipelines import train_methods


@pytest.mark.parametrize(("name", "length"), [("resnet18", 512), ("resnet50", 2048)])
def test_length_and_channels_of_plain_resnets(name, length):
    assert n_dimensions(name, {"n_channels": 5}) == length
    shapes = expected_shapes(name, {"n_channels": 5})
    assert shapes["conv1.weight"] == (64, 5, 7, 7)
    assert not any(key.startswith("fc.") for key in shapes)


def test_a_resnet_embeds_crops_of_any_number_of_channels():
    network = build_network("resnet18", {"n_channels": 4}).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 4, 64, 64)).shape == (2, 512)


def settings(*overrides):
    return load_tree(TrainSettings, [find_config("train/simclr_bbbc021")], list(overrides))


def test_the_papers_settings_start_from_imagenet_weights(monkeypatch):
    tree = settings("network.architecture=resnet18", "network.projector=[32,16]")
    known = {k: torch.full(s, 0.125) for k, s in expected_shapes("resnet18", {}).items()}
    monkeypatch.setattr(train_methods, "imagenet_weights", lambda *asked: known)
    model = train_methods.make_model(tree, 3, "cpu")
    assert (model.encoder("query").state_dict()["conv1.weight"] == 0.125).all()
    with pytest.raises(ConfigError, match="for three channels"):
        train_methods.make_model(tree, 4, "cpu")


def test_weights_that_cannot_be_fetched_are_told(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ModelError, match="no network.*network.pretrained=false"):
        train_methods.make_model(settings("network.architecture=resnet18"), 3, "cpu")


def test_a_network_that_does_not_exist_is_told():
    with pytest.raises(ConfigError, match="preact_resnet18, resnet18, resnet50"):
        train_methods.make_model(
            settings("network.architecture=vgg", "network.pretrained=false"), 3, "cpu"
        )


@pytest.mark.parametrize(
    "override", ["network.predictor=32", "loss.debias=0.1", "loss.prototypes=4"]
)
def test_what_simclr_does_not_have_is_refused(override):
    with pytest.raises(ConfigError, match="nt_xent"):
        settings(override)


@pytest.mark.parametrize("name", ["simclr_bbbc021", "ccrl_bbbc021", "drawn_cells"])
def test_the_settings_files_load(name):
    tree = load_tree(TrainSettings, [find_config(f"train/{name}")], [])
    assert tree.data.kind == "bbbc021"
