"""Settings files: found from anywhere, and each of them fits the settings it is for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from ccrl_wsi import config_files
from ccrl_wsi.config import Settings
from ccrl_wsi.config_files import config_dir, config_names, find_config
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.training.segment_settings import SegmentTrainSettings
from ccrl_wsi.training.settings import TrainSettings
from pipelines.machines import load_machine

SETTINGS_OF = {
    "infer": Settings,
    "train": TrainSettings,
    "segment": SegmentTrainSettings,
    "evaluate": EvaluateSettings,
}
"""What the files of a folder are settings of."""
SPELLINGS = ["infer/20x", "infer/20x.yaml", "configs/infer/20x.yaml", "configs/infer/20x"]


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_name_finds_the_file_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == config_dir() / "infer" / "20x.yaml"


def test_a_file_of_the_user_wins_over_a_bundled_name(tmp_path, monkeypatch):
    own = tmp_path / "configs" / "infer" / "20x.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("seed: 3\n")
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/infer/20x.yaml").resolve() == own


def test_an_installed_package_looks_inside_itself(tmp_path, monkeypatch):
    shutil.copytree(config_dir(), tmp_path / "ccrl_wsi" / "configs")
    monkeypatch.setattr(config_files, "_PACKAGE", tmp_path / "ccrl_wsi")
    assert find_config("machine/slurm") == tmp_path / "ccrl_wsi/configs/machine/slurm.yaml"


@pytest.mark.parametrize("name", ["infer/21x", "", ".", "configs", "../README.md", "missing.yaml"])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ConfigError, match=r"infer/20x.*machine/slurm"):
        find_config(name)


def test_the_readme_of_the_folder_lists_exactly_its_files():
    text = (config_dir() / "README.md").read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(listed) == sorted(f"{name}.yaml" for name in config_names())


@pytest.mark.parametrize("name", config_names())
def test_a_bundled_file_says_its_purpose_and_command_and_loads(name):
    file = find_config(name)
    head = file.read_text(encoding="utf-8").splitlines()
    assert head[0].startswith("# ")
    assert head[1].startswith("#   ccrl-wsi ")
    if name.startswith("machine/"):
        assert load_machine(name).kind == name.removeprefix("machine/")
    else:
        kind = SETTINGS_OF[name.split("/")[0]]
        assert isinstance(load_tree(kind, [file]), kind)


@pytest.mark.parametrize("name", [n for n in config_names() if n.startswith("infer/")])
def test_a_bundled_file_holds_only_what_differs_from_the_defaults(name):
    tree = yaml.safe_load(find_config(name).read_text(encoding="utf-8")) or {}
    defaults = Settings().model_dump(mode="json")
    for section, values in tree.items():
        repeated = [k for k, v in values.items() if defaults[section][k] == v]
        assert not repeated, f"{section}: {repeated}"


def test_config_dir_of_a_checkout_is_its_configs_folder():
    assert config_dir() == Path(__file__).resolve().parents[1] / "configs"
