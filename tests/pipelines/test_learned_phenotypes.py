"""What training and normalisation are for, on a small drawn screen of one mechanism a stain.

The only training of the tests that goes on until something is learned: a minute on one core. The
screen was chosen so that a minute is enough, as docs/phenotypes.md says; evidence for the claim is
benchmarks/phenotypes.py, this only guards it.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ccrl_wsi.baselines.untrained import Untrained, channel_scale
from ccrl_wsi.clusters.batch_effect import predictability
from ccrl_wsi.config_files import find_config
from ccrl_wsi.embeddings.ccrl_encoder import CcrlEncoder
from ccrl_wsi.embeddings.network import build_network
from ccrl_wsi.evaluation.moa_settings import MoaSettings
from ccrl_wsi.settings_tree import load_tree
from ccrl_wsi.synthetic_fields import DrawnScreen
from ccrl_wsi.training.settings import TrainSettings
from pipelines.crop_sets import gather_crops
from pipelines.drawn_screen import write_drawn_screen
from pipelines.evaluate_moa import prepare_wells, score_wells
from pipelines.profile import profile_crops
from pipelines.train import train_encoder

SCREEN = DrawnScreen(
    n_controls=8,
    n_compounds=3,
    doses=(1.0, 1.4),
    n_weeks=2,
    mechanisms=("Tubulin bundlers", "Actin stabilisers", "Nuclear fragmenters"),
    seed=9,
)
FASTER = ("schedule.epochs=18", "schedule.batch_size=64", "schedule.learning_rate=3e-3")
CLEARLY = 0.2
KINDS = ("as given", "standardised", "standardised, whitening", "standardised, TVN")
KINDS += ("standardised, centred TVN",)


def intensities(crops, measurements):
    light = crops.astype(np.float32) / 255
    return np.hstack([light.mean(axis=(1, 2)), light.std(axis=(1, 2))])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results by network, then by kind of profiles."""
    folder = tmp_path_factory.mktemp("learned")
    write_drawn_screen(folder / "screen", SCREEN, locations=True)
    overrides = [f"data.path={folder / 'screen'}", "compute.device=cpu", *FASTER]
    tree = load_tree(TrainSettings, [find_config(Path("train/drawn_cells"))], overrides)
    crops = gather_crops(tree.data, tree.seed)
    encoder = CcrlEncoder(train_encoder(tree, folder / "run").encoder, "cpu", 256)
    build = partial(build_network, encoder.header.architecture, encoder.header.arguments)
    networks = {
        "trained": encoder,
        "untrained": Untrained(build, channel_scale(crops), 0, "cpu"),
        "intensities": intensities,
    }
    found = {}
    for name, network in networks.items():
        profiles = profile_crops(crops, network, folder / "screen", "mean")
        wells, _ = prepare_wells(profiles, MoaSettings())
        found[name] = {r.name: r for r in score_wells(wells, MoaSettings(), [])}
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["untrained", "intensities"])
def test_the_trained_network_tells_mechanisms_clearly_better(results, kind, other):
    trained, plain = results["trained"][kind].scores, results[other][kind].scores
    assert trained.nsc.n_scored == plain.nsc.n_scored == 36
    assert trained.nsc.accuracy > plain.nsc.accuracy + CLEARLY
    assert trained.nscb.accuracy > plain.nscb.accuracy + CLEARLY
    assert min(trained.nsc.accuracy, trained.nscb.accuracy) > 1 / 3 + 2 * CLEARLY


def week_told(result):
    """How often the week of treatments of held out compounds is told; half of them by chance."""
    treatments = result.treatments
    return predictability(
        treatments.features, treatments.text("batch"), treatments.text("compound"), 0, 0
    ).balanced_accuracy


def test_normalisation_repairs_the_drawn_shift_of_the_batch(results):
    trained = results["trained"]
    assert week_told(trained["as given"]) > 0.9
    assert week_told(trained["as given, TVN"]) < week_told(trained["as given"]) - 0.1
    assert week_told(trained["as given, centred TVN"]) < week_told(trained["as given"]) - 0.25
    # And what it leaves still tells mechanisms in another week.
    assert trained["standardised, centred TVN"].scores.nscb.accuracy > 0.75
    assert abs(trained["standardised, centred TVN"].scores.drop) < 0.1
