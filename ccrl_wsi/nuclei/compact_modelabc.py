"""The compact segmenter for TIAToolbox's own engines.

    from tiatoolbox.models.engine.multi_task_segmentor import MultiTaskSegmentor
    from ccrl_wsi.nuclei.compact_modelabc import CompactModel, io_config

    engine = MultiTaskSegmentor(model=CompactModel(), batch_size=4, device="cpu")
    engine.run(images=[slide], patch_mode=False, ioconfig=io_config(), ...)

In ``ccrl-wsi run`` it may be named ``ccrl_wsi.nuclei.compact_modelabc:CompactModel`` like any
other ModelABC, and finds the nuclei that ``compact`` with its default settings finds without
TIAToolbox's slow import.
Importing this module imports TIAToolbox; nothing else in the package imports it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiatoolbox.models.architecture.hovernet import HoVerNet
from tiatoolbox.models.engine.io_config import IOInstanceSegmentorConfig
from tiatoolbox.models.models_abc import ModelABC
from tiatoolbox.utils.misc import pad_contours
from torch import Tensor

from ccrl_wsi.arrays import FloatArray, IntArray
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.nuclei.compact import BUNDLED, SPOILT_PX, STRIDE_PX, as_maps
from ccrl_wsi.nuclei.compact_checkpoint import load_segmenter
from ccrl_wsi.nuclei.compact_instances import find_nuclei
from ccrl_wsi.nuclei.compact_network import CompactNetwork, fold_norms

TASK = "nuclei_segmentation"
COLUMNS = ("box", "centroid", "contours", "prob", "type")


class CompactModel(ModelABC):  # type: ignore[misc]
    """The network with its weights, as TIAToolbox wants models.

    Parameters
    ----------
    weights
        A file that `ccrl-wsi train-segmenter` wrote; by default the weights of the package.
    separation
        As of :class:`ccrl_wsi.config.CompactSettings`.
    """

    def __init__(self, weights: Path | str = BUNDLED, separation: str = "offset") -> None:
        super().__init__()
        header, network = load_segmenter(Path(weights))
        self.network: CompactNetwork = fold_norms(network)
        self.separation, self.mpp = separation, header.mpp
        self.tasks = (TASK,)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (n, 4, h, w) of ``images`` (n, 3, h, w) in 0..255."""
        maps: Tensor = self.network(images)
        return maps

    @staticmethod
    def infer_batch(
        model: Any, batch_data: Tensor | np.ndarray, *, device: str
    ) -> tuple[np.ndarray, ...]:
        """Maps of patches (n, h, w, 3), smaller by 64 px on every side.

        Returns
        -------
        probability (n, h', w', 1) and what parts nuclei (n, h', w', 1 or 2), float32.
        """
        inner = np.s_[:, :, SPOILT_PX:-SPOILT_PX, SPOILT_PX:-SPOILT_PX]
        module = getattr(model, "module", model)
        with torch.inference_mode():
            images = torch.as_tensor(batch_data).to(device).permute(0, 3, 1, 2).float()
            maps = as_maps(model(images)[inner], module.separation).cpu().numpy()
        return maps[..., :1], maps[..., 1:]

    def postproc(
        self, raw_maps: list[Any], offset: tuple[int, int] = (0, 0)
    ) -> tuple[dict[str, Any], ...]:
        """Nuclei of a tile, in TIAToolbox's form.

        Parameters
        ----------
        raw_maps
            The two maps of the tile, NumPy or Dask arrays.
        offset
            Added to x and y of centroids, boxes and contours.
        """
        maps = np.concatenate([np.asarray(head, np.float32) for head in raw_maps], axis=2)
        labels = find_nuclei(maps, self.separation)
        return (
            {
                "task_type": TASK,
                "predictions": labels,
                "info_dict": describe_nuclei(labels, maps[..., 0], offset),
                "seg_type": "instance",
            },
        )


def io_config(window_px: int = 1024, mpp: float = 0.25) -> IOInstanceSegmentorConfig:
    """How TIAToolbox's engines shall cut slides for :class:`CompactModel`.

    Raises
    ------
    ConfigError
        If ``window_px`` is no multiple of 8, or too small.
    """
    if window_px % STRIDE_PX or window_px <= 2 * SPOILT_PX:
        raise ConfigError(
            f"window_px={window_px}: give a multiple of {STRIDE_PX} above {2 * SPOILT_PX}."
        )
    at = {"units": "mpp", "resolution": mpp}
    kept = window_px - 2 * SPOILT_PX
    return IOInstanceSegmentorConfig(
        input_resolutions=[at],
        output_resolutions=[at, at],
        patch_input_shape=[window_px, window_px],
        patch_output_shape=[kept, kept],
        stride_shape=[kept, kept],
        margin=128,
        tile_shape=[2 * kept, 2 * kept],
        save_resolution=at,
    )


def describe_nuclei(
    labels: IntArray, probability: FloatArray, offset: tuple[int, int]
) -> dict[str, np.ndarray]:
    """TIAToolbox's columns of each nucleus 1..n of ``labels`` that has an outline."""
    found = HoVerNet.get_instance_info(labels, None, offset, verbose=False)
    if not found:
        return {name: np.empty(0, np.int8) for name in COLUMNS}
    counts = np.bincount(labels.ravel())
    sums = np.bincount(labels.ravel(), probability.ravel().astype(np.float64))
    rows = {name: [row[name] for row in found.values()] for name in COLUMNS}
    rows["prob"] = [float(sums[number] / counts[number]) for number in found]
    rows["type"] = [0] * len(found)
    contours = rows.pop("contours")
    columns = {name: np.asarray(values) for name, values in rows.items()}
    return {**columns, "contours": pad_contours(contours)}
