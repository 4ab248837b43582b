"""What the README names exists."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
import typer.main

from ccrl_wsi import __version__
from ccrl_wsi.config import Settings, load_settings
from ccrl_wsi.config_files import find_config
from pipelines.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "configs/README.md"]
TEXT = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in PAPERS)
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_table_of_commands_is_the_programs():
    listed = re.findall(r"^\| `ccrl-wsi ([\w-]+)", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_every_option_of_a_command_exists():
    for line in re.findall(r"`?(ccrl-wsi [^`\n]+)", TEXT):
        name = line.split()[1]
        if name.startswith("-"):
            continue
        known = {option for p in COMMANDS[name].params for option in p.opts}
        used = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", line))
        assert used <= known, line


@pytest.mark.parametrize("name", sorted(set(re.findall(r"-c (infer/\w+)", TEXT))))
def test_every_settings_file_exists(name):
    assert find_config(name).is_file()


@pytest.mark.parametrize("override", sorted(set(re.findall(r"--set (\w+\.\w+=\S*\w)", TEXT))))
def test_every_setting_exists(override):
    assert isinstance(load_settings([], [override]), Settings)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_linked_file_exists(paper):
    text = (ROOT / paper).read_text(encoding="utf-8")
    links = re.findall(r"(?<!!)\[[^]]*\]\((?!http)([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / paper).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)\b", README))))
def test_every_make_target_exists(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_every_folder_of_the_tree_exists():
    folders = re.findall(r"^(\w+)/ +\w", README, flags=re.MULTILINE)
    assert {"ccrl_wsi", "pipelines", "configs", "tests", "benchmarks"} <= set(folders)
    assert [name for name in folders if not (ROOT / name).is_dir()] == []


def test_the_version_is_the_same_everywhere():
    assert metadata.version("ccrl-wsi") == __version__
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
