"""Evaluations from end to end: what is fitted on what, what is written, what goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.io

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import EvaluationError
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.settings_tree import load_tree
from pipelines import embedders
from pipelines.evaluate import Cells, evaluate, with_same_classes
from pipelines.evaluation_report import record, score_rows, scores_page, write_report
from tests.drawn_crops import coloured_crops
from tests.pipelines.test_bad_input import call
from tests.small_checkpoints import small_header, small_state, write_small_checkpoint

QUICK = ("n_seeds=2", "n_init=1", "pictures.draw=false", "pixel_components=5")
COLORS = {1: (90, 40, 40), 2: (40, 40, 120), 3: (160, 60, 160)}
"""Of nuclei, by type."""


class Drawn:
    """Gives drawn crops by the split, and remembers what it was asked for."""

    def __init__(self, change=lambda crops, data: crops):
        self.asked, self.change = [], change

    def __call__(self, data, seed) -> CropSet:
        self.asked.append(data)
        n, seed = {"train": (48, 1), "test": (30, 2), "all": (9, 3)}[data.split]
        crops = coloured_crops(n, seed=seed, side=data.size_px)
        return self.change(replace(crops, scale=data.scale), data)


def settings_of(*overrides):
    return load_tree(EvaluateSettings, overrides=[*QUICK, *overrides])


def rows_by_metric(evaluation, reading):
    return {(r.encoder, r.metric): r for r in score_rows(evaluation) if r.reading == reading}


def test_both_readings_and_probes_of_two_encoders():
    drawn = Drawn()
    evaluation = evaluate(settings_of("encoders=[pixels,morphology]"), drawn)
    assert evaluation.exit_code == 0
    assert [data.split for data in drawn.asked] == ["train", "test"]
    for reading, n_fit in (("fitted_on_test", 30), ("fitted_on_train", 48)):
        rows = rows_by_metric(evaluation, reading)
        assert len(rows) == 8
        assert float(rows["pixels", "ari"].mean) == pytest.approx(1)
        assert abs(float(rows["morphology", "ari"].mean)) < 0.5  # drawn at random
        assert {(r.n_fit, r.n_scored, r.k, r.n_seeds) for r in rows.values()} == {
            (n_fit, 30, "3", 2)
        }
        assert {r.uses_labels for r in rows.values()} == {"no"}
    probes = rows_by_metric(evaluation, "probe")
    assert {r.uses_labels for r in probes.values()} == {"yes"}
    assert float(probes["pixels", "label_probe_linear_accuracy"].mean) == 1
    assert (probes["pixels", "label_probe_1nn_accuracy"].n_fit) == 48


def test_pixels_are_fitted_on_what_k_means_is_fitted_on():
    evaluation = evaluate(settings_of("encoders=[pixels]"), Drawn())
    (result,) = evaluation.results
    by_test, by_train = (judged.fingerprint for judged in result.judged)
    assert by_test != by_train


def test_on_train_never_opens_the_test_images():
    drawn = Drawn()
    evaluation = evaluate(settings_of("encoders=[pixels]", "on_train=true"), drawn)
    assert [data.split for data in drawn.asked] == ["train"]
    rows = rows_by_metric(evaluation, "train_only")
    assert (rows["pixels", "ami"].n_fit, rows["pixels", "ami"].n_scored) == (48, 48)
    probe = rows_by_metric(evaluation, "probe")["pixels", "label_probe_1nn_accuracy"]
    assert probe.n_fit + probe.n_scored == 48
    page = scores_page(evaluation)
    assert "24.2" not in page
    assert "Training cells only" in page


def test_only_what_is_needed_is_read():
    drawn = Drawn()
    evaluate(settings_of("encoders=[pixels]", "readings=[fitted_on_test]", "probes=false"), drawn)
    assert [data.split for data in drawn.asked] == ["test"]


def test_folders_without_a_split_are_two_folders(tmp_path):
    drawn = Drawn()
    settings = settings_of(
        "encoders=[pixels]", "data.kind=label_maps", "data.path=here", "test_path=there"
    )
    evaluate(settings, drawn)
    assert [str(data.path) for data in drawn.asked] == ["here", "there"]


def test_a_checkpoint_gets_the_crops_it_was_trained_on(tmp_path):
    path = write_small_checkpoint(tmp_path / "small.safetensors")
    drawn = Drawn()
    settings = settings_of(f"encoders=[{path},pixels]", "data.scale=1.5", "data.size_px=16")
    evaluation = evaluate(settings, drawn)
    assert [(data.scale, data.size_px, data.split) for data in drawn.asked] == [
        (2.0, 32, "train"),
        (2.0, 32, "test"),
        (1.5, 16, "train"),
        (1.5, 16, "test"),
    ]
    small = evaluation.results[0]
    assert small.name == "small"
    assert len({judged.fingerprint for judged in small.judged}) == 1
    tree = record(evaluation)["encoders"][0]
    assert tree["training"] == {"data": "CoNSeP", "epochs": 500}
    assert tree["crops"] == {"scale": 2.0, "size_px": 32, "mpp": 0.25}


def test_two_checkpoints_of_one_name_are_told_apart(tmp_path):
    paths = [write_small_checkpoint(tmp_path / f"{x}.safetensors") for x in "ab"]
    evaluation = evaluate(settings_of(f"encoders=[{paths[0]},{paths[1]}]"), Drawn())
    assert [result.name for result in evaluation.results] == [str(path) for path in paths]


def test_an_encoder_that_cannot_be_used_does_not_stop_the_others(tmp_path):
    from ccrl_wsi.embeddings.checkpoint import CropRule, save_checkpoint

    other = tmp_path / "other.safetensors"
    rule = CropRule(scale=2.0, size_px=32, mpp=0.5)
    save_checkpoint(other, small_state(), small_header(name="coarse", crop=rule))
    pickle = tmp_path / "model.pt"
    pickle.write_bytes(b"PK\x03\x04")
    missing = tmp_path / "missing.safetensors"
    wanted = f"encoders=[{missing},misspelt,{pickle},{other},pixels]"
    evaluation = evaluate(settings_of(wanted), Drawn())
    assert evaluation.exit_code == 1
    assert [result.name for result in evaluation.results] == ["pixels"]
    reasons = {failure.asked: failure.reason for failure in evaluation.failures}
    assert "no checkpoint" in reasons[str(missing)]
    assert "There are pixels, untrained, morphology" in reasons["misspelt"]
    assert "pickle" in reasons[str(pickle)]
    assert "trained at 0.5 um per pixel; these images have 0.25" in reasons[str(other)]
    page = scores_page(evaluation)
    assert all(reason in page for reason in reasons.values())


def without_labels(crops, data):
    return replace(crops, label=np.full(len(crops), -1, np.int32))


def of_one_class(crops, data):
    return replace(crops, label=np.zeros(len(crops), np.int32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_labels, "None of the 48 training cells has a class"),
        (of_one_class, r"All 48 training cells are of one class \(class_0\)"),
        (lambda c, d: without_labels(c, d) if d.split == "test" else c, "None of the 30 test"),
    ],
)
def test_data_that_cannot_be_scored_stop_everything(change, words):
    with pytest.raises(EvaluationError, match=words):
        evaluate(settings_of("encoders=[pixels]"), Drawn(change))


def test_fewer_cells_than_clusters_are_told():
    settings = settings_of("encoders=[pixels]", "k=40", "readings=[fitted_on_test]")
    evaluation = evaluate(settings, Drawn())
    assert "30 different cells cannot make 40 clusters" in evaluation.failures[0].reason


def test_classes_are_matched_by_name_even_if_one_part_lacks_some():
    train = coloured_crops(9, names=("a", "b", "c"))
    test = coloured_crops(8, n_classes=2, names=("c", "b"))
    same = with_same_classes(Cells(train, test))
    assert same.train.class_names == same.test.class_names == ("a", "b", "c")
    assert same.train.label.tolist() == train.label.tolist()
    assert same.test.label.tolist() == [2, 1] * 4


def test_the_untrained_network_is_the_papers():
    few = lambda crops, data: crops.where(np.arange(9))  # noqa: E731
    settings = settings_of("encoders=[untrained]", "device=cpu", "readings=[fitted_on_test]")
    evaluation = evaluate(settings, Drawn(few))
    (result,) = evaluation.results
    assert result.judged[0].vectors.shape == (9, 512)
    assert result.judged[0].mean("ari") == pytest.approx(1)


def test_equal_evaluations_write_equal_files(tmp_path):
    settings = settings_of("encoders=[pixels]", "pictures.draw=true", "readings=[fitted_on_test]")
    names = ("scores.md", "confusion.csv", "pictures/pixels-fitted_on_test-gallery.png")
    for name in ("one", "two"):
        write_report(evaluate(settings, Drawn()), tmp_path / name)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert len(list((tmp_path / "one" / "pictures").iterdir())) == 3


def test_a_checkpoint_that_saw_the_test_images_is_named():
    evaluation = evaluate(settings_of("encoders=[pixels]"), Drawn())
    (result,) = evaluation.results
    assert "include the test's" not in scores_page(evaluation)
    kind = evaluation.settings.data.kind
    for data, has_seen in [
        ({"kind": kind, "split": "all"}, True),
        ({"kind": kind, "split": "train"}, False),
        ({"kind": "label_maps", "split": "all"}, False),
    ]:
        assert is_told(evaluation, result, data) == has_seen


@pytest.mark.parametrize(("fold", "has_seen"), [(1, False), (2, True)])
def test_training_cells_of_one_fold_are_test_cells_of_another(fold, has_seen):
    settings = settings_of("encoders=[pixels]", "data.kind=nucls", "data.fold=1")
    evaluation = evaluate(settings, Drawn())
    data = {"kind": "nucls", "split": "train", "fold": fold}
    assert is_told(evaluation, evaluation.results[0], data) == has_seen


def is_told(evaluation, result, data) -> bool:
    """Whether the page names an encoder that was trained on these data."""
    told = replace(result.candidate, training={"settings": {"data": data}})
    seen = replace(evaluation, results=(replace(result, candidate=told),))
    return "`pixels` records that it was trained on images which include" in scores_page(seen)


def test_every_baseline_says_what_it_is():
    assert set(embedders.BASELINES) == {"pixels", "untrained"}


def draw_tile(folder, name, seed):
    """A tile in CoNSeP's form: dots in the colour of their type on pink."""
    rng = np.random.default_rng(seed)
    rgb = np.full((120, 120, 3), (235, 190, 215), np.uint8)
    labels, types = np.zeros((120, 120), np.float64), []
    for number, (row, column) in enumerate(np.ndindex(5, 5), start=1):
        kind = 1 + int(rng.integers(3))
        centre = (12 + 24 * column, 12 + 24 * row)
        radius = 3 + 2 * kind + int(rng.integers(2))
        for image, value in ((rgb, COLORS[kind]), (labels, number)):
            cv2.circle(image, centre, radius, value, -1)
        types.append([kind])
    rgb = np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)
    kinds = np.concatenate([[0], np.ravel(types)])[labels.astype(int)]
    for part in ("Images", "Labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "Images" / f"{name}.png"), rgb[..., ::-1])
    content = {"inst_map": labels, "type_map": kinds.astype(float), "inst_type": np.array(types)}
    scipy.io.savemat(folder / "Labels" / f"{name}.mat", content)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    root = tmp_path_factory.mktemp("consep")
    for number in range(3):
        draw_tile(root / "Train", f"train_{number + 1}", number)
    draw_tile(root / "Test", "test_1", 9)
    return root


def test_the_command_on_tiles_in_the_form_of_consep(monkeypatch, capfd, tiles, tmp_path):
    checkpoint = write_small_checkpoint(tmp_path / "small.safetensors")
    out = tmp_path / "out"
    names = ["pixels", "morphology", checkpoint, "nothing"]
    code, said = call(
        monkeypatch, capfd, "evaluate", *names, "-c", "evaluate/consep",
        "-o", out, "--data", tiles, "--set", "k=3", "--set", "n_seeds=2",
    )  # fmt: skip
    assert code == 1
    assert "Traceback" not in said
    assert "Unknown encoder 'nothing'" in said
    assert "| CCRL, as printed in its paper | not said | 24.2 | 21.7 | 51.8 |" in said
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (2 * 4 + 4)
    found = {(r["encoder"], r["reading"], r["metric"]): float(r["mean"]) for r in rows}
    for reading in ("fitted_on_test", "fitted_on_train"):
        assert found["pixels", reading, "purity"] > 0.7  # the largest class has less than half
        assert found["morphology", reading, "purity"] > 0.9
    with (out / "confusion.csv").open() as file:
        counts = [r for r in csv.DictReader(file) if r["encoder"] == "small"]
    assert sum(int(r["n_cells"]) for r in counts if r["reading"] == "fitted_on_test") == 25
    assert {r["class"] for r in counts} == {"misc", "inflammatory", "epithelial", "spindle"}
    about = json.loads((out / "evaluation.json").read_text())
    assert [e["name"] for e in about["encoders"]] == ["pixels", "morphology", "small"]
    assert about["encoders"][2]["training"]["data"] == "CoNSeP"
    assert list(about["failures"]) == ["nothing"]
    assert load_tree(EvaluateSettings, base=about["settings"]).k == 3
    assert (out / "pictures" / "small-fitted_on_train-embedding.png").stat().st_size > 1000


def test_the_command_on_training_tiles_alone(monkeypatch, capfd, tiles, tmp_path):
    only = tmp_path / "data"
    (only).mkdir()
    (only / "Train").symlink_to(tiles / "Train")
    code, said = call(
        monkeypatch, capfd, "evaluate", "morphology", "-o", tmp_path / "out", "--data", only,
        "--on-train", "--set", "pictures.draw=false", "--set", "n_seeds=2",
    )  # fmt: skip
    assert code == 0, said
    assert "k-means fitted and scored on train" in said


def test_what_evaluate_needs_is_said_where_nothing_was_given(monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, said = call(monkeypatch, capfd, "evaluate", "-o", tmp_path / "out")
    assert (code, "--data FOLDER for CoNSeP" in said, "data/consep" in said) == (2, True, False)


def test_a_folder_that_is_not_there_is_one_sentence(monkeypatch, capfd, tmp_path):
    code, said = call(
        monkeypatch, capfd, "evaluate", "pixels", "-o", tmp_path / "out", "--data", tmp_path / "no"
    )
    assert code == 2
    assert "There is no folder" in said
    assert not (tmp_path / "out").exists()
