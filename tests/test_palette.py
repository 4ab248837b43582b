"""Colours of clusters, measured as people see them."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from ccrl_wsi.clusters.palette import cluster_colors, cluster_names

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# Glass, pale and strong eosin, pale and strong haematoxylin, and what lies between.
HE = [
    (240, 238, 240), (235, 200, 220), (225, 160, 195), (200, 120, 170), (150, 100, 165),
    (110, 70, 145), (90, 60, 130), (70, 45, 110),
]  # fmt: skip


def seen(rgb, vision):
    """CIELAB of (n, 3) colours 0..255 as someone with this ``vision`` sees them."""
    encoded = np.asarray(rgb, float) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    turned = np.clip(linear @ np.transpose(VISION[vision]), 0, 1)
    shown = np.where(turned <= 0.0031308, turned * 12.92, 1.055 * turned ** (1 / 2.4) - 0.055)
    return rgb2lab(shown[None])[0]


def least_difference(k, vision):
    lab = seen(cluster_colors(k), vision)
    difference = deltaE_ciede2000(lab[:, None], lab[None])
    return difference[~np.eye(k, dtype=bool)].min()


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("k", "least"), [(3, 45), (5, 18), (8, 14), (12, 14), (20, 9), (30, 8.6)])
def test_colours_are_told_apart_with_every_kind_of_vision(k, least, vision):
    assert least_difference(k, vision) >= least


def test_the_measure_knows_red_from_green_as_a_deuteranope_does_not(monkeypatch):
    pair = [(213, 94, 0), (140, 130, 0)]
    normal, blind = (deltaE_ciede2000(*seen(pair, v)) for v in ("normal", "deuteranopia"))
    assert normal > 30
    assert blind < 10


@pytest.mark.parametrize(("k", "least"), [(12, 20), (30, 12)])
def test_colours_are_seen_on_tissue_and_on_white(k, least):
    lab = seen(cluster_colors(k), "normal")
    ground = seen([*HE, (255, 255, 255)], "normal")
    assert deltaE_ciede2000(lab[:, None], ground[None]).min() >= least


def test_the_first_colours_stay_and_names_sort_as_text():
    assert cluster_colors(30)[:8] == cluster_colors(8)
    assert list(cluster_names(30)) == sorted(cluster_names(30))
    assert cluster_colors(31)[30] == cluster_colors(1)[0]
