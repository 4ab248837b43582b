"""Pictures of embeddings: the right cells in the right places, and the same file again."""

from __future__ import annotations

import builtins

import cv2
import numpy as np
import pytest
from matplotlib.cm import cividis

from ccrl_wsi.clusters.palette import cluster_colors
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.evaluation.pictures import (
    Groups,
    describe_cluster,
    draw_confusion,
    draw_gallery,
    draw_scatter,
    nearest_rows,
    project,
)
from tests.drawn_crops import coloured_crops

FAR = (13, 201, 131)


def groups(number, names):
    return Groups("Groups", np.array(number), tuple(names), cluster_colors(len(names)))


def colors_in(path):
    image = cv2.imread(str(path))[..., ::-1]
    return {tuple(color) for color in np.unique(image.reshape(-1, 3), axis=0).tolist()}


def test_the_nearest_crops_of_a_cluster_come_first():
    cluster = np.array([0, 1, 0, 0, 1, 0])
    distance = np.array([3.0, 0.1, 1.0, 2.0, 0.2, 1.0])
    assert nearest_rows(cluster, distance, 0, 3).tolist() == [2, 5, 3]
    assert nearest_rows(cluster, distance, 1, 9).tolist() == [1, 4]
    assert nearest_rows(cluster, distance, 2, 3).tolist() == []


def test_a_cluster_is_described_by_its_classes():
    clusters = groups([1, 1, 1, 1, 0, 1], ["C01", "C02", "C03"])
    classes = groups([0, 2, 2, 2, 0, 2], ["round", "absent", "long"])
    assert describe_cluster(clusters, classes, 1) == "C02: 5 cells, 80 % long, 20 % round"
    assert describe_cluster(clusters, classes, 2) == "C03: 0 cells"


def test_two_components_are_the_widest_directions():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 5)) * [0.1, 9, 0.1, 3, 0.1]
    points = project(vectors, "pca", 0)
    centred = vectors - vectors.mean(axis=0)
    for at, column in ((0, 1), (1, 3)):
        assert abs(np.corrcoef(points[:, at], centred[:, column])[0, 1]) > 0.99
    assert np.array_equal(points, project(vectors, "pca", 1))
    assert project(vectors[:, :1], "pca", 0).shape == (200, 2)


def test_without_umap_the_picture_is_refused_and_not_another_one(monkeypatch):
    importing = builtins.__import__

    def without_umap(name, *arguments, **more):
        if name == "umap":
            raise ImportError(name)
        return importing(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_umap)
    with pytest.raises(ConfigError, match=r"pip install umap-learn.*projection=pca"):
        project(np.zeros((10, 3)), "umap", 0)


def test_a_scatter_shows_every_group_in_its_colour_and_is_the_same_again(tmp_path):
    rng = np.random.default_rng(0)
    points, label = rng.normal(size=(60, 2)), np.arange(60) % 3
    both = (groups(label, "abc"), groups(1 - label % 2, "xy"))
    for name in ("one", "two"):
        draw_scatter(tmp_path / name, points, both, "Axis")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert set(cluster_colors(3)) <= colors_in(tmp_path / "one")


def test_a_confusion_table_has_dark_and_light_fields(tmp_path):
    path = tmp_path / "deep" / "confusion.png"
    draw_confusion(path, np.array([[9, 0, 0], [1, 0, 4]]), ("C01", "C02"), ("a", "b", "c"))
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image.shape[1] > image.shape[0]
    ends = {tuple(cividis(x, bytes=True)[:3]) for x in (0.0, 1.0)}
    assert ends <= colors_in(path)


def test_a_gallery_shows_the_nearest_crops(tmp_path):
    crops = coloured_crops(12, noise=0.0)
    clusters = groups(crops.label, ["C01", "C02", "C03"])
    distance = np.where(np.arange(12) < 6, 0.0, 1.0)
    odd = crops.crops.copy()
    odd[6:] = FAR  # the far ones: must not be seen
    path = tmp_path / "gallery.png"
    draw_gallery(path, odd, distance, clusters, clusters, 2)
    seen = colors_in(path)
    assert {tuple(crops.crops[i, 0, 0].tolist()) for i in range(3)} <= seen
    reference = tmp_path / "far.png"
    draw_gallery(reference, odd, -distance, clusters, clusters, 2)
    assert FAR not in seen
    assert FAR in colors_in(reference)
