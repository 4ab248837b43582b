"""What an evaluation can be told, and what it refuses."""

from __future__ import annotations

import pytest

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.settings_tree import load_tree


def load(*overrides):
    return load_tree(EvaluateSettings, overrides=overrides)


def test_the_defaults_are_the_papers_protocol():
    settings = load()
    assert settings.readings == ("fitted_on_test", "fitted_on_train")
    assert (settings.k, settings.n_init, settings.max_iter) == (None, 10, 300)
    assert settings.n_seeds >= 5
    assert not settings.on_train


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.split=test", "chosen by the evaluation itself"),
        ("data.split=all", "on_train=true"),
        ("test_path=elsewhere", "has its own test images"),
        ("encoders=[]", "at least one"),
        ("encoders=[pixels,pixels]", "each once"),
        ("readings=[]", "at least one"),
        ("readings=[train_only]", "fitted_on_test"),
        ("k=1", "greater than or equal to 2"),
        ("data.kind=label_maps", "Set test_path"),
        ("encoder=pixels", "no such setting"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override, words):
    with pytest.raises(ConfigError, match=words):
        load(override)


@pytest.mark.parametrize(
    "overrides",
    [
        ["test_path=elsewhere"],
        ["on_train=true"],
        ["readings=[fitted_on_test]", "probes=false"],
    ],
)
def test_a_folder_without_a_split_is_enough_where_only_one_part_is_needed(overrides):
    assert load("data.kind=label_maps", *overrides).data.kind == "label_maps"


def test_training_cells_are_read_only_where_needed():
    assert load().needs_train
    assert not load("readings=[fitted_on_test]", "probes=false").needs_train
    assert load("readings=[fitted_on_test]").needs_train
    assert load("readings=[fitted_on_test]", "probes=false", "on_train=true").needs_train
