"""Everything but the network: TIAToolbox's own engine beside the whole job, in one run.

    python benchmarks/engine_overhead.py           # about five minutes

Both see a slide of 4.2 mm2 (8192 px at 0.25 um per pixel) with about 5000 nuclei per mm2, and both
have a network that costs nothing: the maps are made of the known nuclei beforehand. The engine
reads, puts patches together, extracts instances and writes its Zarr; our job does that and also
measures, crops, embeds, clusters and writes overlays. For the engine, each pixel's colour tells
where it lies, so that a patch finds its maps.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from whole_job import BLOCK_PX, MPP, draw_block, in_its_own_process

from ccrl_wsi.slides.pyramid import write_pyramid

SIDE = 8
PATCH_PX, OUTPUT_PX = 256, 164


def draw_positions() -> np.ndarray:
    """A block whose pixels hold their own column and row: ten bits each."""
    rows, columns = np.mgrid[:BLOCK_PX, :BLOCK_PX]
    code = (rows << 10 | columns).astype(np.uint32)
    return np.stack([code >> 16, code >> 8 & 0xFF, code & 0xFF], axis=-1).astype(np.uint8)


def make_free_network() -> Any:
    """TIAToolbox's HoVer-Net whose predictions are cut from the drawn block's maps."""
    from tiatoolbox.models.architecture.hovernet import HoVerNet

    maps = draw_block()[1]
    repeated = [np.tile(m, (2, 2) + (1,) * (m.ndim - 2)) for m in maps]
    probability, hv = repeated[0][..., None], repeated[1]

    class FreeHoVerNet(HoVerNet):
        """Predicts for nothing."""

        @staticmethod
        def infer_batch(model: Any, batch_data: Any, *, device: str) -> tuple[np.ndarray, ...]:
            """Maps of every patch, found by the colour of its middle."""
            del model, device
            middle = PATCH_PX // 2
            pixels = np.asarray(batch_data)[:, middle, middle].astype(np.int64)
            code = pixels[:, 0] << 16 | pixels[:, 1] << 8 | pixels[:, 2]
            tops = ((code >> 10) - OUTPUT_PX // 2) % BLOCK_PX
            lefts = ((code & 1023) - OUTPUT_PX // 2) % BLOCK_PX
            places = [
                (slice(t, t + OUTPUT_PX), slice(x, x + OUTPUT_PX))
                for t, x in zip(tops, lefts, strict=True)
            ]
            types = np.zeros((len(places), OUTPUT_PX, OUTPUT_PX, 1), np.float32)
            return (
                np.stack([probability[p] for p in places]),
                np.stack([hv[p] for p in places]),
                types,
            )

    return FreeHoVerNet(num_types=6, mode="fast")


def run_engine(folder: Path) -> dict[str, float]:
    """Core-seconds and nuclei of TIAToolbox's engine on the slide of positions."""
    from tiatoolbox import rcParam
    from tiatoolbox.models.engine.io_config import IOInstanceSegmentorConfig
    from tiatoolbox.models.engine.multi_task_segmentor import MultiTaskSegmentor

    rcParam["torch_compile_mode"] = "disable"
    path = folder / "positions.tif"
    write_pyramid(path, np.tile(draw_positions(), (SIDE, SIDE, 1)), MPP)
    at = {"units": "mpp", "resolution": MPP}
    config = IOInstanceSegmentorConfig(
        input_resolutions=[at],
        output_resolutions=[at] * 3,
        patch_input_shape=[PATCH_PX, PATCH_PX],
        patch_output_shape=[OUTPUT_PX, OUTPUT_PX],
        stride_shape=[OUTPUT_PX, OUTPUT_PX],
        margin=128,
        tile_shape=[1024, 1024],
        save_resolution=at,
    )
    torch.set_num_threads(1)
    engine = MultiTaskSegmentor(
        model=make_free_network(), batch_size=16, num_workers=0, device="cpu", verbose=False
    )
    before = time.process_time()
    result = engine.run(
        images=[path],
        patch_mode=False,
        ioconfig=config,
        save_dir=folder / "engine",
        output_type="zarr",
        auto_get_mask=False,
        return_probabilities=False,
        wsireader_kwargs={"mpp": (MPP, MPP)},
    )
    seconds = time.process_time() - before
    return {
        "core_s": seconds,
        "cells": _count(Path(result[path])),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _count(store: Path) -> int:
    import zarr

    group: Any = zarr.open(store, mode="r")
    owner = group if "centroid" in group else next(iter(group.groups()))[1]
    return int(owner["centroid"].shape[0])


def main() -> None:
    """Run both and print what they cost per mm2 and their ratio."""
    mm2 = (SIDE * BLOCK_PX * MPP / 1000) ** 2
    whole_job = Path(__file__).with_name("whole_job.py")
    with tempfile.TemporaryDirectory() as folder:
        options = ("--folder", folder)
        in_its_own_process("--draw", str(SIDE), *options, script=whole_job)
        ours = json.loads(in_its_own_process("--run", str(SIDE), *options, script=whole_job))
        engine = run_engine(Path(folder))
    for name, figures in (("engine", engine), ("whole job", ours)):
        print(
            f"{name:10} {figures['core_s'] / mm2:6.2f} core-s/mm2, {figures['cells']:.0f} nuclei, "
            f"peak {figures['peak_mib']:.0f} MiB"
        )
    print(f"engine / whole job: {engine['core_s'] / ours['core_s']:.1f} times the core-seconds")


if __name__ == "__main__":
    main()
