"""What training on cells and normalisation do for profiles by mechanism, on a drawn screen.

    python benchmarks/phenotypes.py [--folder FOLDER] [-c train/drawn_cells] [--set KEY=VALUE ...]

A screen is drawn (three weeks that stain, focus and light differently; four mechanisms of three
compounds each), an encoder is trained on its cells without labels, and profiles of its wells are
scored, beside those of the same network with random weights. Three figures a kind of profiles:
NSCB; the week's share of the variance of control wells; and the margin, the mean cosine of
treatments of one mechanism in different weeks minus that of treatments of different mechanisms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_wsi.baselines.untrained import Untrained, channel_scale
from ccrl_wsi.config_files import find_config
from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.evaluation.mechanism_scores import cosine_similarity
from ccrl_wsi.evaluation.moa_settings import MoaSettings
from ccrl_wsi.evaluation.typical_variation import normalise_typical_variation, whiten
from ccrl_wsi.profile_set import Profiles
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.synthetic_fields import DrawnScreen
from ccrl_wsi.training.settings import TrainSettings
from pipelines.crop_sets import gather_crops
from pipelines.drawn_screen import write_drawn_screen
from pipelines.evaluate_moa import MoaResult, prepare_wells, score_wells
from pipelines.profile import profile_crops
from pipelines.train import train_encoder


def week_share(features: np.ndarray, week: np.ndarray) -> float:
    """Share of the variance of rows that lies between weeks."""
    total = np.square(features - features.mean(axis=0)).sum()
    between = sum(
        (week == name).sum()
        * np.square(features[week == name].mean(axis=0) - features.mean(axis=0))
        for name in np.unique(week)
    )
    return float(between.sum() / total)


def margin(result: MoaResult) -> float:
    """Mean cosine of the same mechanism in other weeks, minus that of other mechanisms."""
    cosine = cosine_similarity(result.treatments.features)
    mechanism, week = (np.array(result.treatments.text(c)) for c in ("mechanism", "batch"))
    alike = mechanism[:, None] == mechanism
    elsewhere = week[:, None] != week
    return float(cosine[alike & elsewhere].mean() - cosine[~alike].mean())


def figures(wells: Profiles) -> dict[str, dict[str, float]]:
    """Figures by kind of profiles."""
    settings = MoaSettings()
    is_control = wells.is_control("DMSO")
    week = np.array(wells.text("batch"))
    found: dict[str, dict[str, float]] = {}
    for result in score_wells(wells, settings, []):
        assert result.scores.nscb is not None
        found[result.name] = {
            "NSC": 100 * result.scores.nsc.accuracy,
            "NSCB": 100 * result.scores.nscb.accuracy,
            "margin": margin(result),
        }
    for name, features in (
        ("as given", wells.features),
        ("as given, whitening", whiten(wells.features, is_control)),
        ("as given, TVN", normalise_typical_variation(wells.features, is_control, list(week))),
    ):
        found[name]["week"] = 100 * week_share(features[is_control], week[is_control])
    return found


def cells_right(embed: Any, crops: CropSet) -> float:
    """Per cent of treated cells whose nearest cell of another week has the same mechanism."""
    vectors = embed(crops.crops, crops.measurements).astype(np.float64)
    week = np.array([name.split("_")[0] for name in crops.source_names])[crops.source]
    is_control = crops.label == crops.class_names.index("DMSO")
    cosine = cosine_similarity(vectors)
    cosine[(week[:, None] == week) | is_control] = -np.inf
    right = crops.label[cosine.argmax(axis=1)] == crops.label
    return 100 * float(right[~is_control].mean())


def show(name: str, found: dict[str, dict[str, float]]) -> None:
    """Print one network's figures."""
    for kind, values in found.items():
        week = f"{values['week']:6.0f} %" if "week" in values else "       -"
        scores = f"{values['NSC']:6.1f} {values['NSCB']:6.1f} {values['margin']:7.3f}"
        print(f"{name:10} {kind:24} {scores} {week}")


def main() -> None:
    """Draw, train, profile, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-c", "--config", type=Path, default=Path("train/drawn_cells"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--folder", type=Path, help="kept; else a temporary one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(asked.folder or Path(temporary), asked)


def run(folder: Path, asked: Any) -> None:
    """All of it in ``folder``."""
    screen = folder / "screen"
    if not screen.is_dir():
        write_drawn_screen(screen, DrawnScreen())
    overrides = [*asked.overrides, f"data.path={screen}"]
    settings = load_tree(TrainSettings, [find_config(asked.config)], overrides)
    crops = gather_crops(settings.data, settings.seed)
    began = time.monotonic()
    trained = train_encoder(settings, folder / "trained")
    seconds = time.monotonic() - began
    encoder = CcrlEncoder(trained.encoder, "cpu", 256)
    header = encoder.header
    build = partial(build_network, header.architecture, header.arguments)
    networks = {"untrained": Untrained(build, channel_scale(crops), 0, "cpu"), "trained": encoder}
    print(f"{len(crops)} cells; trained for {trained.n_steps} steps in {seconds:.0f} s")
    print(f"{'network':10} {'profiles':24}    NSC   NSCB  margin   week's share of controls")
    found = {}
    for name, network in networks.items():
        wells, _ = prepare_wells(profile_crops(crops, network, screen, "mean"), MoaSettings())
        found[name] = figures(wells)
        show(name, found[name])
        print(f"{name:10} single cells, nearest of another week: {cells_right(network, crops):.1f}")
    plain = {name: values["as given"] for name, values in found.items()}
    ratio = plain["trained"]["margin"] / plain["untrained"]["margin"]
    repaired = found["trained"]["as given, TVN"]["margin"] / plain["trained"]["margin"]
    print(f"margin, trained : untrained = {ratio:.1f}")
    print(f"margin of the trained, TVN : as given = {repaired:.1f}")


if __name__ == "__main__":
    main()
