"""The picture of a training has a panel for each measure that was written."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from ccrl_wsi.training.curves import draw_curves


def a_record(n=20):
    epoch = np.linspace(0, 10, n)
    record = {"epoch": epoch, "loss": 5 - 0.3 * epoch, "alignment": 1 / (1 + epoch)}
    return record | {"uniformity": -epoch / 5, "spread": np.full(n, 0.1), "other": epoch}


def ink_columns(path):
    """The columns of the picture in which the curves' colour is found."""
    rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
    near = np.abs(rgb - (0x1F, 0x4E, 0x79)).sum(axis=2) < 40
    return rgb.shape[1], np.flatnonzero(near.any(axis=0))


@pytest.mark.parametrize("missing", [(), ("uniformity", "spread")])
def test_there_is_one_panel_a_known_column(tmp_path, missing):
    record = {name: v for name, v in a_record().items() if name not in missing}
    path = tmp_path / "new" / "curves.png"
    draw_curves(record, path)
    width, ink = ink_columns(path)
    n_panels = 4 - len(missing)
    assert width == int(4.5 * n_panels * 110)
    assert set((ink * n_panels) // width) == set(range(n_panels))
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]


def test_a_single_reading_and_gaps_are_visible(tmp_path):
    record = a_record(3)
    record["loss"][1:] = np.nan
    draw_curves(record, tmp_path / "curves.png")
    width, ink = ink_columns(tmp_path / "curves.png")
    assert (ink < width / 4).sum() >= 3


def test_an_empty_record_gives_an_empty_picture(tmp_path):
    draw_curves({}, tmp_path / "curves.png")
    assert ink_columns(tmp_path / "curves.png")[1].size == 0


def test_pyplot_is_left_alone(tmp_path):
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from ccrl_wsi.training.curves import draw_curves\n"
        "draw_curves({'epoch': np.arange(3.0), 'loss': np.ones(3)}, Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "c.png"], check=True, timeout=120)
