"""The paper's tables: rows, honest gaps, files, the command."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.measurement_names import SHAPE_NAMES
from ccrl_wsi.settings_tree import load_tree
from pipelines import paper_tables
from pipelines.cli import app
from pipelines.cli_learning import _data_overrides
from pipelines.paper_table_record import merged, read_rows, recorded
from pipelines.paper_table_report import table_csv, table_page, write_table
from pipelines.paper_tables import (
    FilledRow,
    TablePlan,
    chosen_rows,
    given_rows,
    make_table,
    paper_scores,
    training_seconds,
)
from tests.drawn_crops import coloured_crops
from tests.small_checkpoints import small_header

QUICK = ("n_seeds=2", "n_init=1", "probes=false", "pixel_components=5", "device=cpu")
SMALL = ("untrained_widths=[8,8]", "untrained_stem_stride=2")


def gather(data, seed) -> CropSet:
    n, seed = {"train": (48, 1), "test": (30, 2)}[data.split]
    crops = replace(coloured_crops(n, seed=seed, side=data.size_px), scale=data.scale)
    if not data.shapes:
        return crops
    shapes = np.tile(crops.label[:, None], (1, len(SHAPE_NAMES)))  # as different as classes are
    return replace(crops, measurements=np.hstack([crops.measurements, shapes]).astype(np.float32))


def settings_of(*overrides):
    return load_tree(EvaluateSettings, [], [*QUICK, *SMALL, *overrides])


def filled(tmp_path, given, number=2, schedule=None, settings=None):
    told = []
    rows = make_table(
        TablePlan(number, dict.fromkeys(given) if isinstance(given, list) else given, schedule),
        settings or settings_of(),
        tmp_path,
        lambda rows: told.append(len(rows)),
        gather,
    )
    assert told == list(range(1, len(rows) + 1))
    return {row.row.name: row for row in rows}


def lines_of(rows):
    return list(csv.DictReader(io.StringIO(table_csv([recorded(row) for row in rows.values()]))))


def test_rows_without_training_have_both_readings_beside_the_papers_value(tmp_path):
    rows = filled(tmp_path, ["pixels", "morphological", "untrained"])
    assert list(rows) == ["morphological", "untrained", "pixels"]  # the table's order
    lines = lines_of(rows)
    assert len(lines) == 3 * 2 * 3
    first = lines[0]
    assert (first["row"], first["metric"], first["paper"]) == ("morphological", "ami", "12.7")
    assert float(first["ours"]) == pytest.approx(100)
    assert {line["paper"] for line in lines if line["row"] == "pixels"} == {""}
    assert {(line["n_fit"], line["n_scored"]) for line in lines} == {("30", "30"), ("48", "30")}
    assert all("CPU" in line["hardware"] and float(line["seconds"]) >= 0 for line in lines)


def test_a_row_that_cannot_run_says_why_and_has_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_tables, "_has_gpu", lambda settings: False)
    gone = str(tmp_path / "gone.pth")
    rows = filled(tmp_path, {"imagenet": gone, "dcae": None, "infogan": None, "pixels": None})
    assert "There is no weight file" in rows["imagenet"].could_not
    assert "No GPU" in rows["dcae"].could_not
    assert "--schedule cpu" in rows["infogan"].could_not
    for line in lines_of(rows):
        has_reason = bool(line["could_not_run"])
        assert has_reason == (line["row"] != "pixels")
        assert bool(line["ours"]) != has_reason
    page = table_page(2, [recorded(row) for row in rows.values()], settings_of())
    assert "could not run: No GPU" in page
    assert "CPU SCHEDULE" not in page


@pytest.fixture
def dcae_file(tmp_path):
    return save_dcae(tmp_path / "dcae.safetensors")


def save_dcae(path, *, placed=True, data=None, **more):
    import torch

    from ccrl_wsi.embeddings.checkpoint import save_checkpoint
    from ccrl_wsi.embeddings.network import build_network

    arguments = {"n_dimensions": 6, "n_clusters": 3, "widths": [8, 8, 8]}
    torch.manual_seed(0)
    network = build_network("dcae_encoder", arguments)
    header = small_header(
        name="dcae",
        architecture="dcae_encoder",
        arguments=arguments,
        n_dimensions=6,
        training={"n_steps": 7, "settings": {"schedule": {"batch_size": 9}, "data": data or {}}},
        **more,
    )
    crops = coloured_crops(3, side=32, noise=0)
    mean, std = (np.array(values) for values in (header.mean, header.std))
    pixels = ((crops.crops / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.no_grad():  # a centre where each class lies
        if placed:
            network.centres.copy_(network(torch.tensor(pixels, dtype=torch.float32)))
    save_checkpoint(path, network.state_dict(), header)
    return path


def test_a_given_file_is_scored_by_its_own_clusters_too(tmp_path, dcae_file):
    (row,) = filled(tmp_path, {"dcae": str(dcae_file)}).values()
    assert row.own is not None
    assert row.own.scores.ari == pytest.approx(1)
    assert "as given: dcae.safetensors, 7 steps of 9" in row.source.schedule
    own = [line for line in lines_of({"dcae": row}) if line["reading"] == "its own clusters"]
    assert [line["n_seeds"] for line in own] == ["", "", ""]
    assert {(line["k"], line["encoder"]) for line in own} == {("3", "dcae")}
    assert recorded(row).given == str(dcae_file)
    assert [line["paper"] for line in own] == ["10.1", "7.3", "50.5"]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"placed": False}, "were never placed"),
        ({"unit_length": True}, "export.unit_length=false"),
        ({"data": {"kind": "consep", "split": "all"}}, "has seen cells that it would be judged by"),
        ({"data": {"kind": "consep", "split": "test"}}, "data.split=test"),
    ],
)
def test_a_file_that_cannot_be_judged_fairly_is_refused(tmp_path, made, told):
    path = save_dcae(tmp_path / "dcae.safetensors", **made)
    (row,) = filled(tmp_path, {"dcae": str(path)}).values()
    assert told in row.could_not


def test_the_cells_a_file_learned_from_are_told(tmp_path):
    for data, told in (
        ({"kind": "consep", "split": "train"}, "on consep, train cells"),
        ({"kind": "nucls", "split": "all", "fold": 2}, "on nucls, all cells"),
        ({"kind": "run"}, "on run"),
    ):
        path = save_dcae(tmp_path / "dcae.safetensors", data=data)
        (row,) = filled(tmp_path, {"dcae": str(path)}).values()
        assert row.source.schedule.endswith(told)


def test_another_fold_of_nucls_has_seen_the_test_cells(tmp_path):
    data = {"kind": "nucls", "split": "train", "fold": 2}
    path = save_dcae(tmp_path / "dcae.safetensors", data=data)
    settings = settings_of("data.kind=nucls")
    (row,) = filled(tmp_path, {"dcae": str(path)}, settings=settings).values()
    assert "data.fold=2" in row.could_not


def test_a_row_says_how_its_encoder_departs_from_the_paper(tmp_path):
    rows = list(filled(tmp_path, ["ccrl", "untrained"], schedule="cpu").values())
    assert [row.could_not for row in rows] == ["", ""]
    page = table_page(2, [recorded(row) for row in rows], settings_of())
    assert "widths 8, 8; stem stride 2" in page
    for said in ("export.unit_length: False -> True", "export.size_weight: 0.0 -> 0.5"):
        assert said in page
    for said in ("loss.queue_size: 65536 -> 8192", "network.stem_stride: 1 -> 2"):
        assert said in page


def test_points_are_learned_without_a_size_and_an_unexpected_error_stops_one_row(
    tmp_path, monkeypatch
):
    asked = []

    def train(settings, out):
        asked.append(settings)
        raise ValueError("area_um2 of nucleus 0 is nan")

    monkeypatch.setattr("pipelines.train.train_encoder", train)
    settings = settings_of("data.kind=crc", "data.path=crc")
    rows = filled(tmp_path, ["ccrl", "pixels"], schedule="cpu", settings=settings)
    assert "area_um2 of nucleus 0 is nan" in rows["ccrl"].could_not
    assert rows["pixels"].judged
    assert (asked[0].data.kind, asked[0].export.size_weight) == ("crc", 0)
    assert asked[0].export.unit_length
    assert "name" in asked[0].export.model_fields_set


def test_an_error_of_a_training_names_the_command_that_takes_settings(tmp_path, monkeypatch):
    def train(settings, out):
        raise ConfigError("Set schedule.batch_size=48 or less.")

    monkeypatch.setattr("pipelines.train.train_encoder", train)
    (row,) = filled(tmp_path, ["dcae"], schedule="cpu").values()
    assert "`ccrl-wsi train -c train/dcae_cpu --set ...`" in row.could_not
    assert "dcae=FILE" in row.could_not


def test_a_row_named_twice_is_refused():
    assert given_rows(["dcae=a=b", "pixels"]) == {"dcae": "a=b", "pixels": None}
    with pytest.raises(ConfigError, match="dcae is named twice"):
        given_rows(["dcae", "dcae=FILE"])


def test_a_file_of_another_method_is_not_taken_for_the_rows(tmp_path, dcae_file):
    given = {"infogan": str(dcae_file), "pixels": str(dcae_file)}
    rows = filled(tmp_path, given)
    assert "holds dcae_encoder; the row infogan takes infogan_critic" in rows["infogan"].could_not
    assert "pixels is not trained" in rows["pixels"].could_not


def test_what_must_be_trained_is_trained_by_the_named_schedule(tmp_path, monkeypatch):
    asked = []

    def train(settings, out):
        asked.append((settings, out))
        raise ConfigError("enough")

    monkeypatch.setattr("pipelines.train.train_encoder", train)
    settings = settings_of("seed=3")
    filled(tmp_path, ["dcae", "infogan"], schedule="cpu", settings=settings)
    (dcae, folder), (infogan, _) = asked
    assert (dcae.method, dcae.seed, dcae.dcae.n_clusters) == ("dcae", 3, 3)
    assert (infogan.method, infogan.infogan.n_codes) == ("infogan", 3)
    assert dcae.data == settings.data
    assert folder == tmp_path / "encoders" / "dcae_cpu"
    asked.clear()
    filled(tmp_path, ["no_predictor", "no_local_global"], 3, "cpu")
    changed = [(s.network.predictor, s.views.cropped) for s, _ in asked]
    assert changed == [(32, "both"), (None, "one")]


def test_table_3_needs_a_gpu_or_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_tables, "_has_gpu", lambda settings: False)
    with pytest.raises(ConfigError, match="--schedule cpu"):
        filled(tmp_path, [], 3)


def test_rows_and_tables_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="tables of scores are 2 and 3"):
        chosen_rows(TablePlan(4, {}, None))
    with pytest.raises(ConfigError, match="no row 'dacae'.*imagenet, imagenet50"):
        chosen_rows(TablePlan(2, {"dacae": None}, None))
    assert len(chosen_rows(TablePlan(2, {}, None))) == 9


def test_the_papers_ablations_stand_beside_nucls_only():
    assert paper_scores(3, "no_predictor", "nucls").ami == 22.0
    assert paper_scores(3, "no_predictor", "consep") is None
    assert paper_scores(3, "ccrl", "consep").ami == 24.2
    assert paper_scores(2, "infogan", "crc") is None


def test_the_time_of_a_training_is_that_of_its_steps():
    metrics = {"step": np.array([0, 10, 14]), "crops_per_second": np.array([4.0, 20, 16])}
    assert training_seconds(metrics, 8) == pytest.approx(1 * 8 / 4 + 10 * 8 / 20 + 4 * 8 / 16)


def test_files_are_a_table_a_page_a_figure_and_a_record(tmp_path):
    rows = list(filled(tmp_path, ["pixels", "manual"]).values())
    write_table(2, rows, settings_of(), tmp_path)
    for suffix in ("csv", "md", "png", "json"):
        assert (tmp_path / f"table2.{suffix}").stat().st_size > 100
    page = (tmp_path / "table2.md").read_text()
    assert "| manual | k-means on test |" in page
    assert "| 9.5 | 6.4 | 45.5 |" in page
    assert "What had to be chosen" in page


def test_a_second_call_adds_rows_and_loses_none(tmp_path):
    settings = settings_of()
    write_table(2, list(filled(tmp_path, ["pixels", "manual"]).values()), settings, tmp_path)
    write_table(2, list(filled(tmp_path, ["morphological"]).values()), settings, tmp_path)
    rows = read_rows(tmp_path / "table2.json", settings)
    assert [row.name for row in rows] == ["morphological", "manual", "pixels"]
    assert (tmp_path / "table2.csv").read_text() == table_csv(rows)
    lines = list(csv.DictReader((tmp_path / "table2.csv").open()))
    assert {line["k"] for line in lines} == {"3"}
    assert len({line["fingerprint"] for line in lines if line["row"] == "manual"}) == 1
    assert all(line["fingerprint"] and line["encoder"] == line["row"] for line in lines)


def test_numbers_are_not_lost_to_a_row_that_could_not_run(tmp_path):
    (good,) = filled(tmp_path, ["pixels"]).values()
    good, bad = recorded(good), recorded(FilledRow(good.row, None, could_not="no luck"))
    assert merged(2, [good], [bad]) == [good]
    assert merged(2, [bad], [good]) == [good]
    assert merged(2, [], [bad]) == [bad]


def test_a_folder_with_a_table_of_other_settings_is_refused(tmp_path):
    write_table(2, list(filled(tmp_path, ["manual"]).values()), settings_of(), tmp_path)
    before = (tmp_path / "table2.csv").read_text()
    overrides = [word for one in [*QUICK, *SMALL, "n_init=2"] for word in ("--set", one)]
    words = ["evaluate", "--table", "2", "pixels", "-o", str(tmp_path), *overrides]
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, ConfigError)
    assert "n_init: 1 -> 2" in str(found.exception)
    assert (tmp_path / "table2.csv").read_text() == before
    read_rows(tmp_path / "table2.json", settings_of("batch_size=7"))  # decides no number


def test_a_kind_brings_its_settings_with_and_without_a_table(tmp_path, monkeypatch):
    asked = []

    def stop(settings):
        asked.append(settings)
        raise ConfigError("enough")

    monkeypatch.setattr("pipelines.evaluate.evaluate", stop)
    CliRunner().invoke(app, ["evaluate", "pixels", "--data", "nucls=x", "-o", str(tmp_path)])
    assert (asked[0].data.kind, asked[0].data.scale) == ("nucls", 1.0)


def test_data_may_come_with_its_kind():
    assert _data_overrides("nucls=/a/b") == ("nucls", ["data.kind=nucls", 'data.path="/a/b"'])
    assert _data_overrides("/a=b/c") == ("", ['data.path="/a=b/c"'])
    assert _data_overrides(None) == ("", [])


def test_the_command_tells_wrong_use(tmp_path):
    runner = CliRunner()
    for words in (["--table", "5"], ["--table", "2", "nonsense"], ["--schedule", "cpu"]):
        found = runner.invoke(app, ["evaluate", *words, "-o", str(tmp_path)])
        assert found.exit_code != 0
