"""Windows put together again are the image."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.nuclei.windows import plan_windows, predict_in_windows


@pytest.mark.parametrize("shape", [(1, 1), (5, 90), (64, 64), (65, 200), (300, 131)])
@pytest.mark.parametrize("margin", [0, 12])
def test_what_windows_keep_is_the_whole_image(shape, margin):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    windows = plan_windows(shape, window_px=100, margin=margin, multiple=8)

    cuts = list(windows.cut(image))
    inner = np.s_[margin : margin + windows.kept[0], margin : margin + windows.kept[1]]
    whole = windows.blank(np.stack(cuts))
    for number, cut in enumerate(cuts):
        windows.place(number, cut[inner], whole)

    assert np.array_equal(whole, image)
    assert {cut.shape for cut in cuts} == {tuple(k + 2 * margin for k in windows.kept) + (3,)}


def test_windows_are_as_few_and_as_small_as_cover_the_image():
    windows = plan_windows((2304, 1000), window_px=1024, margin=76, multiple=8)

    assert windows.kept == (768, 504)
    assert len(windows.starts) == 6


def test_a_window_that_keeps_nothing_is_refused():
    with pytest.raises(ConfigError, match="set 160 or more"):
        plan_windows((100, 100), window_px=152, margin=76, multiple=8)


def test_maps_of_windows_put_together_are_those_of_the_image():
    rgb = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    windows = plan_windows(rgb.shape[:2], 40, 4, multiple=8)
    seen = []

    def infer(batch):
        seen.append(len(batch))
        inner = batch[:, 4:-4, 4:-4]
        return {"red": inner[..., 0], "all": inner.astype(np.float32)}

    maps = predict_in_windows(rgb, windows, 5, infer)

    assert np.array_equal(maps["red"], rgb[..., 0])
    assert np.array_equal(maps["all"], rgb)
    assert max(seen) == 5
    assert sum(seen) == len(windows.starts)
