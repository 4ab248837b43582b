import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.segmentation import relabel_sequential

from ccrl_wsi.nuclei.regions import find_regions

label_images = arrays.arrays(
    np.int32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 5)
)


def test_a_rectangle_has_the_box_area_and_sums_it_was_drawn_with():
    labels = np.zeros((40, 60), np.int32)
    labels[10:14, 20:30] = 1

    regions = find_regions(labels)

    assert regions.boxes.tolist() == [[20, 10, 10, 4]]
    assert regions.n_pixels.tolist() == [40]
    assert regions.coordinate_sums.tolist() == [[4 * sum(range(20, 30)), 10 * sum(range(10, 14))]]


@pytest.mark.parametrize(
    ("place", "sides"),
    [
        (np.s_[3:5, 0:2], [True, False, False, False]),
        (np.s_[0:2, 3:5], [False, True, False, False]),
        (np.s_[3:5, 6:9], [False, False, True, False]),
        (np.s_[5:8, 3:5], [False, False, False, True]),
        (np.s_[3:5, 3:5], [False, False, False, False]),
        (np.s_[:, :], [True, True, True, True]),
    ],
)
def test_touched_borders_are_left_top_right_bottom(place, sides):
    labels = np.zeros((8, 9), np.int32)
    labels[place] = 1

    assert find_regions(labels).touches_border.tolist() == [sides]


@settings(max_examples=80, deadline=None)
@given(label_images)
def test_sums_agree_with_plain_loops(labels):
    labels = relabel_sequential(labels)[0].astype(np.int32)

    regions = find_regions(labels)

    for i in range(len(regions)):
        y, x = np.nonzero(labels == i + 1)
        box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        assert regions.boxes[i].tolist() == box
        assert regions.n_pixels[i] == len(x)
        assert regions.coordinate_sums[i].tolist() == [x.sum(), y.sum()]


def test_an_empty_image_has_no_regions():
    regions = find_regions(np.zeros((5, 5), np.int32))

    assert len(regions) == 0
    assert regions.boxes.shape == (0, 4)
    assert regions.touches_border.shape == (0, 4)


def test_rows_can_be_selected():
    labels = np.arange(1, 7, dtype=np.int32).reshape(2, 3)

    some = find_regions(labels).where(np.array([4, 1]))

    assert some.label.tolist() == [5, 2]
    assert some.boxes[:, :2].tolist() == [[1, 1], [1, 0]]


def test_a_missing_number_is_refused():
    with pytest.raises(ValueError, match="1 is missing"):
        find_regions(np.full((3, 3), 2, np.int32))
