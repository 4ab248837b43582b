"""TIAToolbox's engine and our job on a slide of known nuclei: what the two comparisons share.

Each pixel's colour tells where it lies, so that a network can be made to say, of any patch, what
a perfect one would of the known nuclei. Both sides find the same nuclei then, whether the network
is a real one that costs time and is not listened to, or none.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from measured import medians, spread
from whole_job import _THREADS, BLOCK_PX, MPP, draw_block

from ccrl_wsi.config import load_settings
from ccrl_wsi.nuclei.hovernet import HoVerNetSegmenter, build_hovernet, make_fast
from ccrl_wsi.nuclei.hovernet_instances import extract_instances
from ccrl_wsi.nuclei.hovernet_maps import HoVerMaps
from ccrl_wsi.nuclei.regions import find_regions
from ccrl_wsi.nuclei.tile_maps import Arrived
from ccrl_wsi.records import Segmentation, SlideSource
from ccrl_wsi.slides.pyramid import write_pyramid

NAME = "hovernet_fast-pannuke"
PATCH_PX, OUTPUT_PX = 256, 164
NEAR_PX = 3.0
"""A nucleus is found if one is found whose centroid is nearer."""

WARM_UP_PX = 256
Side = Literal["engine", "ours"]


def draw_positions(side_px: int) -> np.ndarray:
    """An image (side, side, 3) whose pixels hold their own row and column, modulo 4096."""
    rows, columns = np.mgrid[:side_px, :side_px].astype(np.uint32) & 4095
    code = rows << 12 | columns
    return np.stack([code >> 16, code >> 8 & 0xFF, code & 0xFF], axis=-1).astype(np.uint8)


def position(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of ``pixels`` (..., 3), modulo 4096 and so modulo a block."""
    red, green, blue = (pixels[..., i].astype(np.int64) for i in range(3))
    code = red << 16 | green << 8 | blue
    return code >> 12, code & 4095


def piece(block: HoVerMaps, row: int, column: int, shape: tuple[int, int]) -> HoVerMaps:
    """Maps of ``shape`` from a place of the slide on, which repeats ``block``.

    Copied stretch by stretch: taken pixel by pixel they would cost our side a tenth of its time.
    """
    pieces = [np.empty((*shape, *m.shape[2:]), m.dtype) for m in block]
    for rows, from_rows in _stretches(row, shape[0]):
        for columns, from_columns in _stretches(column, shape[1]):
            for target, m in zip(pieces, block, strict=True):
                target[rows, columns] = m[from_rows, from_columns]
    return HoVerMaps(*pieces)


def _stretches(first: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Where the pixels from ``first`` on go, and where in a block they are found."""
    done = 0
    while done < length:
        begin = (first + done) % BLOCK_PX
        n = min(BLOCK_PX - begin, length - done)
        yield slice(done, done + n), slice(begin, begin + n)
        done += n


def true_centroids(maps: HoVerMaps) -> np.ndarray:
    """Centroids (n, 2) x, y of the nuclei in the maps of the whole slide at once."""
    regions = find_regions(extract_instances(maps.probability, maps.hv))
    return regions.coordinate_sums / regions.n_pixels[:, None]


def lost(truth: np.ndarray, found: np.ndarray) -> int:
    """How many true centroids (n, 2) no found one lies near."""
    from scipy.spatial import cKDTree

    return int((cKDTree(found).query(truth)[0] > NEAR_PX).sum())


class Meter:
    """Seconds and calls of a network that runs and is not listened to."""

    def __init__(self) -> None:
        self.core_s = self.megapixels = 0.0

    def count(self, look: Callable[[], object], pixels: int) -> None:
        """Run ``look`` and add what it took."""
        began = time.process_time()
        look()
        self.core_s += time.process_time() - began
        self.megapixels += pixels / 1e6


class OurSegmenter:
    """Our HoVer-Net, whose maps are replaced by the known ones when they have been computed."""

    name, type_names, device = NAME, (), "cpu"

    def __init__(self, block: HoVerMaps, network: Any, meter: Meter) -> None:
        self.block, self.meter, self.is_real = block, meter, network is not None
        self.segmenter = HoVerNetSegmenter(
            name=NAME,
            type_names=(),
            network=_Counted(network, meter).call if self.is_real else network,
            mode="fast",
            device="cpu",
            window_px=1024,
            batch_size=4,
            precision="float32",
        )

    def predict(self, rgb: np.ndarray, mpp: float) -> Arrived:
        """The known maps of ``rgb``, after the time the network takes."""
        if self.is_real:
            self.segmenter.predict(rgb, mpp).wait()
        row, column = (int(v) for v in position(rgb[0, 0]))
        probability, hv = piece(self.block, row, column, rgb.shape[:2])
        types = np.zeros(probability.shape, np.uint8)
        return Arrived({"probability": probability, "hv": hv, "types": types})

    def segment(self, maps: Any) -> Segmentation:
        """As of any HoVer-Net."""
        return self.segmenter.segment(maps)

    def __call__(self, rgb: np.ndarray, mpp: float) -> Segmentation:
        """Both parts."""
        return self.segment(self.predict(rgb, mpp).wait())


@dataclass
class _Counted:
    network: Any
    meter: Meter

    def call(self, images: Any) -> Any:
        """What the network says, counted."""
        said: list[Any] = []
        size = images.shape[0] * images.shape[2] * images.shape[3]
        self.meter.count(lambda: said.append(self.network(images)), size)
        return said[0]


def run_ours(block: HoVerMaps, side_px: int, network: Any, folder: Path) -> dict[str, Any]:
    """Our whole job: read, find, measure, crop, embed, cluster, write store and overlay."""
    from ccrl_wsi.store import open_store
    from pipelines import partitions
    from pipelines.machines import SerialMachine
    from pipelines.output_folder import OutputFolder
    from pipelines.run import run_cohort

    meter = Meter()
    if network is not None:
        network = make_fast(network)
    segmenter = OurSegmenter(block, network, meter)
    partitions.segmenter_of = lambda settings: segmenter
    settings = load_settings(
        overrides=[
            "nuclei.segmenter=watershed",  # Its weights need not be there; ours is put in place.
            "embedding.encoder=morphology",
            "tissue.method=none",
            "report.make=false",
        ]
    )

    def run(size_px: int) -> np.ndarray:
        slide, out = slide_of(folder, size_px), folder / f"out{size_px}"
        began.append((time.perf_counter(), time.process_time()))
        run_cohort([SlideSource(slide, "slide")], out, settings, SerialMachine())
        return open_store(OutputFolder(out).store("slide")).centroids()

    began: list[tuple[float, float]] = []
    run(WARM_UP_PX)
    meter.core_s = meter.megapixels = 0.0
    return _figures(run, side_px, began, meter)


def run_engine(block: HoVerMaps, side_px: int, network: Any, folder: Path) -> dict[str, Any]:
    """TIAToolbox's ``MultiTaskSegmentor``: read, find, write its Zarr."""
    from tiatoolbox import rcParam
    from tiatoolbox.models.engine.io_config import IOInstanceSegmentorConfig
    from tiatoolbox.models.engine.multi_task_segmentor import MultiTaskSegmentor

    rcParam["torch_compile_mode"] = "disable"
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
    meter = Meter()
    engine = MultiTaskSegmentor(
        model=_listening_to_nobody(block, network, meter),
        batch_size=4 if network is not None else 16,
        num_workers=0,
        device="cpu",
        verbose=False,
    )

    def run(size_px: int) -> np.ndarray:
        slide = slide_of(folder, size_px)
        began.append((time.perf_counter(), time.process_time()))
        result = engine.run(
            images=[slide],
            patch_mode=False,
            ioconfig=config,
            save_dir=folder / f"engine{size_px}",
            output_type="zarr",
            auto_get_mask=False,
            return_probabilities=False,
            wsireader_kwargs={"mpp": (MPP, MPP)},
        )
        return _centroids_of_engine(Path(result[slide]))

    began: list[tuple[float, float]] = []
    run(WARM_UP_PX)
    meter.core_s = meter.megapixels = 0.0
    return _figures(run, side_px, began, meter)


def _figures(
    run: Callable[[int], np.ndarray],
    side_px: int,
    began: list[tuple[float, float]],
    meter: Meter,
) -> dict[str, Any]:
    found = run(side_px)
    wall, core = began[-1]
    return {
        "wall_s": time.perf_counter() - wall,
        "core_s": time.process_time() - core,
        "network_core_s": meter.core_s,
        "network_megapixels": meter.megapixels,
        "peak_mib": peak_mib(),
        "centroids": np.asarray(found, float).tolist(),
    }


def slide_of(folder: Path, side_px: int) -> Path:
    """Where the slide of ``side_px`` lies."""
    return folder / f"slide{side_px}.tif"


def peak_mib() -> float:
    """The most memory this process had; ``ru_maxrss`` would count what its parent had before."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def _listening_to_nobody(block: HoVerMaps, network: Any, meter: Meter) -> Any:
    """TIAToolbox's HoVer-Net; it runs, if it shall, and the known maps are given back."""
    from tiatoolbox.models.architecture.hovernet import HoVerNet

    class Knowing(HoVerNet):
        """Says what is known."""

        @staticmethod
        def infer_batch(model: Any, batch_data: Any, *, device: str) -> tuple[np.ndarray, ...]:
            """Maps of every patch, found by the colour of a pixel that lies on the slide."""
            pixels = np.asarray(batch_data)
            if network is not None:
                seen_px = len(pixels) * PATCH_PX**2
                meter.count(lambda: HoVerNet.infer_batch(model, batch_data, device=device), seen_px)
            corner = (PATCH_PX - OUTPUT_PX) // 2
            row, column = position(pixels[:, corner, corner])
            size = (OUTPUT_PX, OUTPUT_PX)
            said = [piece(block, int(r), int(c), size) for r, c in zip(row, column, strict=True)]
            types = np.zeros((len(said), *size, 1), np.float32)
            return (
                np.stack([maps.probability for maps in said])[..., None],
                np.stack([maps.hv for maps in said]),
                types,
            )

    model = Knowing(num_types=6, mode="fast")
    if network is not None:
        model.load_state_dict(network.state_dict())
    return model


def _centroids_of_engine(store: Path) -> np.ndarray:
    import zarr

    group: Any = zarr.open(store, mode="r")
    owner = group if "centroid" in group else next(iter(group.groups()))[1]
    return np.asarray(owner["centroid"][:], float).reshape(-1, 2)


def random_network() -> Any:
    """HoVer-Net fast with random weights, the same in every process: they cost what all cost."""
    import torch

    torch.manual_seed(0)
    return build_hovernet(NAME)[0].eval()


def compare(side_px: int, *, is_real: bool, threads: int, rounds: int) -> Compared:
    """Both sides in turns, each time in a process of its own."""
    truth = true_centroids(piece(draw_block()[1], 0, 0, (side_px, side_px)))
    figures: dict[Side, list[dict[str, float]]] = {"engine": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size_px in (WARM_UP_PX, side_px):
            write_pyramid(slide_of(folder, size_px), draw_positions(size_px), MPP)
        for number in range(rounds):
            of_round = folder / f"round{number}"
            of_round.mkdir()
            for size_px in (WARM_UP_PX, side_px):
                slide_of(of_round, size_px).hardlink_to(slide_of(folder, size_px))
            for side, found_by_round in figures.items():
                run = _in_its_own_process(side, side_px, of_round, threads, is_real)
                found = np.array(run.pop("centroids")).reshape(-1, 2)
                found_by_round.append({**run, "n_found": len(found), "n_lost": lost(truth, found)})
    return Compared(len(truth), figures["engine"], figures["ours"])


@dataclass(frozen=True)
class Compared:
    """Figures of both sides, round by round."""

    n_known: int
    engine_rounds: list[dict[str, float]]
    our_rounds: list[dict[str, float]]

    @property
    def engine(self) -> dict[str, float]:
        """Medians."""
        return medians(self.engine_rounds)

    @property
    def ours(self) -> dict[str, float]:
        """Medians."""
        return medians(self.our_rounds)

    def times_ours(self, figure: Callable[[dict[str, float]], float]) -> tuple[float, str]:
        """The engine's ``figure`` over ours in the same round: median, and lowest to highest."""
        pairs = zip(self.engine_rounds, self.our_rounds, strict=True)
        ratios = [figure(engine) / figure(ours) for engine, ours in pairs]
        return median(ratios), spread(ratios)


def _in_its_own_process(
    side: Side, side_px: int, folder: Path, threads: int, is_real: bool
) -> dict[str, Any]:
    options = ["--side", side, "--px", str(side_px), "--threads", str(threads)]
    command = [sys.executable, __file__, *options, *(["--real"] if is_real else [])]
    # Libraries read these when they are imported, as whole_job.py did before this.
    shares = dict.fromkeys(_THREADS.split(), str(threads))
    subprocess.run(
        [*command, "--folder", str(folder)],
        check=True,
        stdout=sys.stderr,
        env={**os.environ, **shares},
    )
    figures: dict[str, Any] = json.loads((folder / f"{side}.json").read_text())
    return figures


def main() -> None:
    """One side, for :func:`compare`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=("engine", "ours"), required=True)
    parser.add_argument("--px", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    import cv2
    import torch

    torch.set_num_threads(asked.threads)
    cv2.setNumThreads(asked.threads)
    network = random_network() if asked.real else None
    work = run_engine if asked.side == "engine" else run_ours
    figures = work(draw_block()[1], asked.px, network, asked.folder)
    (asked.folder / f"{asked.side}.json").write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
