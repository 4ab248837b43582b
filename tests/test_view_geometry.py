"""Crop, flips and rotation against torch's own, torchvision's and a slow twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch.nn.functional import grid_sample

from ccrl_wsi.training.view_change import make_changes
from ccrl_wsi.training.view_geometry import moving
from tests.drawn_views import drawn, no_change, noise

SIDE = 32


def moved(pixels, **fields):
    return make_changes(pixels, [moving(no_change(len(pixels), **fields))])


@pytest.mark.parametrize("side", [32, 16, 31, 48])
@pytest.mark.parametrize("quarters", [-2, -1, 1, 2])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_quarter_turns_and_flips_are_exact(side, quarters, flips):
    pixels = noise(2, side=side)
    flip_first = torch.flip(pixels, [3 - i for i, flip in enumerate(flips) if flip])
    expected = torch.rot90(flip_first, quarters, (2, 3))
    seen = moved(pixels, is_flipped=[flips] * 2, angle_deg=[90.0 * quarters] * 2)
    if side in (16, 32):  # grid_sample's -1..1 is exact for powers of two
        torch.testing.assert_close(seen, expected, atol=0, rtol=0)
    else:
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_flips_alone_are_exact():
    pixels = noise(2)
    both = moved(pixels, is_flipped=[(True, False), (False, True)])
    torch.testing.assert_close(both[0], pixels[0].flip(2), atol=0, rtol=0)
    torch.testing.assert_close(both[1], pixels[1].flip(1), atol=0, rtol=0)


@pytest.mark.parametrize("box", [(0, 0, 17, 23), (9, 5, 23, 17), (3, 4, 28, 28), (31, 0, 1, 1)])
def test_a_cut_out_is_that_of_torchvision(box):
    left, top, width, height = box
    pixels = noise(2)
    expected = tv.resized_crop(pixels, top, left, height, width, [SIDE, SIDE], antialias=True)
    seen = moved(pixels, box=np.tile(np.array(box) / SIDE, (2, 1)))
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [-170.0, -33.3, 5.0, 60.0, 179.0])
def test_a_rotation_is_that_of_torchvision_where_the_crop_is_seen(angle):
    pixels = noise(2)
    seen = moved(pixels, angle_deg=[angle] * 2)
    expected = tv.rotate(pixels, angle, tv.InterpolationMode.BILINEAR)
    y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    inside = torch.from_numpy(np.hypot(x, y) < SIDE / 2 - 1)
    torch.testing.assert_close(seen[..., inside], expected[..., inside], atol=1e-4, rtol=0)
    corners = ~inside
    assert (seen[..., corners] - expected[..., corners]).abs().max() > 0.1  # mirrored, not black


def test_corners_of_a_rotation_are_the_mirror_image():
    # A crop that is padded by its mirror image and rotated shows the same where the crop is.
    pixels, angle = noise(2), 45.0
    padded = torch.nn.functional.pad(pixels, [SIDE // 2] * 4, mode="reflect")
    expected = tv.rotate(padded, angle, tv.InterpolationMode.BILINEAR)
    middle = slice(SIDE // 2, -SIDE // 2)
    seen = moved(pixels, angle_deg=[angle] * 2)
    torch.testing.assert_close(seen, expected[..., middle, middle], atol=1e-4, rtol=0)


def read(image: np.ndarray, y: float, x: float) -> float:
    """Bilinear, the slow way."""
    y0, x0 = min(int(y), image.shape[0] - 1), min(int(x), image.shape[1] - 1)
    y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
    fy, fx = y - y0, x - x0
    upper = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    lower = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return upper * (1 - fy) + lower * fy


def mirrored(place: float, side: int) -> float:
    while not 0 <= place <= side - 1:
        place = -place if place < 0 else 2 * (side - 1) - place
    return place


def test_all_at_once_against_a_slow_twin():
    p, side = drawn(6, seed=3), 12
    pixels = noise(6, channels=1, side=side)
    seen = make_changes(pixels, [moving(p)])
    for row in range(6):
        image = pixels[row, 0].double().numpy()
        left, top, width, height = p.box[row] * side
        angle = np.radians(p.angle_deg[row])
        twin = np.empty((side, side))
        for j, i in np.ndindex(side, side):
            x, y = i - (side - 1) / 2, j - (side - 1) / 2
            x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
            x, y = mirrored(x + (side - 1) / 2, side), mirrored(y + (side - 1) / 2, side)
            x = side - 1 - x if p.is_flipped[row, 0] else x
            y = side - 1 - y if p.is_flipped[row, 1] else y
            x = np.clip((x + 0.5) * width / side - 0.5, 0, width - 1) + left
            y = np.clip((y + 0.5) * height / side - 0.5, 0, height - 1) + top
            twin[j, i] = read(image, y, x)
        np.testing.assert_allclose(seen[row, 0], twin, atol=2e-5)


def test_a_local_view_shows_nothing_of_what_is_outside_its_box():
    p = drawn(300, seed=5)
    pixels = torch.zeros(300, 1, SIDE, SIDE)
    for row, (left, top, width, height) in enumerate(p.box * SIDE):
        ys, xs = slice(int(top), int(np.ceil(top + height))), slice(int(left), None)
        pixels[row, 0, ys, xs.start : int(np.ceil(left + width))] = 1
    torch.testing.assert_close(make_changes(pixels, [moving(p)]), torch.ones_like(pixels))


def test_full_light_does_not_become_more():
    pixels, p = torch.ones(2000, 1, 13, 13), drawn(2000)
    seen = make_changes(pixels, [moving(p)])
    assert seen.max() == 1
    torch.testing.assert_close(seen, pixels)


@pytest.mark.parametrize("side", [32, 29])
def test_what_is_not_moved_keeps_its_bits(side):
    pixels = noise(4, side=side)
    angle = np.array([0.0, 30.0, 0.0, 0.0])
    seen = moved(pixels, angle_deg=angle)
    assert torch.equal(seen[[0, 2, 3]], pixels[[0, 2, 3]])
    assert not torch.equal(seen[1], pixels[1])


def test_resampling_the_whole_crop_would_not_hurt_it():
    # What the exactness of quarter turns rests on: reading at the pixels' centres gives the pixels.
    pixels = noise(1)
    at = (torch.arange(SIDE) * 2 + 1) / SIDE - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)[None]
    assert torch.equal(grid_sample(pixels, grid, align_corners=False), pixels)
