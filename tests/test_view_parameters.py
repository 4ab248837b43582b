"""What is drawn for views: shares, ranges, laws, and that it depends on nothing else."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.training.settings import ViewSettings
from ccrl_wsi.training.view_parameters import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    WHOLE_BOX,
    ViewParameters,
    check_views,
    draw_pair,
    draw_views,
)
from tests.drawn_views import EVERYTHING, no_change

N = 20_000
UNLIKELY = 1e-4
"""Of a fixed seed, so that a test that passes once passes always."""


@pytest.fixture(scope="module")
def many() -> ViewParameters:
    return draw_views(EVERYTHING, N, np.random.default_rng(1), cropped=True)


def rows(p: ViewParameters) -> dict[str, np.ndarray]:
    return {f.name: getattr(p, f.name) for f in fields(p)}


def assert_same(a: ViewParameters, b: ViewParameters) -> None:
    for name, values in rows(a).items():
        np.testing.assert_array_equal(values, getattr(b, name), err_msg=name)


def is_uniform(values, low, high) -> bool:
    assert low <= values.min()
    assert values.max() <= high
    return kstest(values, "uniform", (low, high - low)).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("share", "applied"),
    [
        ("p_jitter", lambda p: p.is_jittered),
        ("p_grey", lambda p: p.is_grey),
        ("p_blur", lambda p: p.is_blurred),
        ("p_flip", lambda p: p.is_flipped[:, 0]),
        ("p_flip", lambda p: p.is_flipped[:, 1]),
        ("p_rotate", lambda p: p.angle_deg != 0),
        ("p_stain", lambda p: p.is_stained),
        ("p_exposure", lambda p: p.is_exposed),
    ],
)
def test_a_change_is_made_as_often_as_asked(many, share, applied):
    p = getattr(EVERYTHING, share)
    assert abs(applied(many).mean() - p) < 4 * np.sqrt(p * (1 - p) / N)


def test_numbers_are_uniform_in_their_ranges(many):
    jitter = many.jitter[many.is_jittered]
    for column in (BRIGHTNESS, CONTRAST, SATURATION):
        assert is_uniform(jitter[:, column], 0.6, 1.4)
    assert is_uniform(jitter[:, HUE], -0.1, 0.1)
    assert is_uniform(many.blur_px[many.is_blurred], 0.1, 2.0)
    assert is_uniform(many.angle_deg[many.angle_deg != 0], -180, 180)
    for stain in range(3):
        assert is_uniform(many.stain_factor[many.is_stained, stain], 0.95, 1.05)
        assert is_uniform(many.stain_shift[many.is_stained, stain], -0.05, 0.05)


def test_changes_are_drawn_independently(many):
    applied = [many.is_jittered, many.is_grey, many.is_blurred, many.is_stained]
    applied += [many.angle_deg != 0, *many.is_flipped.T, *many.box[:, :2].T]
    correlation = np.corrcoef(np.array(applied, float))
    # A box's corner is no number of its own: the larger the box, the nearer both to 0.
    correlation[-1, -2] = correlation[-2, -1] = 0
    assert np.abs(correlation - np.eye(len(applied))).max() < 4.5 / np.sqrt(N)


def test_each_of_the_24_orders_is_as_likely(many):
    np.testing.assert_array_equal(np.sort(many.order, axis=1), np.tile(np.arange(4), (N, 1)))
    _, counts = np.unique(many.order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert chi2.sf((((counts - N / 24) ** 2) / (N / 24)).sum(), 23) > UNLIKELY


def test_boxes_lie_inside_and_have_the_area_and_ratio_asked(many):
    left, top, width, height = many.box.T
    assert (np.minimum(left, top) >= 0).all()
    assert (np.maximum(left + width, top + height) <= 1 + 1e-12).all()
    area, ratio = width * height, width / height
    assert 0.2 - 1e-12 <= area.min() < 0.21
    assert 0.98 < area.max() <= 1
    assert 0.75 - 1e-12 <= ratio.min() < 0.76
    assert 4 / 3 - 0.02 < ratio.max() <= 4 / 3 + 1e-12


def test_boxes_follow_the_law_of_torchvision(many):
    # Of a large image, where its rounding to whole pixels does not show.
    side, n = 4000, 4000
    image = torch.empty(1, side, side)
    torch.manual_seed(0)
    ask = (list(EVERYTHING.crop_area), list(EVERYTHING.crop_ratio))
    boxes = np.array([RandomResizedCrop.get_params(image, *ask) for _ in range(n)]) / side
    top, left, height, width = boxes.T
    ours = many.box.T
    for theirs, mine in [
        (width * height, ours[2] * ours[3]),
        (width / height, ours[2] / ours[3]),
        (left, ours[0]),
        (top, ours[1]),
    ]:
        assert ks_2samp(theirs, mine).pvalue > UNLIKELY


@pytest.mark.parametrize(
    ("area", "ratio", "size"),
    [((0.9, 1.0), (4, 5), (1, 0.25)), ((0.9, 1.0), (0.2, 0.25), (0.25, 1))],
)
def test_where_nothing_fits_the_middle_is_taken_as_torchvision_does(area, ratio, size):
    settings = ViewSettings(crop_area=area, crop_ratio=ratio)
    width, height = size
    expected = [(1 - width) / 2, (1 - height) / 2, width, height]
    boxes = draw_views(settings, 5, np.random.default_rng(0), cropped=True).box
    np.testing.assert_allclose(boxes, np.tile(expected, (5, 1)))
    top, left, h, w = RandomResizedCrop.get_params(torch.empty(1, 400, 400), [*area], [*ratio])
    np.testing.assert_allclose(expected, np.array([left, top, w, h]) / 400)


def test_a_whole_view_never_loses_its_border():
    assert (draw_views(EVERYTHING, 500, np.random.default_rng(0), False).box == WHOLE_BOX).all()


@pytest.mark.parametrize(
    ("cropped", "cut"), [("one", (True, False)), ("both", (True, True)), ("none", (False, False))]
)
def test_only_the_local_view_is_cut_unless_told_otherwise(cropped, cut):
    pair = draw_pair(ViewSettings(cropped=cropped), 200, np.random.default_rng(0))
    assert tuple((view.box != WHOLE_BOX).any(axis=1).all() for view in pair) == cut


def test_two_views_of_a_crop_have_nothing_in_common():
    local, whole = draw_pair(EVERYTHING, N, np.random.default_rng(0))
    assert abs(np.corrcoef(local.jitter[:, 0], whole.jitter[:, 0])[0, 1]) < 4 / np.sqrt(N)
    assert abs(np.corrcoef(local.angle_deg, whole.angle_deg)[0, 1]) < 4 / np.sqrt(N)


def test_the_same_generator_gives_the_same_views():
    first, again, other = (
        draw_views(EVERYTHING, 50, np.random.default_rng(seed), True) for seed in (3, 3, 4)
    )
    assert_same(first, again)
    assert not np.array_equal(first.box, other.box)


def test_parts_are_the_rows_of_the_whole(many):
    for part in (slice(0, 512), slice(512, 1024), slice(19_999, 30_000), slice(7, 7)):
        for name, values in rows(many.part(part)).items():
            np.testing.assert_array_equal(values, getattr(many, name)[part])


def test_views_of_the_first_crops_do_not_depend_on_how_many_follow():
    few, more = (draw_views(EVERYTHING, n, np.random.default_rng(5), True) for n in (10, 99))
    assert_same(few, more.part(slice(0, 10)))


def test_leaving_out_a_change_leaves_the_others_as_they_were(many):
    less = ViewSettings(p_jitter=0, p_blur=0, crop_area=(0.5, 1.0))
    other = draw_views(less, N, np.random.default_rng(1), cropped=True)
    for name in ("is_flipped", "angle_deg", "is_grey", "order"):
        np.testing.assert_array_equal(getattr(other, name), getattr(many, name))
    assert not other.is_jittered.any()
    assert not other.is_blurred.any()


def test_shares_of_none_and_all():
    kinds = ("jitter", "grey", "blur", "flip", "rotate", "stain", "exposure")
    nothing = {f"p_{name}": 0 for name in kinds}
    none = draw_views(ViewSettings(**nothing), 99, np.random.default_rng(0), cropped=False)
    same = no_change(99)
    for name in set(rows(same)) - {"order"}:
        np.testing.assert_array_equal(getattr(none, name), getattr(same, name), err_msg=name)
    everything = draw_views(
        ViewSettings(**dict.fromkeys(nothing, 1)), 99, np.random.default_rng(0), cropped=True
    )
    for name in ("grey", "jittered", "blurred", "flipped", "moved", "stained", "exposed"):
        assert getattr(everything, f"is_{name}").all(), name


def test_a_factor_is_never_negative():
    wild = draw_views(ViewSettings(p_jitter=1, brightness=3), N, np.random.default_rng(0), False)
    assert is_uniform(wild.jitter[:, BRIGHTNESS], 0, 4)


@pytest.mark.parametrize("name", ["p_grey", "p_stain", "saturation", "hue"])
@pytest.mark.parametrize("n_channels", [1, 2, 4])
def test_changes_of_colour_are_refused_for_what_is_not_rgb(name, n_channels):
    colourless = {"p_grey": 0, "p_stain": 0, "saturation": 0, "hue": 0}
    check_views(ViewSettings(**colourless), n_channels)
    check_views(ViewSettings(**colourless | {name: 0.3}), 3)
    with pytest.raises(ConfigError, match=rf"{n_channels} channels.*views\.{name}=0\.$"):
        check_views(ViewSettings(**colourless | {name: 0.3}), n_channels)


def test_ranges_of_a_jitter_that_is_never_made_do_not_matter():
    check_views(ViewSettings(p_grey=0, p_jitter=0), 5)


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_area": (0.0, 1.0)},
        {"crop_area": (0.5, 0.2)},
        {"crop_area": (0.5, 1.5)},
        {"crop_ratio": (0, 1)},
        {"crop_ratio": (2, 1)},
        {"blur_px": (0.0, 2.0)},
        {"blur_px": (3.0, 2.0)},
    ],
)
def test_impossible_ranges_are_refused(setting):
    with pytest.raises(ConfigError, match=rf"views\.{next(iter(setting))}=.*smaller first"):
        check_views(ViewSettings(**setting), 3)
