"""Settings: merged in order, misspelt keys refused, and a fingerprint of what decides cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ccrl_wsi.cell_identity import CELL_SECTIONS, NOT_IN_CELLS, cell_settings, fingerprint
from ccrl_wsi.config import (
    Section,
    Settings,
    load_settings,
    with_absolute_paths,
)
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.settings_tree import differences

READY = load_settings(overrides=["crops.scale=2", "crops.size_px=32"])
"""With everything that is hashed; an encoder was asked how crops are cut."""


def write(folder, name, text):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def leaves(section: Section, prefix: str = ""):
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_later_files_win_and_overrides_win_over_files(tmp_path):
    first = write(tmp_path, "a.yaml", "tiles:\n  mpp: 0.5\n  core_px: 512\nseed: 1\n")
    second = write(tmp_path, "b.yaml", "tiles:\n  mpp: 1.0\n")

    settings = load_settings([first, second], ["seed=2"])

    assert (settings.tiles.mpp, settings.tiles.core_px, settings.seed) == (1.0, 512, 2)
    assert settings.nuclei == Settings().nuclei


def test_an_empty_file_changes_nothing(tmp_path):
    assert load_settings([write(tmp_path, "a.yaml", "# nothing\n")]) == Settings()


@pytest.mark.parametrize(
    ("override", "sentence"),
    {
        "tiles.corepx=3": r"tiles\.corepx: no such setting",
        "tile.core_px=64": r"tile: no such setting",
        "tiles=3": "tiles: ",
        "tiles.core_px": "write it as key=value",
        "=3": "write it as key=value",
        "tiles.core_px=100": "multiple of 8",
        "slides.mpp=.inf": r"slides\.mpp: .*finite",
        "tissue.method=geojson": "belong together",
        "slides.mpp=99": r"slides\.mpp=99 is not between slides\.min_mpp=0\.05 and slides\.max",
        "slides.min_mpp=5": r"slides\.min_mpp=5 is not below slides\.max_mpp=4",
        "tissue.min_chroma=0.2": r"min_chroma=0\.2 is not below tissue\.max_chroma=0\.08",
        "nuclei.min_area_um2=2000": r"=2000 is not below nuclei\.max_area_um2=1500",
        "overlay.measurements=[aera_um2]": "no measurement 'aera_um2'; there are area_um2,",
    }.items(),
)
def test_a_wrong_override_is_one_sentence_with_its_key(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_settings(overrides=[override])


@pytest.mark.parametrize(
    ("text", "sentence"),
    {"- tiles\n": "must hold sections", "tiles: [\n": "not valid YAML"}.items(),
)
def test_a_wrong_file_is_named(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=rf"a\.yaml.*{sentence}"):
        load_settings([write(tmp_path, "a.yaml", text)])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: No such file"):
        load_settings([tmp_path / "gone.yaml"])


@pytest.mark.parametrize(("word", "meant"), [("yes", "yes"), ("no", "no"), ("auto", "auto")])
def test_yes_and_no_need_no_quotes(word, meant):
    settings = load_settings(overrides=[f"clusters.standardise={word}"])
    assert settings.clusters.standardise == meant


def test_a_halo_smaller_than_the_watersheds_window_is_refused():
    small = ["tiles.halo_um=10"]
    assert load_settings(overrides=small).tiles.halo_um == 10
    with pytest.raises(ConfigError, match="depend on the tile"):
        load_settings(overrides=[*small, "nuclei.segmenter=watershed"])


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().tiles.mpp = 1.0


def test_every_setting_says_what_it_means():
    def undescribed(section: Section, prefix: str = ""):
        for name, field in type(section).model_fields.items():
            value = getattr(section, name)
            if isinstance(value, Section):
                yield from undescribed(value, f"{prefix}{name}.")
            elif not field.description:
                yield f"{prefix}{name}"

    assert list(undescribed(Settings())) == []


def changed(settings: Settings, key: str, value: object = "another value") -> Settings:
    """The settings with another value at ``key``, whether it would be allowed or not."""
    section, _, rest = key.partition(".")
    if rest:
        inner = changed(getattr(settings, section), rest, value)
        return settings.model_copy(update={section: inner})
    return settings.model_copy(update={section: value})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("key", list(leaves(READY)))
def test_the_fingerprint_changes_with_what_decides_cells_and_with_nothing_else(key):
    differs = fingerprint(changed(READY, key)) != fingerprint(READY)
    section, _, name = key.partition(".")
    is_asked_elsewhere = name in NOT_IN_CELLS.get(section, ())
    assert differs == (section in CELL_SECTIONS and not is_asked_elsewhere)


def test_windows_that_suit_the_device_leave_older_results_valid():
    assert READY.nuclei.window_px is None
    assert fingerprint(changed(READY, "nuclei.window_px", 1024)) == fingerprint(READY)


def test_the_fingerprint_changes_with_the_slide():
    prints = {fingerprint(READY, extra=slide) for slide in ("", "one", "two")}
    assert len(prints) == 3
    assert all(len(digits) == 16 for digits in prints)


@pytest.mark.parametrize("left_open", ["crops.scale", "crops.size_px"])
def test_nothing_is_hashed_before_the_encoder_was_asked_how_crops_are_cut(left_open):
    settings = changed(READY, left_open, None)

    with pytest.raises(ValueError, match="ask the encoder first"):
        fingerprint(settings)
    with pytest.raises(ValueError, match="ask the encoder first"):
        _ = settings.crops.rule
    assert READY.crops.rule == (2.0, 32)


def test_cells_of_folders_made_with_explicit_rules_are_known_by_the_same_text():
    text = json.dumps(cell_settings(READY)["crops"], sort_keys=True)
    assert text == '{"keep": false, "scale": 2.0, "size_px": 32}'


def test_differences_name_every_leaf_that_is_not_the_same():
    old = {"tiles": {"mpp": 0.25, "core_px": 64}, "gone": 1}
    new = {"tiles": {"mpp": 0.5, "core_px": 64}, "new": 2}
    assert differences(old, new) == ["gone: 1 -> None", "new: None -> 2", "tiles.mpp: 0.25 -> 0.5"]
    assert differences(old, old) == []


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["nuclei.weights=w.pth", "embedding.encoder=e.safetensors", "clusters.codebook=c"]
    absolute = with_absolute_paths(load_settings(overrides=given))
    assert absolute.nuclei.weights == tmp_path / "w.pth"
    assert absolute.embedding.encoder == str(tmp_path / "e.safetensors")
    assert absolute.clusters.codebook == tmp_path / "c"
    assert with_absolute_paths(Settings()) == Settings()


@pytest.mark.parametrize(
    ("encoder", "absolute"),
    [("ccrl", False), ("morphology", False), ("e.safetensors", True), ("folder/e", True)],
)
def test_paths_of_encoders_become_absolute_and_their_names_stay(encoder, absolute):
    settings = load_settings(overrides=[f"embedding.encoder={encoder}"])
    found = with_absolute_paths(settings).embedding.encoder
    assert found == (str(Path(encoder).absolute()) if absolute else encoder)


def test_results_from_before_encoders_had_a_precision_stay_valid():
    cells = cell_settings(READY)
    assert "precision" not in cells["embedding"]  # It is in the encoder's own fingerprint.
    assert "align_to_file" not in cells["tiles"]
