"""The compact segmenter in TIAToolbox's own engine, and as anybody's ModelABC in ours."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.nuclei.compact import SPOILT_PX
from ccrl_wsi.nuclei.segmenters import make_segmenter
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide

NAMED = "ccrl_wsi.nuclei.compact_modelabc:CompactModel"
MPP, WINDOW_PX = 0.25, 384


@pytest.fixture(scope="module")
def rgb():
    spec = DrawnSlideSpec(width_px=700, height_px=600, n_nuclei=140, seed=5, touching_share=0.1)
    return draw_slide(spec).rgb


@pytest.fixture(scope="module")
def own(rgb):
    settings = NucleiSettings(segmenter="compact", window_px=WINDOW_PX)
    return make_segmenter(settings, "cpu")(rgb, MPP)


def test_our_pipeline_runs_it_unchanged_and_finds_the_same_nuclei(rgb, own):
    settings = NucleiSettings(segmenter=NAMED, window_px=WINDOW_PX)
    segmenter = make_segmenter(settings, "cpu")

    found = segmenter(rgb, MPP)

    assert segmenter.margin == SPOILT_PX
    assert found.n_nuclei == pytest.approx(own.n_nuclei, abs=1)
    assert (found.labels > 0).mean() == pytest.approx((own.labels > 0).mean(), rel=0.01)
    assert ((found.labels > 0) != (own.labels > 0)).mean() < 0.001


def test_tiatoolbox_runs_it_unchanged_and_finds_the_same_nuclei(rgb, own, tmp_path):
    import zarr
    from tiatoolbox import rcParam
    from tiatoolbox.models.engine.multi_task_segmentor import MultiTaskSegmentor

    from ccrl_wsi.nuclei.compact_modelabc import CompactModel, io_config

    rcParam["torch_compile_mode"] = "disable"
    slide = tmp_path / "drawn.tif"
    write_pyramid(slide, rgb, MPP, compression="deflate")
    engine = MultiTaskSegmentor(
        model=CompactModel(), batch_size=4, num_workers=0, device="cpu", verbose=False
    )

    result = engine.run(
        images=[slide],
        patch_mode=False,
        ioconfig=io_config(WINDOW_PX),
        save_dir=tmp_path / "engine",
        output_type="zarr",
        auto_get_mask=False,
        wsireader_kwargs={"mpp": (MPP, MPP)},
    )

    group = zarr.open(result[slide], mode="r")
    owner = group if "centroid" in group else next(iter(group.groups()))[1]
    theirs = np.asarray(owner["centroid"], float).reshape(-1, 2)
    rows, columns = np.nonzero(own.labels)
    counts = np.bincount(own.labels[rows, columns])[1:]
    ours = np.stack(
        [np.bincount(own.labels[rows, columns], v)[1:] / counts for v in (columns, rows)], axis=1
    )
    # It sees white beyond the slide where we see its mirror image, and loses some at its seams.
    inner = (np.minimum(ours, np.array(rgb.shape[1::-1]) - ours) > 40).all(axis=1)
    away = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    assert inner.sum() > 80
    assert (away[inner].min(axis=1) < 1.5).mean() > 0.96
    assert len(theirs) == pytest.approx(len(ours), rel=0.08)


def test_outlines_move_with_the_tiles_offset():
    from ccrl_wsi.nuclei.compact_modelabc import COLUMNS, describe_nuclei

    labels = np.zeros((30, 30), np.int32)
    labels[5:15, 4:20] = 1
    probability = np.full(labels.shape, 0.75, np.float32)

    here, there = (describe_nuclei(labels, probability, offset) for offset in ((0, 0), (100, 50)))

    assert set(here) == set(COLUMNS)
    assert np.allclose(there["centroid"] - here["centroid"], [[100, 50]])
    assert np.allclose(here["centroid"], [[11.5, 9.5]])
    assert here["prob"].tolist() == [0.75]
    assert np.array_equal(there["contours"][0] - here["contours"][0], np.tile([100, 50], (4, 1)))


def test_no_nuclei_are_empty_columns():
    from ccrl_wsi.nuclei.compact_modelabc import describe_nuclei

    empty = describe_nuclei(np.zeros((8, 8), np.int32), np.zeros((8, 8), np.float32), (0, 0))

    assert all(len(values) == 0 for values in empty.values())
