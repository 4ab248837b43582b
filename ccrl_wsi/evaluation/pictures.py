"""Pictures of an embedding and its clusters, for people. Written with Matplotlib, without a screen.

Colours are given by the caller; they should be told apart with the common colour-vision
deficiencies. Nothing is scored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.seeding import rng_for

DPI = 150
DARK_TEXT_ABOVE = 0.6
"""Share from which a field of the heat map is so light that its text must be dark."""


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """Cells in named groups: classes or clusters.

    Parameters
    ----------
    number
        (n,) index into ``names`` and ``colors`` (RGB 0..255).
    """

    title: str
    number: IntArray
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def where(self, rows: IntArray | BoolArray) -> Groups:
        """The groups of some of the cells."""
        return Groups(self.title, self.number[rows], self.names, self.colors)


def project(vectors: FloatArray, method: Literal["pca", "umap"], seed: int) -> FloatArray:
    """Points (n, 2) for embeddings (n, d): two principal components, or UMAP (McInnes 2018).

    Raises
    ------
    ConfigError
        If UMAP is asked for and umap-learn is not installed.
    """
    if method == "umap":
        return _umap(vectors, seed)
    wide = vectors if vectors.shape[1] > 1 else np.pad(vectors, ((0, 0), (0, 1)))
    with threadpool_limits(1):
        points: FloatArray = PCA(2, svd_solver="full").fit_transform(wide.astype(np.float64))
    return points


def draw_scatter(path: Path, points: FloatArray, groups: tuple[Groups, ...], axis: str) -> None:
    """Write ``points`` (n, 2) once for each way of grouping them; ``axis`` names the axes."""
    figure = new_figure(5.5 * len(groups), 5.2)
    order = rng_for(0, "drawing order").permutation(len(points))  # no group covers the others
    for at, group in enumerate(groups):
        axes = figure.add_subplot(1, len(groups), at + 1)
        colors = np.array(group.colors)[group.number] / 255
        x, y = points[order].T
        axes.scatter(x, y, s=4, c=colors[order], linewidths=0, rasterized=True)
        for name, color in zip(group.names, group.colors, strict=True):
            axes.scatter([], [], s=30, color=np.array(color) / 255, label=name)
        axes.legend(loc="upper right", fontsize=8, framealpha=0.8)
        axes.set(title=group.title, xlabel=f"{axis} 1", ylabel=f"{axis} 2", xticks=[], yticks=[])
    save_figure(figure, path)


def draw_confusion(
    path: Path, table: IntArray, cluster_names: tuple[str, ...], class_names: tuple[str, ...]
) -> None:
    """Write a heat map of ``table`` (k, n_classes): counts, coloured by the share of the class."""
    k, n_classes = table.shape
    figure = new_figure(2.2 + 1.1 * n_classes, 1.4 + 0.55 * k)
    axes = figure.add_subplot()
    share = table / np.maximum(1, table.sum(axis=0))
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(table):
        color = "black" if share[row, column] > DARK_TEXT_ABOVE else "white"
        axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(n_classes), class_names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(k), cluster_names, fontsize=8)
    figure.colorbar(image, label="share of the class")
    save_figure(figure, path)


def draw_gallery(
    path: Path,
    crops: ByteArray,
    distance: FloatArray,
    clusters: Groups,
    classes: Groups,
    per_cluster: int,
) -> None:
    """Write, cluster by cluster, the crops nearest to the centre.

    Parameters
    ----------
    crops
        (n, side, side, 3) uint8.
    distance
        (n,) to the centre of a crop's own cluster.
    """
    figure = new_figure(0.55 * per_cluster + 0.4, 1.0 * len(clusters.names) + 0.2)
    panels = np.atleast_1d(figure.subplots(len(clusters.names), 1))
    for number, axes in enumerate(panels):
        rows = nearest_rows(clusters.number, distance, number, per_cluster)
        strip = np.full((crops.shape[1], per_cluster * crops.shape[2], 3), 255, np.uint8)
        for at, crop in enumerate(crops[rows]):
            strip[:, at * crop.shape[1] : (at + 1) * crop.shape[1]] = crop
        axes.imshow(strip, interpolation="nearest")
        axes.set_title(describe_cluster(clusters, classes, number), fontsize=8, loc="left")
        _without_frame(axes)
    save_figure(figure, path)


def nearest_rows(cluster: IntArray, distance: FloatArray, number: int, n_wanted: int) -> IntArray:
    """Rows of the ``n_wanted`` cells of a cluster that are nearest to its centre, nearest first."""
    rows = np.flatnonzero(cluster == number)
    chosen: IntArray = rows[np.argsort(distance[rows], kind="stable")[:n_wanted]]
    return chosen


def describe_cluster(clusters: Groups, classes: Groups, number: int) -> str:
    """Such as ``C02: 310 cells, 71 % spindle, 20 % epithelial, 9 % inflammatory``."""
    label = classes.number[clusters.number == number]
    counts = np.bincount(label, minlength=len(classes.names))
    order = [c for c in np.argsort(-counts, kind="stable").tolist() if counts[c]]
    shares = [f"{100 * counts[c] / len(label):.0f} % {classes.names[c]}" for c in order]
    return ", ".join([f"{clusters.names[number]}: {len(label)} cells", *shares])


def _umap(vectors: FloatArray, seed: int) -> FloatArray:
    try:
        from umap import UMAP
    except ImportError:
        raise ConfigError(
            "pictures.projection=umap needs umap-learn, which is not installed. "
            "`pip install umap-learn`, or set pictures.projection=pca."
        ) from None
    state = int(rng_for(seed, "umap").integers(2**31))
    # Several threads would make it another picture each time.
    points = UMAP(n_components=2, random_state=state, n_jobs=1).fit_transform(vectors)
    return np.asarray(points, dtype=np.float64)


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """An empty figure that needs no screen."""
    figure = Figure(figsize=(width_inch, height_inch), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _without_frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # No metadata: the same picture is the same file whichever Matplotlib drew it.
    figure.savefig(path, format="png", metadata={"Software": None})
