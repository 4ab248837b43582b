"""The end of a training: a network becomes a checkpoint that says all about itself."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.crop_set import CropSet, channel_statistics
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder, unit_rows
from ccrl_wsi.embeddings.checkpoint import CheckpointHeader, CropRule, save_checkpoint
from ccrl_wsi.embeddings.size_feature import size_column, size_feature
from ccrl_wsi.errors import ModelError
from ccrl_wsi.measurement_names import columns_of
from ccrl_wsi.training.settings import ExportSettings

log = logging.getLogger("ccrl_wsi")

BATCH = 1024
CHECKED = 256
"""Training crops whose embeddings are compared with the network's own."""
ROUNDING = 1e-5
"""Difference over an embedding's length that 32-bit arithmetic may make."""
HALF_ROUNDING = 0.02
"""Difference over the spread of all embeddings that 16-bit weights may make."""


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """How the network was built: key and arguments of ``embeddings.network.ARCHITECTURES``.

    Parameters
    ----------
    mean_and_std
        Of every channel, that inputs are normalised with; None: those of the training crops.
    """

    architecture: str
    arguments: Mapping[str, Any]
    mean_and_std: tuple[float, float] | None = None


def write_encoder(
    path: Path,
    network: nn.Module,
    plan: EncoderPlan,
    crops: CropSet,
    export: ExportSettings,
    training: Mapping[str, Any],
) -> CheckpointHeader:
    """Write ``network`` as the checkpoint ``path``, and find its embeddings again in the file.

    Parameters
    ----------
    network
        A backbone on any device; left as it is.
    crops
        The training set: inputs are normalised by its colours, and it is the sample by which the
        size is weighed. Its rule becomes the encoder's.
    training
        Free record; ``data`` and ``licence`` are what `ccrl-wsi doctor` shows.

    Returns
    -------
    header
        As written.

    Raises
    ------
    ModelError
        If the tensors are not the architecture's, or embeddings are not finite, all alike, or do
        not survive the file. An older file at ``path`` then stays.
    """
    twin = copy.deepcopy(network).eval().float()
    # Principal components are a buffer, no parameter.
    device = str(next(chain(twin.parameters(), twin.buffers())).device)
    header = _header(twin, plan, crops, export, training)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".encoder-", dir=path.parent) as folder:
        draft = Path(folder, path.name)
        save_checkpoint(draft, twin.state_dict(), header, half=export.half)
        if export.size_weight > 0:
            header = _with_size(header, CcrlEncoder(draft, device, BATCH), crops, export)
            save_checkpoint(draft, twin.state_dict(), header, half=export.half)
        some = crops.where(np.unique(np.linspace(0, len(crops) - 1, CHECKED).astype(np.int64)))
        # On the CPU, whose arithmetic is the same whatever wrote the file.
        read_back = CcrlEncoder(draft, "cpu", BATCH)(some.crops, some.measurements)
        _check_alike(read_back, _plain(twin.cpu(), header, some), path, half=export.half)
        for name in (path, path.with_suffix(".json")):
            Path(folder, name.name).replace(name)
    log.info("%s: %d dimensions", path, header.n_dimensions)
    return header


def _header(
    network: nn.Module,
    plan: EncoderPlan,
    crops: CropSet,
    export: ExportSettings,
    training: Mapping[str, Any],
) -> CheckpointHeader:
    mean, std = channel_statistics(crops.crops)
    if plan.mean_and_std is not None:
        mean, std = (np.full(crops.n_channels, value) for value in plan.mean_and_std)
    return CheckpointHeader(
        name=export.name,
        architecture=plan.architecture,
        arguments=dict(plan.arguments),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        crop=CropRule(scale=crops.scale, size_px=crops.size_px, mpp=crops.mpp),
        unit_length=export.unit_length,
        n_dimensions=cast(int, network.n_dimensions),
        training=dict(training),
    )


def _with_size(
    header: CheckpointHeader, encoder: CcrlEncoder, crops: CropSet, export: ExportSettings
) -> CheckpointHeader:
    """The header with one more dimension, weighed against what ``encoder`` makes of all crops."""
    embedding = encoder(crops.crops, crops.measurements)
    size = size_feature(embedding, _areas(crops), export.size_weight)
    return header.model_copy(update={"size": size, "n_dimensions": header.n_dimensions + 1})


def _plain(network: nn.Module, header: CheckpointHeader, crops: CropSet) -> FloatArray:
    """Embeddings by the network itself, written down as plainly as can be."""
    mean, std = np.array(header.mean), np.array(header.std)
    pixels = ((crops.crops / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        found: Tensor = network(torch.tensor(pixels, dtype=torch.float32))
    vectors: FloatArray = found.numpy()
    if header.unit_length:
        vectors = unit_rows(vectors)
    if header.size is None:
        return vectors
    return np.column_stack([vectors, size_column(_areas(crops), header.size)])


def _areas(crops: CropSet) -> FloatArray:
    return columns_of(crops.measurements, ("area_um2",))[:, 0]


def _check_alike(found: FloatArray, wanted: FloatArray, path: Path, *, half: bool) -> None:
    if not np.isfinite(wanted).all():
        raise ModelError(
            f"The network gives embeddings that are not finite, so {path} was not written. Train "
            "again with a lower schedule.learning_rate."
        )
    spread = np.sqrt(wanted.var(axis=0, dtype=np.float64).sum())
    length = np.sqrt(np.square(wanted, dtype=np.float64).sum(axis=1).mean())
    if len(wanted) > 1 and not spread > ROUNDING * length:
        raise ModelError(
            f"The network gives all cells the same embedding, so {path} was not written: the "
            "training has collapsed. Train again with another loss or a lower rate."
        )
    difference = np.linalg.norm(found - wanted, axis=1).max()
    if not difference <= ROUNDING * length + (HALF_ROUNDING * spread if half else 0.0):
        advice = "Save 32-bit weights: export.half=false" if half else "Train again"
        raise ModelError(
            f"Embeddings from the file differ by up to {difference:.3g} from the network's own, "
            f"whose spread is {spread:.3g}, so {path} was not written. {advice}."
        )
