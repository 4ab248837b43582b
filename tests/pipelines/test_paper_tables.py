"""The paper's tables: rows, honest gaps, files, the command."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ccrl_wsi.config import load_tree
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.evaluation.settings import EvaluateSettings
from ccrl_wsi.measurement_names import SHAPE_NAMES
from pipelines import paper_tables
from pipelines.cli import app
from pipelines.cli_learning import _data_overrides
from pipelines.paper_table_report import table_csv, table_page, write_table
from pipelines.paper_tables import (
    TablePlan,
    chosen_rows,
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
    return list(csv.DictReader(io.StringIO(table_csv(list(rows.values())))))


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
    page = table_page(2, list(rows.values()), settings_of())
    assert "could not run: No GPU" in page
    assert "CPU SCHEDULE" not in page


@pytest.fixture
def dcae_file(tmp_path):
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
        training={"n_steps": 7, "settings": {"schedule": {"batch_size": 9}}},
    )
    crops = coloured_crops(3, side=32, noise=0)
    mean, std = (np.array(values) for values in (header.mean, header.std))
    pixels = ((crops.crops / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.no_grad():  # a centre where each class lies
        network.centres.copy_(network(torch.tensor(pixels, dtype=torch.float32)))
    path = tmp_path / "dcae.safetensors"
    save_checkpoint(path, network.state_dict(), header)
    return path


def test_a_given_file_is_scored_by_its_own_clusters_too(tmp_path, dcae_file):
    (row,) = filled(tmp_path, {"dcae": str(dcae_file)}).values()
    assert row.own is not None
    assert row.own.ari == pytest.approx(1)
    assert "as given: dcae.safetensors, 7 steps of 9" in row.schedule
    own = [line for line in lines_of({"dcae": row}) if line["reading"] == "its own clusters"]
    assert [line["n_seeds"] for line in own] == ["", "", ""]
    assert [line["paper"] for line in own] == ["10.1", "7.3", "50.5"]


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


def test_data_may_come_with_its_kind():
    assert _data_overrides("nucls=/a/b") == ("nucls", ["data.kind=nucls", 'data.path="/a/b"'])
    assert _data_overrides("/a=b/c") == ("", ['data.path="/a=b/c"'])
    assert _data_overrides(None) == ("", [])


def test_the_command_tells_wrong_use(tmp_path):
    runner = CliRunner()
    for words in (["--table", "5"], ["--table", "2", "nonsense"], ["--schedule", "cpu"]):
        found = runner.invoke(app, ["evaluate", *words, "-o", str(tmp_path)])
        assert found.exit_code != 0
