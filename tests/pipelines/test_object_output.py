"""Output in an object store: the same files as on disk, the same promises, one run at a time."""

from __future__ import annotations

import gc
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from fsspec.implementations.memory import MemoryFileSystem

from ccrl_wsi.config import load_settings
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.object_storage import ObjectFolder
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines import object_lock
from pipelines.export import ExportOptions, export_cohort
from pipelines.finish import FinishJob, finish_slide
from pipelines.import_labels import import_labels
from pipelines.jobs import Tally
from pipelines.machines import AddressMachine, SerialMachine
from pipelines.output_folder import claim, open_output
from pipelines.output_lock import held
from pipelines.report import report_again
from pipelines.run import cluster_again, run_cohort, settings_of_last_clusters
from pipelines.state import SlideState, save_states
from pipelines.verify import verify_output
from tests.object_stores import (
    BUCKET,
    SECRET,
    contents,
    empty_memory,
    files_on_disk,
)
from tests.pipelines.conftest import SMOKE

WITH_TIMES = {"run_report.json", "progress.json", "state/small.json"}
SERIAL = SerialMachine()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(object_lock, "SETTLE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.tif"
    drawn = draw_slide(DrawnSlideSpec(360, 300, 0.5, n_nuclei=50, seed=8))
    write_pyramid(path, drawn.rgb, 0.5, compression="deflate")
    return list_slides([str(path)])


@pytest.fixture(scope="module")
def on_disk(small, smoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("disk")
    assert run_cohort(small, out, smoke, SERIAL).exit_code == 0
    return out


def assert_same_objects(url: str, folder: Path) -> dict[str, bytes]:
    """Every file of the folder is an object, byte for byte, and there is nothing else."""
    there, here = contents(url), files_on_disk(folder)
    assert there.keys() == here.keys()
    assert {name for name in here if there[name] != here[name]} <= WITH_TIMES
    return there


def start(slide_file: Path, url: str) -> subprocess.Popen[bytes]:
    settings = [part for setting in SMOKE for part in ("--set", setting)]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(slide_file), "-o", url]
    return subprocess.Popen(
        [*command, *settings, "--on", "serial"], stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait_for(folder: ObjectFolder, prefix: str, n: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while len(folder.walk(prefix)) < n:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def forbid(folders: list[str]) -> None:
    """From now on, opening, listing or making anything in these folders is an error here."""

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename"):
            place = arguments[0]
            if isinstance(place, str) and any(place.startswith(folder) for folder in folders):
                raise AssertionError(f"{event} {place}: the driver's disk")

    sys.addaudithook(audit)


def set_folder(folder: str) -> None:
    tempfile.tempdir = folder


def test_workers_need_nothing_of_the_drivers_disk(s3, small, smoke, on_disk, tmp_path, monkeypatch):
    url = f"s3://{BUCKET}/workers"
    (tmp_path / "driver").mkdir()
    (tmp_path / "worker").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "driver"))
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        client.run(set_folder, str(tmp_path / "worker"))
        client.run(forbid, [str(tmp_path / "driver")])
        machine = AddressMachine(address=cluster.scheduler_address)
        assert run_cohort(small, url, smoke, machine).exit_code == 0
    assert_same_objects(url, on_disk)
    assert list((tmp_path / "worker").iterdir()) == []


def killed_when(slide_file: Path, url: str, prefix: str, n: int) -> None:
    """Kill a run when there are ``n`` objects below ``prefix``; another is refused meanwhile."""
    process = start(slide_file, url)
    wait_for(ObjectFolder.at(url), prefix, n, process)
    with pytest.raises(ConfigError, match=rf"process {process.pid} .* is working in {url}"):
        cluster_again(url, load_settings(), SERIAL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_on_s3_that_is_killed_twice_ends_with_the_files_of_one_on_disk(
    s3, small, smoke, on_disk, caplog, tmp_path, monkeypatch
):
    url, slide_file = f"s3://{BUCKET}/killed", small[0].path
    killed_when(slide_file, url, "work/small/parts", 1)
    killed_when(slide_file, url, "slides/small.zarr", 30)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = run_cohort(small, url, smoke, SERIAL)
    assert result.exit_code == 0
    there = assert_same_objects(url, on_disk)
    n_cells = open_store(on_disk / "slides" / "small.zarr").n_cells
    assert verify_output(url) == ([], f"1 slide, {n_cells} cells: no problems.")
    assert SECRET not in caplog.text
    assert not any(SECRET.encode() in content for content in there.values())
    del result
    gc.collect()
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def die_after(patch: pytest.MonkeyPatch, n_steps: int) -> list[int]:
    """Let ``n_steps`` more objects be written or deleted; how many were is counted."""
    count = [0]

    def limited(name: str):
        whole = getattr(ObjectFolder, name)

        def step(self, *arguments, **options):
            if count[0] >= n_steps:
                raise Killed
            if name == "write":
                count[0] += 1
                return whole(self, *arguments, **options)
            *first, names = arguments
            done = []
            for one in sorted(names):
                if count[0] >= n_steps:
                    raise Killed
                count[0] += 1
                done.append(whole(self, *first, [one], **options))
            return all(done)

        patch.setattr(ObjectFolder, name, step)

    for name in ("write", "put_files", "delete"):
        limited(name)
    return count


def run_small(small, smoke) -> int:
    return run_cohort(small, "memory://bucket/out", smoke, SERIAL).exit_code


def test_a_run_stopped_at_any_step_is_never_taken_for_finished_and_continues(
    small, smoke, on_disk, monkeypatch
):
    empty_memory()
    with monkeypatch.context() as patch:
        n_steps = die_after(patch, 10**9)
        run_small(small, smoke)
    assert n_steps[0] > 100
    for stop in np.linspace(1, n_steps[0] - 1, 4).astype(int).tolist():
        empty_memory()
        with monkeypatch.context() as patch:
            die_after(patch, stop)
            with pytest.raises(Killed):
                run_small(small, smoke)
        if ObjectFolder.at("memory://bucket/out").exists("run.json"):
            is_last = stop > n_steps[0] - 12
            assert verify_output("memory://bucket/out")[0] or is_last, stop
        # This process lives, so its lock is taken for that of another run.
        ObjectFolder.at("memory://bucket/out").delete([object_lock.LOCK])
        assert run_small(small, smoke) == 0
        assert_same_objects("memory://bucket/out", on_disk)


def test_clustering_stopped_at_any_step_can_be_taken_back(small, smoke, on_disk, monkeypatch):
    url, other = "memory://bucket/out", load_settings(overrides=[*SMOKE, "clusters.k=4"])
    empty_memory()
    run_small(small, smoke)
    with monkeypatch.context() as patch:
        n_steps = die_after(patch, 10**9)
        cluster_again(url, other, SERIAL)
    assert verify_output(url)[0] == []
    cluster_again(url, smoke, SERIAL)
    for stop in np.linspace(2, n_steps[0] - 1, 3).astype(int).tolist():
        with monkeypatch.context() as patch:
            die_after(patch, stop)
            with pytest.raises(Killed):
                cluster_again(url, other, SERIAL)
        ObjectFolder.at(url).delete([object_lock.LOCK])
        assert cluster_again(url, smoke, SERIAL).exit_code == 0
        assert_same_objects(url, on_disk)


def test_what_was_damaged_is_found_and_made_anew(small, smoke, on_disk):
    empty_memory()
    run_small(small, smoke)
    url = "memory://bucket/out"
    folder, store = ObjectFolder.at(url), "slides/small.zarr"
    chunk = next(name for name in folder.walk(f"{store}/tables/cells/X/c"))
    whole = folder.read(chunk)
    folder.write(chunk, whole[:-1] + b"x")
    assert any("changed since it was written" in problem for problem in verify_output(url)[0])
    folder.delete([chunk])
    assert any("missing" in problem for problem in verify_output(url)[0])
    folder.write(chunk, whole)
    folder.write(f"{store}/stray", b"x")
    assert any("stray: not part of the store" in problem for problem in verify_output(url)[0])
    folder.delete(folder.walk(store))
    assert any("missing or damaged" in problem for problem in verify_output(url)[0])
    folder.delete(["overlays/small.geojson.gz"])
    assert run_small(small, smoke) == 0
    assert_same_objects(url, on_disk)


def test_a_damaged_part_is_made_anew_by_a_later_run(small, smoke, on_disk, monkeypatch):
    empty_memory()
    url = "memory://bucket/out"
    with monkeypatch.context() as patch:
        die_after(patch, 6)
        with pytest.raises(Killed):
            run_small(small, smoke)
    folder = ObjectFolder.at(url)
    folder.delete([object_lock.LOCK])
    part = folder.walk("work/small/parts")[0]
    content = bytearray(folder.read(part))
    content[len(content) // 2] ^= 0xFF
    folder.write(part, bytes(content))
    if run_small(small, smoke):
        assert run_small(small, smoke) == 0
    assert_same_objects(url, on_disk)


def test_other_settings_and_foreign_results_are_refused(small, smoke):
    empty_memory()
    run_small(small, smoke)
    other = load_settings(overrides=[*SMOKE, "tiles.core_px=256"])
    with pytest.raises(ConfigError, match=r"memory://bucket/out was made with other .*tiles.core_"):
        run_cohort(small, "memory://bucket/out", other, SERIAL)
    ObjectFolder.at("memory://bucket/foreign").write("slides/x", b"")
    with pytest.raises(ConfigError, match=r"memory://bucket/foreign holds results but no run.json"):
        run_cohort(small, "memory://bucket/foreign", smoke, SERIAL)
    with pytest.raises(ConfigError, match=r"memory://bucket/none is not the output"):
        open_output("memory://bucket/none")


def test_labels_report_exports_and_clusters_are_those_of_a_folder_on_disk(small, tmp_path):
    empty_memory()
    url, disk = "memory://bucket/later", tmp_path / "disk"
    settings = load_settings(overrides=[*SMOKE, "crops.keep=true", "clusters.centre_slides=true"])
    said = {}
    for out in (url, disk):
        assert run_cohort(small, out, settings, SERIAL).exit_code == 0
        labelled = label_some(out, tmp_path)
        said[out] = import_labels(out, [labelled], None)
        asked = ["clusters.k=4", "report.make=false"]
        again = load_settings(overrides=asked, base=settings_of_last_clusters(out))
        assert cluster_again(out, again, SERIAL).exit_code == 0
        for to, name in (("qupath", "q"), ("anndata", "a.zarr"), ("geoparquet", "g.parquet")):
            target = tmp_path / ("there" if out == url else "here") / name
            export_cohort(out, to, target, ExportOptions(again))
    report_again(url, again, None)
    assert said[url] == said[disk]
    assert "have a label now" in said[url]
    assert files_on_disk(tmp_path / "there") == files_on_disk(tmp_path / "here")
    there = contents(url)
    assert b"</html>" in there.pop("report.html")
    here = files_on_disk(disk)
    assert there.keys() == here.keys()
    assert {name for name in here if there[name] != here[name]} <= WITH_TIMES
    assert verify_output(url)[0] == []
    with pytest.raises(ConfigError, match=r"this computer's disk: give a file or folder with -t"):
        export_cohort(url, "qupath", None, ExportOptions(again))


def label_some(out: Path | str, folder: Path) -> Path:
    """What a person would export from QuPath after giving classes to ten cells."""
    output = open_output(out)
    with output.fetched(output.overlays / "small.geojson.gz") as file:
        overlay = json.loads(gzip.decompress(file.read_bytes()))
    for number, cell in enumerate(overlay["features"][:10]):
        cell["properties"]["classification"] = {"name": ["Tumor", "Stroma"][number % 2]}
    path = folder / "small.geojson"
    path.write_text(json.dumps(overlay))
    return path


def test_a_late_worker_writes_nothing_where_another_run_holds_the_folder(small, smoke):
    empty_memory()
    url = "memory://bucket/out"
    run_small(small, smoke)
    folder = open_output(url)
    with held(folder):
        late = folder.work_on(finish_slide)
        job = FinishJob(
            "small", folder.store("small"), folder.codebook, folder.overlays, smoke, {"group": "x"}
        )
        objects = ObjectFolder.at(url)
        objects.write(object_lock.LOCK, b'{"owner": "another run"}')
        before = contents(url)
        with pytest.raises(StoreError, match=f"this run still holds {url}: nothing more is wri"):
            late(job)
        assert contents(url) == before
        objects.delete([object_lock.LOCK])  # That run has ended.
        with pytest.raises(StoreError, match="nothing more is written"):
            late(job)
    assert verify_output(url)[0] == []


def test_states_of_many_slides_are_written_several_at_once(smoke, monkeypatch):
    empty_memory()
    url, together, put = "memory://bucket/many", threading.Barrier(4), MemoryFileSystem.put_file

    def put_when_others_do(self, *arguments, **options):
        together.wait(timeout=20)
        return put(self, *arguments, **options)

    folder = claim(url, smoke, {})
    states = [SlideState(f"S{i}", "x", None, None, 0.5, "f", 1.0, Tally(i)) for i in range(8)]
    monkeypatch.setattr(MemoryFileSystem, "put_file", put_when_others_do)
    save_states(folder, states)
    there = ObjectFolder.at(url)
    assert there.walk("state") == [f"state/S{i}.json" for i in range(8)]
    assert [json.loads(there.read(f"state/S{i}.json"))["tally"]["n_cells"] for i in range(8)] == [
        *range(8)
    ]


def test_overlays_in_fewer_files_leave_none_of_the_others(small, smoke):
    empty_memory()
    url, split = "memory://bucket/out", load_settings(overrides=[*SMOKE, "overlay.split_above=20"])
    run_small(small, smoke)
    cluster_again(url, split, SERIAL)
    assert len(ObjectFolder.at(url).walk("overlays")) > 1
    cluster_again(url, smoke, SERIAL)
    assert ObjectFolder.at(url).walk("overlays") == ["overlays/small.geojson.gz"]
    assert verify_output(url)[0] == []


def test_labels_replaced_and_stopped_at_any_step_are_never_mixed(
    small, smoke, tmp_path, monkeypatch
):
    empty_memory()
    url = "memory://bucket/out"
    run_small(small, smoke)
    first, second = label_some(url, tmp_path), tmp_path / "second.geojson"
    swapped = first.read_text().replace("Tumor", "X").replace("Stroma", "Tumor")
    second.write_text(swapped.replace('"X"', '"Stroma"'))
    seen = set()
    for stop in (3, 17):
        import_labels(url, [first], "small")
        with monkeypatch.context() as patch:
            die_after(patch, stop)
            with pytest.raises(Killed):
                import_labels(url, [second], "small")
        ObjectFolder.at(url).delete([object_lock.LOCK])
        assert cluster_again(url, smoke, SERIAL).exit_code == 0
        assert verify_output(url)[0] == []
        seen.add(labels_of(url))
    import_labels(url, [first], "small")
    old = labels_of(url)
    import_labels(url, [second], "small")
    assert seen <= {None, old, labels_of(url)}
    assert {None, old} <= seen


def labels_of(url: str) -> tuple[str, ...] | None:
    """Name of the label of each labelled cell, in their order; None where there is no label."""
    folder = open_output(url)
    folder.look_up(["small"])
    store = open_store(folder.store("small"))
    if not store.has_labels:
        return None
    names = store.categories("label")
    return tuple(names[code] for code in store.obs("label").tolist() if code >= 0)
