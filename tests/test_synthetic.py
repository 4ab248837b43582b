from __future__ import annotations

import cv2
import numpy as np
import pytest

from ccrl_wsi.geometry import Box
from ccrl_wsi.synthetic import (
    KINDS,
    DrawnSlideSpec,
    PerfectSegmenter,
    draw_slide,
    paint_labels,
    truth_tile,
)

SPEC = DrawnSlideSpec(
    640, 512, n_nuclei=80, seed=3, centres_px=((0.5, 0.5), (320, 256), (639, 100))
)


@pytest.fixture(scope="module")
def drawn():
    return draw_slide(SPEC)


def test_all_nuclei_asked_for_are_there_in_one_piece_each(drawn):
    assert drawn.n_nuclei == 80
    assert set(np.unique(drawn.labels)) == set(range(81))
    pieces = [
        cv2.connectedComponents((drawn.labels == i).astype(np.uint8))[0] for i in range(1, 81)
    ]
    assert set(pieces) == {2}


def test_the_truth_describes_the_labels(drawn):
    for i in (0, 17, 79):
        rows, columns = np.nonzero(drawn.labels == i + 1)
        assert drawn.area_px[i] == len(rows)
        assert drawn.centroid_px[i] == pytest.approx([columns.mean() + 0.5, rows.mean() + 0.5])


def test_nuclei_lie_where_they_were_put(drawn):
    assert drawn.labels[0, 0] == 1
    assert drawn.labels[256, 320] == 2
    assert drawn.labels[100, 638] == 3
    assert np.hypot(*(drawn.centroid_px[1] - [320, 256])) < 3


def test_equal_specs_draw_equal_slides_and_another_seed_another(drawn):
    assert np.array_equal(draw_slide(SPEC).rgb, drawn.rgb)
    assert not np.array_equal(draw_slide(DrawnSlideSpec(640, 512, seed=4)).rgb, drawn.rgb)


def test_some_nuclei_touch_and_none_do_when_none_should(drawn):
    assert count_touching(drawn.labels) > 0
    apart = draw_slide(DrawnSlideSpec(512, 512, n_nuclei=60, touching_share=0.0))
    assert count_touching(apart.labels) == 0


def test_kinds_differ_as_they_should():
    drawn = draw_slide(DrawnSlideSpec(1024, 1024, n_nuclei=200, touching_share=0.0))
    grey = drawn.rgb.mean(axis=-1)
    shade = np.bincount(drawn.labels.ravel(), grey.ravel())[1:] / drawn.area_px
    by_kind = {kind.name: drawn.kind == i for i, kind in enumerate(KINDS)}
    lymphocyte, epithelial = by_kind["lymphocyte"], by_kind["epithelial"]
    assert np.median(drawn.area_px[lymphocyte]) < np.median(drawn.area_px[epithelial])
    assert np.median(shade[lymphocyte]) < np.median(shade[epithelial])
    assert grey[drawn.labels == 0].mean() > shade.max()


def test_glass_is_white_and_empty():
    drawn = draw_slide(DrawnSlideSpec(512, 512, n_nuclei=60, background_share=0.4))
    glass = cv2.erode((~drawn.is_tissue).astype(np.uint8), np.ones((25, 25))) > 0
    assert 0.25 < np.mean(~drawn.is_tissue) < 0.45
    assert drawn.rgb[glass].min() > 230
    assert not drawn.labels[~drawn.is_tissue].any()


def test_artefacts_spoil_only_what_they_say():
    clean = draw_slide(DrawnSlideSpec(512, 512, n_nuclei=60))
    spoiled = draw_slide(DrawnSlideSpec(512, 512, n_nuclei=60, pen=True, blur=True))
    assert np.array_equal(clean.rgb[~spoiled.is_spoiled], spoiled.rgb[~spoiled.is_spoiled])
    assert 0.1 < spoiled.is_spoiled.mean() < 0.4


def test_a_nucleus_that_cannot_be_placed_is_an_error():
    with pytest.raises(ValueError, match="x=600"):
        draw_slide(DrawnSlideSpec(512, 512, centres_px=((600, 5),)))
    with pytest.raises(ValueError, match="overlapping"):
        draw_slide(DrawnSlideSpec(512, 512, centres_px=((60, 50), (60, 50))))


def test_a_tile_of_the_truth_is_renumbered_and_empty_outside(drawn):
    box = Box(-20, 100, 200, 90)
    tile = truth_tile(drawn, box)
    assert tile.shape == (90, 200)
    assert not tile[:, :20].any()
    assert np.array_equal(tile[:, 20:] > 0, drawn.labels[100:190, :180] > 0)
    assert np.array_equal(np.unique(tile), np.arange(tile.max() + 1))


def test_the_perfect_segmenter_reads_painted_labels(drawn):
    painted = paint_labels(drawn.labels)
    assert np.array_equal(PerfectSegmenter()(painted, 0.25).labels, drawn.labels)
    box = Box(100, 80, 256, 200)
    found = PerfectSegmenter()(painted[80:280, 100:356], 0.25)
    assert np.array_equal(found.labels, truth_tile(drawn, box))
    assert found.n_nuclei == found.labels.max()


def count_touching(labels):
    pairs = [(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])]
    return sum(int(np.count_nonzero((a != b) & (a > 0) & (b > 0))) for a, b in pairs)
