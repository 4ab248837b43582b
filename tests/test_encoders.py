"""Encoders by name: which file is meant, how its crops are cut, and what it costs."""

import subprocess
import sys

import pytest

from ccrl_wsi.config import CropSettings, EmbeddingSettings
from ccrl_wsi.embeddings import encoders
from ccrl_wsi.embeddings.checkpoint import CropRule, read_header
from ccrl_wsi.embeddings.encoders import (
    BUNDLED,
    check_encoder,
    complete_crops,
    encoder_file,
    is_light,
    make_encoder,
)
from ccrl_wsi.errors import ConfigError, ModelError
from tests.small_checkpoints import write_small_checkpoint

CCRL = EmbeddingSettings(encoder="ccrl")


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A small network in the place of the bundled one, cut by a rule of its own."""
    rule = CropRule(scale=1.5, size_px=40, mpp=0.5)
    path = write_small_checkpoint(tmp_path / "ccrl.safetensors", name="bundled", crop=rule)
    monkeypatch.setitem(encoders.BUNDLED, "ccrl", path)
    return path


@pytest.fixture
def absent(tmp_path, monkeypatch):
    monkeypatch.setitem(encoders.BUNDLED, "ccrl", tmp_path / "ccrl.safetensors")


def test_the_bundled_encoder_lies_in_the_package():
    package = encoders.__file__.rpartition("/")[0]
    assert str(BUNDLED["ccrl"]) == f"{package}/bundled/ccrl.safetensors"


@pytest.mark.skipif(not BUNDLED["ccrl"].is_file(), reason="no bundled encoder in this checkout")
def test_the_bundled_encoder_says_what_it_is_and_its_copy_for_people_agrees():
    header = read_header(BUNDLED["ccrl"])

    assert header.training["data"]
    assert header.training["licence"]
    beside = BUNDLED["ccrl"].with_suffix(".json").read_text(encoding="utf-8")
    assert type(header).model_validate_json(beside) == header
    assert make_encoder(CCRL, "cpu").name == header.name


def test_a_name_means_the_bundled_file(bundled):
    assert encoder_file("ccrl") == bundled
    assert make_encoder(CCRL, "cpu").name == "bundled"
    by_path = make_encoder(EmbeddingSettings(encoder=str(bundled)), "cpu")
    assert make_encoder(CCRL, "cpu").fingerprint == by_path.fingerprint


def test_morphology_needs_no_file():
    assert encoder_file("morphology") is None


def test_paths_are_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoder_file("~/ccrl.safetensors") == tmp_path / "ccrl.safetensors"
    assert str(encoder_file("folder/ccrl")) == "folder/ccrl"


@pytest.mark.usefixtures("absent")
def test_an_installation_without_the_file_says_so():
    for use in (
        lambda: make_encoder(CCRL, "cpu"),
        lambda: check_encoder(CCRL, CropSettings(), 0.25),
        lambda: complete_crops(CropSettings(), CCRL),
        lambda: is_light(CCRL),
    ):
        with pytest.raises(ModelError, match="lacks the encoder ccrl.*encoder=morphology"):
            use()


def test_the_bundled_encoders_rule_counts(bundled):
    check_encoder(CCRL, CropSettings(), 0.5)
    check_encoder(CCRL, CropSettings(scale=1.5, size_px=40), 0.5)
    with pytest.raises(ConfigError, match=r"Set crops\.scale=1\.5 \(now 2\), tiles\.mpp=0\.5"):
        check_encoder(CCRL, CropSettings(scale=2), 0.25)


def test_what_is_left_open_is_filled_in_as_the_encoder_asks(bundled):
    found = complete_crops(CropSettings(keep=True), CCRL)
    assert found == CropSettings(scale=1.5, size_px=40, keep=True)
    assert found.rule == (1.5, 40)


def test_encoders_that_do_not_ask_get_the_papers_rule():
    morphology = EmbeddingSettings(encoder="morphology")
    assert complete_crops(CropSettings(), morphology) == CropSettings(scale=2, size_px=32)


@pytest.mark.parametrize(("given", "rule"), [({"scale": 3}, (3.0, 40)), ({"size_px": 9}, (1.5, 9))])
def test_given_values_stay_and_are_refused_by_the_check(bundled, given, rule):
    crops = complete_crops(CropSettings(**given), CCRL)
    assert crops.rule == rule
    with pytest.raises(ConfigError, match="trained on other crops"):
        check_encoder(CCRL, crops, 0.5)


def test_rules_are_asked_for_without_torch(bundled):
    code = (
        "import sys\n"
        "from ccrl_wsi.config import CropSettings, EmbeddingSettings\n"
        "from ccrl_wsi.embeddings.encoders import complete_crops\n"
        f"print(complete_crops(CropSettings(), EmbeddingSettings(encoder={str(bundled)!r})).rule)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(1.5, 40)", "False"]


def test_small_networks_are_light_and_the_papers_is_not(bundled, tmp_path, monkeypatch):
    assert is_light(EmbeddingSettings(encoder="morphology"))
    assert is_light(CCRL)

    def as_if(arguments):
        header = read_header(bundled).model_copy(update={"arguments": arguments})
        monkeypatch.setattr(encoders, "read_header", lambda path: header)
        return is_light(CCRL)

    assert not as_if({})
    assert as_if({"widths": [24, 48, 96, 192], "stem_stride": 2})


def test_a_network_nobody_knows_is_told_before_its_cost(bundled, monkeypatch):
    header = read_header(bundled).model_copy(update={"architecture": "vit"})
    monkeypatch.setattr(encoders, "read_header", lambda path: header)
    with pytest.raises(ModelError, match="does not know"):
        is_light(CCRL)
