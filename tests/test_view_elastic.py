import numpy as np
import torch

from ccrl_wsi.training.settings import ViewSettings
from ccrl_wsi.training.view_parameters import draw_views
from ccrl_wsi.training.views import apply_view
from tests.drawn_views import no_change


def ramp(n=1, side=33):
    """Crops whose first channel is x and second is y, from 0 to 1."""
    axis = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, 0.5 + 0 * x]).repeat(n, 1, 1, 1)


def test_the_same_displacement_everywhere_is_a_shift():
    bend = np.zeros((1, 2, 5, 5))
    bend[0, 0] = 0.1  # along x, a tenth of the side
    view = apply_view(ramp(), no_change(1, bend=bend))
    middle = slice(6, 27)
    expected = ramp()[0, 0, middle, middle] + 0.1 * 33 / 32
    torch.testing.assert_close(view[0, 0, middle, middle], expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        view[0, 1, middle, middle], ramp()[0, 1, middle, middle], atol=1e-4, rtol=0
    )


def test_only_the_bent_crops_change():
    bend = np.zeros((3, 2, 5, 5))
    bend[1] = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 5, 5))
    pixels = ramp(3)
    view = apply_view(pixels, no_change(3, bend=bend))
    assert torch.equal(view[[0, 2]], pixels[[0, 2]])
    assert (view[1] - pixels[1]).abs().max() > 0.02
    assert view.min() >= 0
    assert view.max() <= 1


def test_other_draws_do_not_depend_on_bending():
    def drawn(**fields):
        return draw_views(ViewSettings(**fields), 50, np.random.default_rng(3), cropped=True)

    plain, bent = drawn(), drawn(p_elastic=0.4, elastic=0.08)
    for name in ("box", "angle_deg", "jitter", "blur_px", "is_flipped"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(bent, name))
    assert not plain.is_bent.any()
    assert 8 < bent.is_bent.sum() < 32
    assert 0.06 < np.abs(bent.bend).max() <= 0.08


def test_the_two_views_of_a_pair_bend_differently():
    rng = np.random.default_rng(0)
    first, second = (draw_views(ViewSettings(p_elastic=1), 4, rng, False) for _ in range(2))
    assert not np.array_equal(first.bend, second.bend)
