"""What lower precision does to embeddings and clusters, on the cells of a finished run.

    ccrl-wsi run SLIDES... -o OUT --set crops.keep=true
    python benchmarks/embedding_precision.py OUT    # minutes

The kept crops are embedded again in every precision and given the run's own clusters. Compared with
float32: the cosine of each cell's two embeddings (without the size, where that is a dimension) and
the share of cells that change their cluster; core-seconds beside it. On CPU cores that only emulate
a precision it takes longer than float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from measured import Table

from ccrl_wsi.clusters.kmeans import assign
from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.embeddings.encoders import make_encoder
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.store import open_store

PRECISIONS = ("float32", "bfloat16", "float16")


def main() -> None:
    """Read the command line, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="output folder of a run that kept its crops")
    parser.add_argument("--encoder", default="ccrl", help="that of the run")
    parser.add_argument("--at-most", type=int, default=100_000, help="cells of a slide")
    asked = parser.parse_args()
    from ccrl_wsi.clusters.codebook import load_codebook

    codebook = load_codebook(asked.out / "codebook.safetensors")
    crops, measurements = cells_of(asked.out, asked.at_most)
    found = {name: embedded(asked.encoder, name, crops, measurements) for name in PRECISIONS}
    if codebook.centres_slides:
        raise SystemExit("The run centres slides: give one that does not.")
    plain = found["float32"][0]
    clusters = assign(plain, codebook)[0]
    table = Table(
        f"{len(crops)} cells, {codebook.k} clusters",
        ("precision", "core-s / 1000", "least cosine", "median 1 - cosine", "other cluster"),
    )
    n_seen = plain.shape[1] - has_size(asked.encoder)
    for name, (vectors, seconds) in found.items():
        alike = cosines(vectors[:, :n_seen], plain[:, :n_seen])
        changed = float((assign(vectors, codebook)[0] != clusters).mean())
        cost = 1000 * seconds / len(crops)
        table.row(name, cost, f"{alike.min():.7f}", f"{1 - np.median(alike):.1e}", f"{changed:.3%}")
    table.publish("embedding_precision")


def cells_of(out: Path, at_most: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of all slides, and measurements of which only the area is known."""
    crops, areas = [], []
    for path in sorted((out / "slides").glob("*.zarr")):
        store = open_store(path)
        crops.append(store.crops(0, at_most))
        areas.append(store.obs("area_um2", 0, at_most))
    measurements = np.zeros((sum(map(len, areas)), len(NAMES)), np.float32)
    measurements[:, NAMES.index("area_um2")] = np.concatenate(areas)
    return np.concatenate(crops), measurements


def embedded(
    name: str, precision: str, crops: np.ndarray, measurements: np.ndarray
) -> tuple[np.ndarray, float]:
    """Embeddings, and the core-seconds they took."""
    settings = EmbeddingSettings.model_validate({"encoder": name, "precision": precision})
    encoder = make_encoder(settings, "auto")
    encoder(crops[:256], measurements[:256])
    began = process_time()
    return encoder(crops, measurements), process_time() - began


def has_size(name: str) -> bool:
    """Whether the last dimension of an encoder is the nucleus' size."""
    encoder: Any = make_encoder(EmbeddingSettings(encoder=name), "cpu")
    return encoder.header.size is not None


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each row with the same row of the other, in double precision."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(axis=1) / lengths


if __name__ == "__main__":
    main()
