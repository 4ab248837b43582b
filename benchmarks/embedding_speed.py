"""Crops embedded per second: the encoder as a run calls it, beside its bare network.

    python benchmarks/embedding_speed.py [--crops 4096] [--encoder ccrl]

Bare is the network alone on normalised crops that lie ready on the device, in the same batches;
what the encoder does besides is upload, normalise, download and put together. Crops are noise.
Medians of rounds taken in turns; both sides' embeddings are compared.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

import numpy as np
import torch
from measured import Table, in_turns
from stages import bare_encoder

from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.embeddings.encoders import make_encoder
from ccrl_wsi.measurement_names import MEASUREMENTS


def main() -> None:
    """Read the command line, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=4096)
    parser.add_argument("--encoder", default="ccrl", help="ccrl, or the path of a checkpoint")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    encoder: Any = make_encoder(EmbeddingSettings(encoder=asked.encoder), "auto")
    side = encoder.header.crop.size_px
    crops = np.random.default_rng(0).integers(0, 256, (asked.crops, side, side, 3), np.uint8)
    measurements = np.ones((asked.crops, len(MEASUREMENTS)), np.float32)
    bare: Any = bare_encoder(encoder, crops)
    works = {"as a run": lambda: encoder(crops, measurements), "bare network": bare}
    seconds = {name: median(s) for name, s in in_turns(works, rounds=asked.rounds).items()}
    table = Table(
        f"{asked.crops} crops of {side} px, {asked.encoder}, {torch.get_num_threads()} threads, "
        f"largest difference {difference(encoder, crops, measurements, bare):.1e}",
        ("path", "crops/s", "share of the bare network"),
    )
    for name, taken in seconds.items():
        table.row(name, asked.crops / taken, seconds["bare network"] / taken)
    table.publish("embedding_speed")


def difference(encoder: Any, crops: np.ndarray, measurements: np.ndarray, bare: Any) -> float:
    """Between the directions of both sides' embeddings, dimension by dimension."""
    ours = encoder(crops, measurements)
    theirs = torch.cat(bare()).float().cpu().numpy()
    ours = ours[:, : theirs.shape[1]]
    ours, theirs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (ours, theirs))
    return float(abs(ours - theirs).max())


if __name__ == "__main__":
    main()
