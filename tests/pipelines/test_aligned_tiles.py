"""Cores that end with a file's own tiles: the same cells, and never parts of two grids together."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.config import load_settings
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from pipelines.info import describe_slides
from pipelines.machines import LocalMachine, SerialMachine
from pipelines.models import find_models
from pipelines.output_folder import claim_held, made_folder
from pipelines.partitions import run_partition
from pipelines.plan import committed_tally, identify_slide, job_of, plan_slide
from pipelines.resolved_settings import resolved
from pipelines.run import run_cohort
from tests.pipelines.conftest import SMOKE
from tests.pipelines.test_run import assert_same_results

TILE_PX = 96
CORE_PX = 2 * TILE_PX


def settings_of(*overrides):
    return resolved(load_settings(overrides=[*SMOKE, f"tiles.core_px={CORE_PX + 8}", *overrides]))


ALIGNED = settings_of()
AS_SET = settings_of("tiles.align_to_file=false")


@pytest.fixture(scope="module")
def sources(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "drawn.tif"
    write_pyramid(path, drawn.rgb, 0.5, tile_px=TILE_PX)
    return list_slides([str(path)])


@pytest.fixture(scope="module")
def aligned(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("aligned")
    assert run_cohort(sources, out, ALIGNED, SerialMachine()).exit_code == 0
    return out


def planned(source, settings, folder):
    opened = identify_slide(source, settings, find_models(settings).fingerprints)
    return plan_slide(opened, settings, folder)


def test_cells_are_those_of_the_cores_as_set(sources, aligned, tmp_path):
    run_cohort(sources, tmp_path, AS_SET, SerialMachine())
    one, other = (open_store(out / "slides" / "drawn.zarr") for out in (aligned, tmp_path))
    assert one.attrs["notes"]["core_px"] == CORE_PX
    assert other.attrs["notes"]["core_px"] == CORE_PX + 8
    assert one.attrs["slide"]["level_tiles_px"][0] == [TILE_PX, TILE_PX]
    assert one.n_cells > 100
    ours, theirs = (np.argsort(store.obs("uuid")) for store in (one, other))
    for name in ("uuid", "area_um2", "probability"):
        assert np.array_equal(one.obs(name)[ours], other.obs(name)[theirs])
    assert np.array_equal(one.centroids()[ours], other.centroids()[theirs])
    np.testing.assert_allclose(
        one.embedding_rows(ours), other.embedding_rows(theirs), rtol=1e-4, atol=1e-4
    )


def test_dask_writes_what_serial_writes(sources, aligned, tmp_path):
    run_cohort(sources, tmp_path, ALIGNED, LocalMachine(workers=2))
    assert_same_results(aligned, tmp_path)


def test_parts_of_another_grid_are_made_anew(sources, aligned, tmp_path):
    folder = made_folder(tmp_path)
    claim_held(folder, AS_SET, find_models(AS_SET).recorded())
    old = planned(sources[0], AS_SET, folder)
    folder.part(old.slide_id, "any").parent.mkdir(parents=True)
    for partition in old.partitions:
        job = job_of(old, partition, AS_SET, folder)
        run_partition(job)
        assert committed_tally(job) is not None
    new = planned(sources[0], ALIGNED, folder)
    jobs = [job_of(new, partition, ALIGNED, folder) for partition in new.partitions]
    assert [committed_tally(job) for job in jobs] == [None] * len(jobs)

    assert run_cohort(sources, tmp_path, ALIGNED, SerialMachine()).exit_code == 0
    assert_same_results(aligned, tmp_path)


def test_the_fingerprint_knows_of_the_grid_only_where_it_is_not_as_set(sources, slide_file):
    def prints(source):
        return {identify_slide(source, s, "").fingerprint for s in (ALIGNED, AS_SET)}

    assert len(prints(sources[0])) == 2
    [far_off] = list_slides([str(slide_file)])  # tiles of 256 px
    assert len(prints(far_off)) == 1


def test_info_tells_the_tiles_of_the_file_and_ours(sources):
    text, is_usable = describe_slides(sources, ALIGNED)
    assert is_usable
    assert f"file tiles  {TILE_PX} x {TILE_PX} px" in text
    assert f"in tiles of {CORE_PX} px" in text
