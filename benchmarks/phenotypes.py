"""What training on cells and normalisation do for profiles by mechanism, on drawn screens.

    python benchmarks/phenotypes.py [--seeds 3] [--without-ccrl] [--folder FOLDER] [--set KEY=VALUE]

For every seed a screen is drawn, whose mechanisms differ in how cells are arranged and in nothing
that a channel's mean or deviation could tell (ccrl_wsi/synthetic_phenotypes.py); two encoders are
trained on its cells without labels, by SimCLR and by CCRL's method; and profiles of its wells are
scored beside those of means and deviations of the channels, and of the same network with random
weights. NSC and NSCB as published; week: balanced accuracy of telling the week of treatments of
compounds held out (logistic regression). Per cent: mean over seeds, lowest and highest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from measured import Table

from ccrl_wsi.arrays import ByteArray, FloatArray
from ccrl_wsi.baselines.untrained import Untrained, channel_scale
from ccrl_wsi.clusters.batch_effect import predictability
from ccrl_wsi.config_files import find_config
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.evaluation.moa_settings import MoaSettings
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.synthetic_fields import DrawnScreen
from ccrl_wsi.synthetic_phenotypes import MECHANISMS
from ccrl_wsi.training.settings import TrainSettings
from pipelines.crop_sets import gather_crops
from pipelines.drawn_screen import write_drawn_screen
from pipelines.evaluate_moa import MoaResult, prepare_wells, score_wells
from pipelines.profile import profile_crops
from pipelines.train import train_encoder

CCRL = (
    "loss.kind=info_nce",
    "loss.queue_size=1024",
    "network.predictor=32",
    "views.cropped=one",
    "schedule.momentum=0.99",
    "schedule.last_momentum=0.99",
    "export.name=drawn-cells-ccrl",
)
"""What CCRL's method changes of train/drawn_cells; queue and key network as few steps ask."""
METHODS: dict[str, tuple[str, ...]] = {"SimCLR": (), "CCRL": CCRL}
MEASURES = ("NSC", "NSCB", "drop", "week")

Embed = Callable[[ByteArray, FloatArray], FloatArray]
Found = dict[tuple[str, str], list[dict[str, float]]]


def intensities(crops: ByteArray, measurements: FloatArray) -> FloatArray:
    """Mean and deviation of every channel of every crop, (n, 2 channels)."""
    light = crops.astype(np.float32) / 255
    return np.hstack([light.mean(axis=(1, 2)), light.std(axis=(1, 2))])


def figures(result: MoaResult) -> dict[str, float]:
    """The measures of one kind of profiles, in per cent."""
    scores, treatments = result.scores, result.treatments
    assert scores.nscb is not None
    told = predictability(
        treatments.features, treatments.text("batch"), treatments.text("compound"), 0, 0
    )
    values = (scores.nsc.accuracy, scores.nscb.accuracy, scores.drop, told.balanced_accuracy)
    return {name: 100 * value for name, value in zip(MEASURES, values, strict=True)}


def networks(
    crops: CropSet, folder: Path, overrides: list[str], methods: Sequence[str]
) -> Iterator[tuple[str, Embed]]:
    """What is compared, by name; trainings that ``folder`` holds already are taken from there."""
    yield "intensities", intensities
    for method in methods:
        changes = METHODS[method]
        tree = load_tree(
            TrainSettings, [find_config(Path("train/drawn_cells"))], [*changes, *overrides]
        )
        began = time.process_time()
        trained = train_encoder(tree, folder / method)
        seconds = time.process_time() - began
        print(f"{method}: {trained.n_steps} steps, {seconds:.0f} core-seconds", flush=True)
        encoder = CcrlEncoder(trained.encoder, "cpu", 256)
        if method == "SimCLR":
            header = encoder.header
            build = partial(build_network, header.architecture, header.arguments)
            yield "untrained", Untrained(build, channel_scale(crops), tree.seed, "cpu")
        yield method, encoder


def one_seed(seed: int, folder: Path, asked: argparse.Namespace, found: Found) -> None:
    """Draw, train and score one screen, and add to ``found``."""
    screen = folder / f"screen{seed}"
    if not screen.is_dir():
        write_drawn_screen(screen, DrawnScreen(seed=seed), locations=True)
    overrides = [*asked.overrides, f"data.path={screen}", f"data.cache={folder}", f"seed={seed}"]
    tree = load_tree(TrainSettings, [find_config(Path("train/drawn_cells"))], overrides)
    crops = gather_crops(tree.data, tree.seed)
    print(f"seed {seed}: {len(crops)} cells", flush=True)
    methods = ["SimCLR"] if asked.without_ccrl else [*METHODS]
    for name, embed in networks(crops, folder / f"trained{seed}", overrides, methods):
        wells, _ = prepare_wells(profile_crops(crops, embed, screen, "mean"), MoaSettings())
        for result in score_wells(wells, MoaSettings(), []):
            if result.clean_up != "cleaned up":  # learned features do not need it
                found[name, result.name].append(figures(result))


def main() -> None:
    """Run every seed and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--without-ccrl", action="store_true", help="half the time")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    asked = parser.parse_args()
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        for seed in range(asked.seeds):
            one_seed(seed, folder, asked, found)
    title = (
        f"NSC and NSCB of drawn screens, means of {asked.seeds} seeds; by chance "
        f"{100 / len(MECHANISMS):.0f}, week by chance {100 / DrawnScreen().n_weeks:.0f}"
    )
    table = Table(title, ("network", "profiles", *MEASURES))
    for (name, kind), rows in found.items():
        table.row(name, kind, *(_summary([row[measure] for row in rows]) for measure in MEASURES))
    table.publish("phenotypes")


def _summary(values: list[float]) -> str:
    return f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    main()
