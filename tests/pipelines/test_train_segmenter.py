"""A segmenter is trained from folders: end to end, interrupted, refused, with bad images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.config_files import find_config
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.nuclei.compact_checkpoint import read_segmenter_header
from ccrl_wsi.nuclei.segmenters import make_segmenter
from ccrl_wsi.training.segment_settings import SegmentTrainSettings
from pipelines.cli import main
from pipelines.field_sets import gather_fields, with_paths
from pipelines.train_segmenter import train_segmenter
from tests.drawn_fields import drawn_image, save_label_maps, small_settings
from tests.image_folders import save_consep, save_image


@pytest.fixture
def folder(tmp_path):
    return save_label_maps(tmp_path / "maps", ["slideA__0_0", "slideA__9_9", "slideB__0_0"])


def settings_for(folder, *overrides, **more):
    source = {"kind": "label_maps", "path": str(folder), "mpp": 0.25, "licence": "CC0", **more}
    return small_settings(*overrides, data={"sources": [source]})


def held_out(folder, *overrides):
    """Learn from slide A, be scored on slide B."""
    source = {"kind": "label_maps", "path": str(folder), "mpp": 0.25, "licence": "CC0"}
    data = {"sources": [{**source, "only": ["slideA*"]}]}
    data["validation"] = [{**source, "only": ["slideB*"]}]
    return small_settings(*overrides, data=data)


def fields_of(settings):
    return gather_fields(settings.data, settings.network.mpp)


def test_a_trained_segmenter_is_a_segmenter(folder, tmp_path):
    trained = train_segmenter(held_out(folder), tmp_path / "out")

    header = read_segmenter_header(trained.segmenter)
    assert header.training["data"] == [{"kind": "label_maps", "folder": "maps", "licence": "CC0"}]
    assert header.training["n_steps"] == trained.n_steps == 4
    assert str(tmp_path) not in trained.segmenter.with_suffix(".json").read_text()
    (name,) = trained.scores
    assert "1 images" in name
    assert (tmp_path / "out" / "scores.csv").read_text().startswith("data,dice,aji")
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    chosen = NucleiSettings(segmenter="compact", weights=trained.segmenter)
    found = make_segmenter(chosen, "cpu")(drawn_image()[0], 0.25)
    assert found.labels.shape == (128, 128)


def test_interrupted_and_continued_it_is_the_same_training(folder, tmp_path, monkeypatch):
    import pipelines.training_run as training_run

    settings = settings_for(folder, "compute.save_every_minutes=1e-9", "compute.log_every_steps=1")
    whole = train_segmenter(settings, tmp_path / "whole").segmenter
    save = training_run.save_state

    def save_and_stop(path, step, *rest):
        save(path, step, *rest)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_run, "save_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train_segmenter(settings, tmp_path / "cut")
    monkeypatch.setattr(training_run, "save_state", save)
    cut = train_segmenter(settings, tmp_path / "cut").segmenter

    assert cut.read_bytes() == whole.read_bytes()


def test_another_training_in_the_same_folder_is_refused(folder, tmp_path):
    train_segmenter(settings_for(folder), tmp_path / "out")

    with pytest.raises(ConfigError, match=r"seed: 0 -> 1"):
        train_segmenter(settings_for(folder, "seed=1"), tmp_path / "out")
    save_label_maps(folder, ["slideC__0_0"], n_nuclei=5)
    with pytest.raises(ConfigError, match="the fields are others"):
        train_segmenter(settings_for(folder), tmp_path / "out")


def test_the_command_trains_and_prints_scores(folder, tmp_path, monkeypatch, capsys):
    tree = held_out(folder).model_dump(mode="json")
    tree["data"]["sources"][0]["path"] = "elsewhere"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    command = ["ccrl-wsi", "train-segmenter", "-c", str(tmp_path / "c.yaml")]
    command += ["-o", str(tmp_path / "out"), "--data", f"label_maps={folder}"]
    monkeypatch.setattr("sys.argv", command)

    with pytest.raises(SystemExit) as stopped:
        main()

    assert stopped.value.code == 0
    assert "PQ" in capsys.readouterr().out


def break_image(folder, how):
    files = {kind: folder / kind / "slideB__0_0.png" for kind in ("images", "labels", "unsure")}
    rgb = cv2.imread(str(files["images"]))
    specks = np.zeros(rgb.shape[:2], np.uint16)
    specks[3, 4], specks[9, 9] = 1, 2
    new = {
        "labels of another size": ("labels", np.zeros((9, 9), np.uint16)),
        "one-pixel nuclei": ("labels", specks),
        "no nuclei": ("labels", np.zeros(rgb.shape[:2], np.uint16)),
        "grey": ("images", rgb[..., 0]),
        "alpha": ("images", np.dstack([rgb, rgb[..., 0]])),
        "unsure of another size": ("unsure", np.zeros((9, 9), np.uint8)),
    }
    if how == "no labels":
        files["labels"].unlink()
    elif how == "damaged":
        files["images"].write_bytes(files["images"].read_bytes()[:100])
    else:
        kind, image = new[how]
        save_image(files[kind], image)


@pytest.mark.parametrize(
    ("how", "said", "n_left"),
    [
        ("labels of another size", "Are they of the same image", 2),
        ("no labels", "There are no labels for the image slideB__0_0", 2),
        ("damaged", "cannot be read", 2),
        ("one-pixel nuclei", "2 nuclei of fewer than 12 pixels are left out, in 1 images", 3),
        ("no nuclei", "has no nuclei: it is learned as background", 3),
        ("grey", "is grey", 3),
        ("alpha", "transparency", 3),
        ("unsure of another size", "Are they of the same image", 2),
    ],
)
def test_a_bad_image_is_told_in_a_sentence_and_the_rest_is_learned(
    folder, how, said, n_left, caplog
):
    break_image(folder, how)

    with caplog.at_level("WARNING", logger="ccrl_wsi"):
        fields = fields_of(settings_for(folder))

    assert said in caplog.text
    assert "slideB__0_0" in caplog.text
    assert len(fields) == 4 * n_left


def test_where_nothing_is_left_the_training_is_refused(folder, tmp_path):
    for path in (folder / "labels").iterdir():
        path.unlink()
    with pytest.raises(StoreError, match="No image in .* can be learned from"):
        fields_of(settings_for(folder))
    with pytest.raises(ConfigError, match="There is no folder"):
        fields_of(settings_for(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="how large a pixel is"):
        fields_of(settings_for(folder, mpp=None))


def test_images_are_chosen_by_name_and_slides_share_their_pieces(folder):
    names = fields_of(settings_for(folder)).source_names
    few = fields_of(settings_for(folder, only=["slideA__*"], without=["*_9_9"]))

    assert names == ("label_maps slideA", "label_maps slideB")
    assert len(few) == 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_unsure_is_not_learned(folder, suffix):
    unsure = np.zeros((128, 128), np.uint8)
    unsure[:64] = 255
    save_image(folder / "unsure" / f"slideB__0_0.{suffix}", unsure)

    counted = fields_of(settings_for(folder, only=["slideB*"])).targets[..., 4]

    assert (counted == 255).mean() == 0.5


@pytest.mark.parametrize("kind", ["tnbc", "monuseg", "consep"])
def test_every_kind_of_folder_is_read(tmp_path, kind):
    rgb, labels = drawn_image()
    if kind == "tnbc":
        save_image(tmp_path / "Slide" / "01_1.png", rgb)
        save_image(tmp_path / "Masks" / "01_1.png", (labels > 0).astype(np.uint8) * 255)
    elif kind == "monuseg":
        save_image(tmp_path / "images" / "a.png", rgb)
        save_image(tmp_path / "labels" / "a.png", labels.astype(np.uint16))
    else:
        types = np.ones(len(np.unique(labels)) - 1)
        save_consep(tmp_path, "train_1", labels, rgb, inst_type=types)
        save_consep(tmp_path, "test_1", labels, rgb, "Test", inst_type=types)
    source = {"kind": kind, "path": str(tmp_path), "split": "train"}

    fields = fields_of(small_settings(data={"sources": [source]}))

    assert len(fields) == 4
    # TNBC's masks do not part nuclei that touch.
    assert fields.n_nuclei >= (3 if kind == "tnbc" else 6)


def test_folders_are_named_by_kind(folder):
    data = small_settings(data={"sources": [{"kind": "tnbc"}, {"kind": "monuseg"}]}).data

    named = with_paths(data, ["monuseg=m", "tnbc=t"])

    assert [source.path.name for source in named.sources] == ["t", "m"]
    with pytest.raises(ConfigError, match="several kinds of images"):
        with_paths(data, ["somewhere"])
    with pytest.raises(ConfigError, match="0 sources of the kind consep"):
        with_paths(data, ["consep=c"])
    with pytest.raises(ConfigError, match="given twice"):
        with_paths(data, ["tnbc=a", "tnbc=b"])
    twice = small_settings(data={"sources": [{"kind": "tnbc"}, {"kind": "tnbc"}]}).data
    with pytest.raises(ConfigError, match="2 sources of the kind tnbc"):
        with_paths(twice, ["tnbc=a"])
    alone = with_paths(settings_for(folder).data, ["other"])
    assert alone.sources[0].path.name == "other"
    odd = with_paths(settings_for(folder).data, ["/data/x=1"])
    assert str(odd.sources[0].path) == "/data/x=1"


def test_what_is_scored_on_keeps_its_folder(folder):
    named = with_paths(held_out(folder).data, ["elsewhere"])

    assert named.sources[0].path.name == "elsewhere"
    assert named.validation[0].path == folder


def test_what_is_learned_from_is_not_scored_on(folder):
    source = {"kind": "label_maps", "path": str(folder), "mpp": 0.25}
    both = small_settings(data={"sources": [source], "validation": [{**source, "only": ["*B*"]}]})

    with pytest.raises(ConfigError, match="slideB__0_0 .* learned from and scored on"):
        fields_of(both)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"only": ["slideC*"]}, "No image in .* is called 'slideC"),
        ({"without": ["slideB__0_0.png"]}, "Names are without suffix"),
    ],
)
def test_a_pattern_that_fits_no_image_is_told(folder, change, said):
    with pytest.raises(ConfigError, match=said):
        fields_of(settings_for(folder, **change))


def test_scoring_that_cannot_be_done_is_told_before_the_training(folder, tmp_path):
    tree = held_out(folder).model_dump(mode="json")
    for change, said in (({"mpp": 0.5}, "network 0.25"), ({"path": "gone"}, "There is no folder")):
        tree["data"]["validation"][0] |= change
        with pytest.raises(ConfigError, match=said):
            train_segmenter(SegmentTrainSettings.model_validate(tree), tmp_path / "out")
        tree["data"]["validation"][0] |= {"mpp": 0.25}
    assert not (tmp_path / "out" / "state.safetensors").exists()


def test_a_training_goes_on_with_moved_images_and_other_licences(folder, tmp_path):
    train_segmenter(settings_for(folder), tmp_path / "out")
    moved = folder.rename(tmp_path / "moved")

    again = train_segmenter(settings_for(moved, licence="CC BY 4.0"), tmp_path / "out")

    assert read_segmenter_header(again.segmenter).training["data"][0]["licence"] == "CC BY 4.0"


def test_specks_are_neither_nucleus_nor_background(folder):
    break_image(folder, "one-pixel nuclei")

    fields = fields_of(settings_for(folder))
    targets = fields.targets[fields.source == fields.source_names.index("label_maps slideB")]

    assert (targets[..., 4] == 0).sum() == 2
    assert (targets[..., 0] > 0).sum() == 0


def test_images_much_finer_than_the_network_are_averaged(folder):
    fine = fields_of(settings_for(folder, "network.mpp=0.5"))

    assert (fine.mpp == 0.5).all()
    assert len(fine) == 3
    image = cv2.imread(str(folder / "images" / "slideA__0_0.png"))[..., ::-1]
    blocks = image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(fine.rgb[0] - blocks).max() <= 1


@pytest.mark.parametrize("name", ["segment/compact", "segment/own_labels", "segment/smoke"])
def test_settings_files_are_valid(name):
    from ccrl_wsi.settings_tree import load_tree

    settings = load_tree(SegmentTrainSettings, [find_config(name)])

    assert settings.schedule.epochs > settings.schedule.warmup_epochs


@pytest.mark.parametrize("override", ["views.zoom=[2, 1]", "schedule.warmup_epochs=9"])
def test_impossible_settings_are_refused(override):
    with pytest.raises(ConfigError):
        small_settings(override)
