import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.crops.cut import crop_windows, cut_crops, inside
from ccrl_wsi.geometry import Box

boxes = st.lists(
    st.tuples(*[st.integers(-50, 5000)] * 2, *[st.integers(1, 300)] * 2), min_size=1, max_size=9
).map(np.array)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("box", "scale", "window"),
    [
        ([10, 20, 16, 8], 2.0, [2, 8, 32, 32]),
        ([10, 20, 16, 8], 1.0, [10, 16, 16, 16]),
        ([0, 0, 1, 1], 2.0, [-1, -1, 2, 2]),
        ([3, 3, 5, 5], 1.5, [1, 1, 8, 8]),
    ],
)
def test_a_window_is_a_multiple_of_the_long_side_around_the_box(box, scale, window):
    assert crop_windows(np.array([box]), scale).tolist() == [window]


@given(boxes, st.sampled_from([1.0, 1.3, 2.0, 3.0]))
def test_windows_hold_their_boxes_and_share_their_centres(boxes, scale):
    windows = crop_windows(boxes, scale)

    assert (windows[:, :2] <= boxes[:, :2]).all()
    assert (windows[:, :2] + windows[:, 2:] >= boxes[:, :2] + boxes[:, 2:]).all()
    off = (2 * windows[:, :2] + windows[:, 2:]) - (2 * boxes[:, :2] + boxes[:, 2:])
    assert set(np.unique(off)) <= {-1, 0}


@given(boxes, st.integers(-3000, 3000), st.integers(-3000, 3000))
def test_moving_a_box_moves_its_window(boxes, right, down):
    moved = crop_windows(boxes + np.array([right, down, 0, 0]), 2.0)

    np.testing.assert_array_equal(moved, crop_windows(boxes, 2.0) + np.array([right, down, 0, 0]))


def test_a_window_of_the_crops_size_is_cut_unchanged():
    rgb = noise(90, 80)

    crops = cut_crops(rgb, np.array([[10, 20, 32, 32], [48, 58, 32, 32]]), 32)

    np.testing.assert_array_equal(crops[0], rgb[20:52, 10:42])
    np.testing.assert_array_equal(crops[1], rgb[58:90, 48:80])


def test_a_flipped_view_is_cut_like_its_copy():
    flipped = noise(60, 60)[..., ::-1]
    windows = np.array([[5, 5, 40, 40], [40, 40, 40, 40]])

    np.testing.assert_array_equal(
        cut_crops(flipped, windows, 32), cut_crops(flipped.copy(), windows, 32)
    )


def test_a_window_of_twice_the_size_is_averaged():
    rgb = noise(80, 80)

    crop = cut_crops(rgb, np.array([[8, 4, 64, 64]]), 32)[0]

    blocks = rgb[4:68, 8:72].reshape(32, 2, 32, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(crop - blocks).max() <= 0.5


def test_shrinking_does_not_turn_fine_stripes_into_coarse_ones():
    rgb = np.zeros((96, 96, 3), np.uint8)
    rgb[:, ::2] = 255

    crop = cut_crops(rgb, np.array([[0, 0, 96, 96]]), 32)[0].astype(int)

    assert np.abs(crop - 127).max() < 50


def test_a_small_window_is_enlarged_smoothly():
    rgb = np.repeat(np.linspace(0, 255, 16).astype(np.uint8)[None, :, None], 16, 0).repeat(3, 2)

    crop = cut_crops(rgb, np.array([[0, 0, 16, 16]]), 32)[0, 16, :, 0].astype(int)

    assert (np.diff(crop) >= 0).all()
    assert np.diff(crop).max() < 14


@pytest.mark.parametrize("corner", [(-16, -16), (64, -16), (-16, 64), (64, 64)])
def test_at_a_corner_the_outside_is_white_and_the_nucleus_stays_centred(corner):
    rgb = np.full((80, 80, 3), 9, np.uint8)

    crop = cut_crops(rgb, np.array([[*corner, 32, 32]]), 32)[0]

    is_dark = (crop == 9).all(axis=2)
    assert is_dark.sum() == 256
    assert (crop[~is_dark] == 255).all()
    rows, columns = np.nonzero(is_dark)
    assert (rows.min() == 0) == (corner[1] > 0)
    assert (columns.min() == 0) == (corner[0] > 0)


def test_a_window_off_the_image_is_white():
    crops = cut_crops(noise(20, 20), np.array([[100, 100, 40, 40], [-60, 3, 20, 20]]), 32)

    assert (crops == 255).all()


@pytest.mark.parametrize("side", [9, 32, 47, 70])
def test_a_crop_is_the_same_whatever_surrounds_the_window(side):
    rgb = noise(200, 200)
    window = np.array([[70, 60, side, side]])

    whole = cut_crops(rgb, window, 32)
    part = cut_crops(rgb[50:150, 33:170].copy(), window - np.array([33, 50, 0, 0]), 32)

    np.testing.assert_array_equal(whole, part)


def test_padding_equals_cutting_from_an_image_with_a_white_border():
    rgb = noise(60, 60)
    bordered = np.pad(rgb, ((40, 40), (40, 40), (0, 0)), constant_values=255)
    windows = crop_windows(np.array([[0, 0, 20, 12], [50, 55, 10, 5], [20, 56, 25, 4]]), 2.0)

    crops = cut_crops(rgb, windows, 32)

    np.testing.assert_array_equal(
        crops, cut_crops(bordered, windows + np.array([40, 40, 0, 0]), 32)
    )


def test_only_windows_wholly_in_the_box_are_inside():
    windows = np.array([[0, 0, 10, 10], [-1, 0, 10, 10], [1, 1, 10, 10], [0, 1, 10, 10]])

    assert inside(windows, Box(0, 0, 10, 10)).tolist() == [True, False, False, False]
    assert inside(windows, Box(-1, 0, 12, 11)).tolist() == [True, True, True, True]


def test_no_windows_give_no_crops():
    windows = crop_windows(np.zeros((0, 4), np.int64), 2.0)

    assert windows.shape == (0, 4)
    assert cut_crops(noise(9, 9), windows, 32).shape == (0, 32, 32, 3)


def test_tissue_that_went_on_is_mirrored_at_the_edge():
    rgb = noise(40, 30)
    windows = np.array([[-10, -5, 24, 24], [20, 30, 24, 24], [3, 4, 20, 20], [-70, 5, 24, 24]])
    found = cut_crops(rgb, windows, 24, "mirror")
    around = np.pad(rgb, ((100, 100), (100, 100), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(found, cut_crops(around, windows + [100, 100, 0, 0], 24))


def test_an_image_of_one_pixel_has_a_mirror_image():
    rgb = np.full((1, 1, 3), 7, np.uint8)
    assert (cut_crops(rgb, np.array([[-2, -2, 5, 5]]), 8, "mirror") == 7).all()
