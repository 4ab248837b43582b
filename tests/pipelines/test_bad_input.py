"""One clear sentence for every kind of bad input, the right exit code, and the rest is finished."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.errors import SlideError, StoreError
from ccrl_wsi.slides.openslide_reader import OpenSlideReader
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines import cli, inputs, second_reading
from pipelines.machines import SerialMachine
from pipelines.output_folder import open_output, write_text
from pipelines.run import run_cohort
from pipelines.state import load_states
from pipelines.verify import verify_output
from tests.pipelines.conftest import SMOKE
from tests.slide_files import spoil_tile


def call(monkeypatch, capfd, *arguments: object) -> tuple[int, str]:
    """Exit code of the command line and all it said."""
    monkeypatch.setattr(sys, "argv", ["ccrl-wsi", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capfd.readouterr()
    for name in ("ccrl_wsi", "pipelines"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    code = stopped.value.code
    return (0 if code is None else int(code)), said.out + said.err


def smoke_options(*more: str) -> list[str]:
    return [part for setting in (*SMOKE, *more) for part in ("--set", setting)]


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Runs slides into ``tmp_path/out`` with small settings; serial."""

    def run_(*arguments: object, settings: tuple[str, ...] = ()) -> tuple[int, str]:
        out = tmp_path / "out"
        options = ["-o", out, "--on", "serial", *smoke_options(*settings)]
        return call(monkeypatch, capfd, "run", *arguments, *options)

    return run_


def failures(out: Path) -> list[dict[str, str]]:
    with (out / "failures.csv").open() as file:
        return list(csv.DictReader(file))


def make_broken(kind: str, folder: Path, slide_file: Path, data_dir: Path | None = None) -> Path:
    path = folder / f"{kind}.svs"
    if kind == "garbage":
        path.write_bytes(b"this is not a slide" * 100)
    elif kind == "directory":
        path.mkdir()
    elif kind == "truncated":
        assert data_dir is not None
        whole = (data_dir / "slides" / "cmu-1-small-region.svs").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    return path


def test_the_last_line_names_only_results_that_are_there(
    run, monkeypatch, capfd, slide_file, tmp_path
):
    bad = make_broken("garbage", tmp_path, slide_file)
    out = tmp_path / "out"
    code, said = run(bad)
    assert code == 1
    assert f"No slide in {out} has results." in said
    assert not any(name in said for name in ("*.zarr", "*.geojson.gz", "composition", "Report"))
    assert "failures.csv" in said
    assert (
        "No slide in" in call(monkeypatch, capfd, "cluster", out, "--set", "report.make=false")[1]
    )
    everything = "slides/*.zarr, overlays/*.geojson.gz, composition.csv"
    assert f"Results in {out}: {everything}" in run(slide_file)[1]
    # Nothing new is made, and one fails: the other one's results are there still.
    code, said = run(bad, slide_file)
    assert (code, f"Results in {out}: {everything}" in said, "1 failed" in said) == (1, True, True)


def test_tables_of_slides_that_are_gone_go_too(run, slide_file, tmp_path):
    slide = tmp_path / "slide.tif"
    shutil.copy(slide_file, slide)
    assert run(slide)[0] == 0
    tables = [
        tmp_path / "out" / f"composition{end}" for end in (".csv", "_long.csv", "_long.parquet")
    ]
    assert all(table.is_file() for table in tables)
    other = draw_slide(DrawnSlideSpec(360, 300, 0.5, n_nuclei=50, seed=8))
    write_pyramid(slide, other.rgb, 0.5, compression="deflate")
    spoil_tile(slide, 0)
    code, said = run(slide)
    assert code == 1
    assert not any(table.exists() for table in tables)
    assert "composition.csv" not in said


@pytest.mark.parametrize("kind", ["missing", "garbage"])
def test_a_bad_slide_fails_alone(run, slide_file, tmp_path, kind):
    bad = make_broken(kind, tmp_path, slide_file)
    code, said = run(bad, slide_file)
    assert code == 1
    [failure] = failures(tmp_path / "out")
    assert failure["slide_id"] == kind
    assert failure["stage"] == "open"
    assert kind in failure["message"]
    assert "Traceback" not in said
    assert (tmp_path / "out" / "overlays" / "drawn.geojson.gz").exists()
    assert verify_output(tmp_path / "out")[0] == []


def test_paths_of_which_none_is_there_are_told_before_networks_are_asked(run, tmp_path):
    hovernet = (f"nuclei.weights={tmp_path}/none.pth", "nuclei.segmenter=hovernet_fast-pannuke")
    code, said = run("nope.svs", settings=(*hovernet, "tiles.mpp=0.25"))
    assert (code, "There is no file nope.svs. Check the path." in said) == (2, True)
    assert "none.pth" not in said
    assert not (tmp_path / "out").exists()


def test_a_missing_slide_is_named_before_the_others_are_done(run, slide_file, tmp_path):
    code, said = run(tmp_path / "nope.svs", slide_file, settings=("clusters.k=2",))
    assert code == 1
    assert said.index("nope.svs. The other slides are done") < said.index("2 slides on")


@pytest.mark.parametrize("place", ["out", "out/slides"])
def test_results_are_not_mixed_with_slides(run, slide_file, tmp_path, place):
    slide = tmp_path / place / "drawn.tif"
    slide.parent.mkdir(parents=True)
    shutil.copy(slide_file, slide)
    code, said = run(slide)
    assert (code, f"-o {tmp_path / 'out'} is where slides lie" in said) == (2, True)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [slide]


def test_regions_of_one_slide_are_not_taken_for_several(run, slide_file, tmp_path):
    regions, other = tmp_path / "drawn.geojson", tmp_path / "other.tif"
    ring = [[0, 0], [200, 0], [200, 200], [0, 200], [0, 0]]
    regions.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    shutil.copy(slide_file, other)
    settings = ("tissue.method=geojson", f"tissue.regions={regions}", "clusters.k=2")
    code, said = run(slide_file, other, settings=settings)
    assert (code, "is the file of one slide, but there are 2. Give a folder" in said) == (2, True)
    assert run(slide_file, settings=settings)[0] == 0


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(second_reading, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def spoilt(slide_file, tmp_path) -> Path:
    """The drawn slide with one tile of the file that cannot be decoded."""
    path = tmp_path / "drawn.tif"
    shutil.copy(slide_file, path)
    spoil_tile(path, 3)
    return path


def test_a_tile_that_cannot_be_decoded_fails_its_slide_and_is_named(run, spoilt, tmp_path):
    code, said = run(spoilt)
    [failure] = failures(tmp_path / "out")
    assert code == 1
    assert "Traceback" not in said
    assert (failure["stage"], failure["slide_id"]) == ("read", "drawn")
    assert failure["where"].startswith("tile in row ")
    assert "cannot be decoded at x=" in failure["message"]
    assert "Traceback" in (tmp_path / "out" / failure["log"]).read_text()


def test_bad_tiles_are_left_out_and_counted_where_the_user_wants_it(
    run, spoilt, slide_file, smoke, tmp_path
):
    whole = tmp_path / "whole"
    run_cohort(list_slides([str(slide_file)]), whole, smoke, SerialMachine())
    code, said = run(spoilt, settings=("slides.on_bad_tile=skip",))
    assert code == 0
    assert "tiles cannot be decoded and were left out" in said
    found, wanted = (open_store(o / "slides/drawn.zarr") for o in (tmp_path / "out", whole))
    n_skipped = found.attrs["notes"]["n_tiles_skipped"]
    tissue, all_tissue = (store.attrs["notes"]["tissue_mm2"] for store in (found, wanted))
    assert 0 < n_skipped < 12
    with (tmp_path / "out" / "slides.csv").open() as file:
        [row] = csv.DictReader(file)
    assert int(row["n_tiles_skipped"]) == n_skipped
    assert f"{n_skipped} of 12 tiles" in row["warnings"]
    # Nobody has looked at the tissue there: it does not thin the cells out.
    assert 0 < tissue < all_tissue
    assert float(row["tissue_mm2"]) == pytest.approx(tissue, abs=1e-6)
    assert float(row["cells_per_mm2"]) == pytest.approx(found.n_cells / tissue, rel=1e-3)
    areas = [
        json.loads((o / "progress.json").read_text())["mm2"] for o in (tmp_path / "out", whole)
    ]
    assert areas[0] < areas[1]
    # Elsewhere nothing is different.
    places = {tuple(c) for c in found.centroids().tolist()}
    assert 0 < len(places) < wanted.n_cells
    assert places < {tuple(c) for c in wanted.centroids().tolist()}
    assert verify_output(tmp_path / "out")[0] == []
    # Whoever does not want it any more is not given what was found so.
    assert run(spoilt)[0] == 1
    assert failures(tmp_path / "out")[0]["stage"] == "read"
    assert load_states(open_output(tmp_path / "out")) == []
    assert len((tmp_path / "out" / "slides.csv").read_text().splitlines()) == 1


def test_a_slide_of_which_no_tile_can_be_decoded_fails_until_it_is_mended(
    run, slide_file, tmp_path, monkeypatch
):
    skip = ("slides.on_bad_tile=skip",)
    with monkeypatch.context() as patch:
        patch.setattr(OpenSlideReader, "read", unreadable_at(slide_file, times=10**6))
        code, said = run(slide_file, settings=skip)
    assert code == 1
    [failure] = failures(tmp_path / "out")
    assert failure["stage"] == "read"
    assert "none of its 12 tiles can be decoded" in failure["message"]
    assert run(slide_file, settings=skip)[0] == 0
    assert verify_output(tmp_path / "out")[0] == []


def test_pixels_are_read_once_more_before_a_tile_is_left_out(
    run, slide_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(OpenSlideReader, "read", unreadable_at(slide_file, times=1))
    code, said = run(slide_file, settings=("slides.on_bad_tile=skip",))
    assert code == 0
    store = open_store(tmp_path / "out/slides/drawn.zarr")
    assert store.attrs["notes"]["n_tiles_skipped"] == 0


def unreadable_at(path: Path, times: int):
    """A reader whose first ``times`` reads of tiles are errors; the overview can be read."""
    read, failed = OpenSlideReader.read, []

    def read_or_fail(self, box, grid):
        if grid.mpp < 1 and len(failed) < times:
            failed.append(box)
            raise SlideError(f"{path} is away")
        return read(self, box, grid)

    return read_or_fail


def test_a_mended_slide_is_all_that_is_run_again(run, slide_file, tmp_path):
    bad = make_broken("garbage", tmp_path, slide_file)
    assert run(bad, slide_file)[0] == 1
    store = tmp_path / "out" / "slides" / "drawn.zarr" / "tables" / "cells" / "X" / "zarr.json"
    before = store.stat().st_mtime_ns
    shutil.copy(slide_file, bad)
    assert run(bad, slide_file)[0] == 0
    assert store.stat().st_mtime_ns == before
    assert not (tmp_path / "out" / "failures.csv").exists()
    assert (tmp_path / "out" / "slides" / "garbage.zarr").is_dir()


@pytest.mark.data
def test_a_truncated_slide_fails_alone(run, slide_file, tmp_path, data_dir):
    bad = make_broken("truncated", tmp_path, slide_file, data_dir)
    code, said = run(bad, slide_file)
    assert code == 1
    assert "Traceback" not in said
    assert [f["slide_id"] for f in failures(tmp_path / "out")] == ["truncated"]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tcga-cr-7395-01a-01-ts1.svs", "slides.mpp="),
        ("BRACS_1640_N_3_cropped.tiff", "1000"),
        ("broken.svs", "broken.svs"),
    ],
)
def test_a_slide_without_a_usable_pixel_size_says_how_to_give_it(
    run, slide_file, data_dir, tmp_path, name, words
):
    code, said = run(data_dir / "slides" / name, slide_file)
    assert code == 1
    [failure] = failures(tmp_path / "out")
    assert words in failure["message"]
    assert words in said


@pytest.mark.data
def test_fluorescence_is_warned_about_and_run(run, data_dir, tmp_path):
    code, said = run(
        data_dir / "slides" / "test3-TRITC 2 (560).ndpi", settings=("tiles.mpp=2", "clusters.k=2")
    )
    assert "does not look like" in said
    assert "Traceback" not in said
    assert code in (0, 1)  # Few or no nuclei are found; that too is told in a sentence.


def test_the_pixel_size_can_come_from_a_slide_list(run, slide_file, tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text(f"path,slide_id,mpp,patient,group\n{slide_file},renamed,0.5,P1,case\n")
    assert run(table)[0] == 0
    with (tmp_path / "out" / "composition.csv").open() as file:
        [row] = csv.DictReader(file)
    assert (row["slide_id"], row["patient"], row["group"]) == ("renamed", "P1", "case")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("tiles.corepx=3",), "tiles.corepx: no such setting"),
        (("slides.mpp=-1",), "slides.mpp"),
        (("nuclei.segmenter=hovernot",), "watershed"),
        (("embedding.encoder=nowhere.safetensors",), "nowhere.safetensors"),
        (("clusters.codebook=nowhere.safetensors",), "codebook"),
        (("compute.device=abacus",), "abacus"),
        (("nuclei.segmenter=hovernet_fast-pannuke", "tiles.mpp=0.5"), "tiles.mpp=0.25"),
    ],
)
def test_a_wrong_setting_stops_before_any_work(run, slide_file, tmp_path, settings, words):
    code, said = run(slide_file, settings=settings)
    assert words in said
    assert "Traceback" not in said
    assert code == 2
    assert not (tmp_path / "out" / "work").exists()


def test_missing_weights_are_told_before_any_work(run, slide_file, tmp_path):
    weights = tmp_path / "none.pth"
    code, said = run(
        slide_file,
        settings=(
            "nuclei.segmenter=hovernet_fast-pannuke",
            f"nuclei.weights={weights}",
            "tiles.mpp=0.25",
        ),
    )
    assert code == 2
    assert "none.pth" in said
    assert "compact" in said


@pytest.mark.parametrize(("device", "is_said"), [("cpu", True), ("cuda", False)])
def test_hovernet_on_cpu_cores_is_told(slide_file, tmp_path, monkeypatch, caplog, device, is_said):
    monkeypatch.setattr(inputs, "resolve_device", lambda name: device)
    sources = list_slides([str(slide_file)])
    for name in ("hovernet_fast-pannuke", "compact", "watershed"):
        caplog.clear()
        settings = load_settings(overrides=[f"nuclei.segmenter={name}"])
        inputs.check_inputs(sources, tmp_path / "out", settings, SerialMachine())
        assert ("takes hours per slide" in caplog.text) == (is_said and "hovernet" in name)


def test_a_read_only_folder_is_told(slide_file, tmp_path, monkeypatch, capfd):
    # Root may write into any folder of a disk, but not even root into this one.
    folder = "/proc/self/net" if os.geteuid() == 0 else str(tmp_path / "read_only")
    if os.geteuid() != 0:
        (tmp_path / "read_only").mkdir(mode=0o555)
    code, said = call(monkeypatch, capfd, "run", slide_file, "-o", folder, *smoke_options())
    assert code == 2
    assert "Cannot write into" in said


def test_a_file_in_place_of_the_folder_is_told(run, slide_file, tmp_path):
    (tmp_path / "out").write_text("")
    code, said = run(slide_file)
    assert code == 2
    assert "Cannot write into" in said


def test_a_folder_made_with_other_settings_is_refused_and_kept(run, slide_file, tmp_path):
    assert run(slide_file)[0] == 0
    code, said = run(slide_file, settings=("tiles.halo_um=40",))
    assert code == 2
    assert "tiles.halo_um: 32.0 -> 40.0" in said
    assert verify_output(tmp_path / "out")[0] == []


def test_no_slides_is_wrong_usage(run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, said = run(tmp_path / "empty")
    assert code == 2
    assert "empty" in said


def test_too_few_cells_for_k_keeps_the_cells(run, slide_file, tmp_path, monkeypatch, capfd):
    few = ("nuclei.min_area_um2=97",)
    code, said = run(slide_file, settings=(*few, "clusters.k=30"))
    assert code == 1
    assert "clusters.k=" in said
    for command in (["verify"], ["export", "--to", "geoparquet"]):
        _, said = call(monkeypatch, capfd, command[0], tmp_path / "out", *command[1:])
        words = " ".join(said.split())
        assert "no clusters" in words
        assert "clusters.k=" in words
        assert "same command again" not in words
        assert "Run `ccrl-wsi run` again" not in words
    assert len(verify_output(tmp_path / "out")[0]) == 1
    again = ["cluster", tmp_path / "out", "--set", "clusters.k=2"]
    assert call(monkeypatch, capfd, *again)[0] == 0
    assert verify_output(tmp_path / "out")[0] == []


def test_a_blank_slide_has_no_cells_and_says_so(run, tmp_path):
    import numpy as np

    from ccrl_wsi.slides.pyramid import write_pyramid

    write_pyramid(tmp_path / "blank.tif", np.full((300, 300, 3), 244, np.uint8), 0.5)
    code, said = run(tmp_path / "blank.tif")
    assert code == 0
    assert "no tissue" in said
    problems, summary = verify_output(tmp_path / "out")
    assert problems == []
    assert "0 cells" in summary


@pytest.mark.parametrize("command", ["cluster", "verify"])
def test_a_folder_that_is_no_output_is_told(monkeypatch, capfd, tmp_path, command):
    code, said = call(monkeypatch, capfd, command, tmp_path)
    assert code == 2
    assert "run.json" in said


def test_a_full_disk_is_told_with_the_file_that_did_not_fit(tmp_path, monkeypatch):
    def is_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_text(tmp_path / "slides.csv", "before\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", is_full)
        with pytest.raises(StoreError, match=r"slides\.csv: No space left.*finished stays"):
            write_text(tmp_path / "slides.csv", "after\n")
    assert (tmp_path / "slides.csv").read_text() == "before\n"


def test_tissue_without_a_nucleus_is_warned_about(run, slide_file, tmp_path):
    code, said = run(slide_file, settings=("nuclei.min_area_um2=1400",))
    assert (code, "drawn: no nuclei found in its tissue" in said) == (0, True)
    with (tmp_path / "out" / "slides.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["n_cells"] == "0"
    assert row["warnings"].startswith("drawn.tif: no nuclei found in its tissue")
