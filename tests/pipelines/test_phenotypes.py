"""A drawn screen from files to scores: crops, training, profiles, evaluation."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.datasets.bbbc021 import IMAGE_TABLE
from ccrl_wsi.errors import CcrlError, ConfigError, StoreError
from ccrl_wsi.synthetic_fields import DrawnScreen, draw_field, wells_of
from pipelines.cli import app
from pipelines.crop_sets import cache_file, gather_crops
from pipelines.drawn_screen import write_drawn_screen
from pipelines.profile import profile

SMALL = DrawnScreen(
    side_px=150, n_cells=12, n_controls=2, n_compounds=1, doses=(1.0,), n_wells=1, n_weeks=2
)


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    write_drawn_screen(folder, SMALL)
    return folder


def settings(folder, **changes):
    return DataSettings(
        kind="bbbc021", path=folder, size_px=40, nucleus_px=14, illumination=False, **changes
    )


def test_equal_screens_are_drawn_alike_and_wells_differ():
    well, other = wells_of(SMALL)[:2]
    first, centres = draw_field(SMALL, well, 1)
    again, same = draw_field(SMALL, well, 1)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(centres, same)
    assert first.dtype == np.uint16
    assert not np.array_equal(first, draw_field(SMALL, other, 1)[0])


def test_crops_know_their_field_and_mechanism(screen):
    crops = gather_crops(settings(screen), 0)
    assert crops.crops.shape[1:] == (40, 40, 3)
    assert len(crops) > 30
    assert "DMSO" in crops.class_names
    assert len(crops.class_names) == 7
    wells = {f"{w.plate}-{w.well}-s1": w.mechanism for w in wells_of(SMALL)}
    for source, label in zip(crops.source, crops.label, strict=True):
        assert wells[crops.source_names[source]] == crops.class_names[label]
    # The nucleus is in the middle.
    dna = crops.crops[..., 0].astype(float)
    assert dna[:, 17:23, 17:23].mean() > 3 * dna[:, :4].mean()


def test_crops_are_cached_and_the_cache_follows_files_and_settings(screen, tmp_path):
    data = settings(screen, cache=tmp_path)
    first = gather_crops(data, 0)
    assert cache_file(data, 0).is_file()
    np.testing.assert_array_equal(gather_crops(data, 0).crops, first.crops)
    few = settings(screen, cache=tmp_path, max_per_slide=2)
    assert cache_file(few, 0) != cache_file(few, 1) != cache_file(data, 0)
    counts = np.bincount(gather_crops(few, 0).source)
    assert counts.max() == 2


def test_what_is_damaged_is_told_and_the_rest_is_used(tmp_path, caplog):
    write_drawn_screen(tmp_path, SMALL)
    files = sorted(tmp_path.rglob("*w1.tif"))
    files[0].unlink()
    files[1].write_bytes(b"no TIFF")
    tifffile.imwrite(files[2], np.zeros((9, 9), np.uint16))
    text = (tmp_path / IMAGE_TABLE).read_text().replace("compound 1-2a", "mystery")
    (tmp_path / IMAGE_TABLE).write_text(text)
    with caplog.at_level(logging.WARNING, "ccrl_wsi"):
        crops = gather_crops(settings(tmp_path), 0)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "there is no DAPI" in told
    assert "w1.tif cannot be read" in told
    assert "differ in size" in told
    assert "mystery: not in BBBC021_v1_moa.csv" in told
    assert "4 problems; 12 of 15 fields are used" in told
    assert len(crops) > 20
    everything = gather_crops(settings(tmp_path, fields="all"), 0)
    assert (everything.label == -1).any()


def test_a_field_that_is_listed_again_counts_once(screen, tmp_path, caplog):
    before = gather_crops(settings(screen), 0)
    write_drawn_screen(tmp_path, SMALL)
    table = tmp_path / IMAGE_TABLE
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1]]) + "\n")
    with caplog.at_level(logging.WARNING, "ccrl_wsi"):
        again = gather_crops(settings(tmp_path), 0)
    np.testing.assert_array_equal(again.crops, before.crops)
    assert "is listed again: its first row counts" in caplog.text


def test_profiles_say_what_is_wrong_before_they_work(tmp_path):
    absent = tmp_path / "no.safetensors"
    with pytest.raises(ConfigError, match=r"written as \.csv"):
        profile(absent, tmp_path, tmp_path / "profiles.txt", [])
    with pytest.raises(CcrlError, match="There is no checkpoint .* as `ccrl-wsi train` leaves"):
        profile(absent, tmp_path, tmp_path / "profiles.csv", [])


def test_no_usable_field_is_an_error(tmp_path):
    write_drawn_screen(tmp_path, SMALL)
    for file in tmp_path.rglob("*.tif"):
        file.unlink()
    with pytest.raises(StoreError, match=r"No field.*The first problem: .*no DAPI"):
        gather_crops(settings(tmp_path), 0)


@pytest.mark.parametrize("kind", ["nt_xent", "info_nce"])
def test_from_fields_to_scores(screen, tmp_path, kind):
    """Both methods go through the same commands; what they reach is the benchmark's to say."""
    head = "null" if kind == "nt_xent" else "8"
    overrides = [
        f"loss.kind={kind}",
        f"network.predictor={head}",
        "network.widths=[4,8]",
        "network.projector=[8,4]",
        "schedule.batch_size=16",
        "schedule.epochs=1.5",
        "loss.queue_size=16",
        "data.illumination=false",
        "compute.device=cpu",
    ]
    arguments = ["train", "-c", "train/drawn_cells", "--data", str(screen), "-o", str(tmp_path)]
    run = CliRunner().invoke(app, [*arguments, *(x for o in overrides for x in ("--set", o))])
    assert run.exit_code == 0, run.output
    table = tmp_path / "profiles.csv"
    encoder = str(tmp_path / "encoder.safetensors")
    run = CliRunner().invoke(app, ["profile", encoder, "--data", str(screen), "-o", str(table)])
    assert run.exit_code == 0, run.output
    with pytest.raises(ConfigError, match="size_px is not a setting of profiles"):
        profile(Path(encoder), screen, table, ["size_px=32"])
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == len(wells_of(SMALL))
    assert {row["Metadata_Batch"] for row in rows} == {"Week1", "Week2"}
    run = CliRunner().invoke(app, ["evaluate", "--moa", str(table), "-o", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert "| as given, TVN |" in run.output
