"""Pictures show outlines where the nuclei are, in their clusters' colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ccrl_wsi.outputs.picture import draw_outlines, save_png, side_by_side, with_legend
from ccrl_wsi.records import Outlines

RED, BLUE = (255, 0, 0), (0, 0, 255)
SQUARE = np.array([[10.0, 10], [30, 10], [30, 30], [10, 30], [10, 10]])
OUTLINES = Outlines(np.concatenate([SQUARE, SQUARE + 40]), np.array([0, 5, 10]))


def test_outlines_are_drawn_in_the_colour_of_their_cluster():
    white = np.full((100, 100, 3), 255, np.uint8)
    drawn = draw_outlines(white, OUTLINES, np.array([1, 0]), [RED, BLUE], width_px=1)
    left, second = drawn[20, 8:12].astype(int), drawn[60, 48:52].astype(int)
    assert left[:, 0].min() < 160
    assert (left[:, 2] == 255).all()
    assert second[:, 2].min() < 160
    assert (second[:, 0] == 255).all()
    assert tuple(drawn[20, 20]) == (255, 255, 255)
    assert (white == 255).all()


def test_filling_tints_the_inside_only():
    white = np.full((100, 100, 3), 255, np.uint8)
    drawn = draw_outlines(white, OUTLINES, np.array([1, 0]), [RED, BLUE], fill=0.5)
    assert drawn[20, 20, 2] == 255
    assert 120 < drawn[20, 20, 0] < 135
    assert tuple(drawn[40, 40]) == (255, 255, 255)


def test_a_legend_and_a_neighbour_make_the_picture_larger(tmp_path):
    tile = np.zeros((60, 400, 3), np.uint8)
    both = side_by_side([tile, tile], gap_px=10)
    assert both.shape == (60, 810, 3)
    whole = with_legend(both, ["C01", "C02"], [RED, BLUE], [3, 4])
    assert whole.shape[0] > 60
    save_png(tmp_path / "a" / "p.png", whole)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a" / "p.png")), whole)
