"""``ccrl-wsi evaluate --moa``: profiles of any tool scored by mechanism of action.

The order of work: read the table, learn what each well was treated with, average to wells and
treatments, and score every combination of feature clean-up and normalisation. No formula.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ccrl_wsi.arrays import BoolArray, FloatArray
from ccrl_wsi.datasets.bbbc021 import read_wells
from ccrl_wsi.datasets.profile_table import add_treatments, read_profile_table
from ccrl_wsi.errors import ConfigError, EvaluationError
from ccrl_wsi.evaluation.feature_cleanup import (
    is_about_the_record,
    is_moderate,
    is_no_repetition,
    is_usable,
    standardise,
)
from ccrl_wsi.evaluation.mechanism_scores import MechanismScores, score_mechanisms
from ccrl_wsi.evaluation.moa_settings import MoaSettings
from ccrl_wsi.evaluation.profile_aggregation import to_treatments, to_wells
from ccrl_wsi.evaluation.typical_variation import (
    FEWEST_CONTROLS,
    align_batches,
    batches_without_controls,
    normalise_typical_variation,
    whiten,
)
from ccrl_wsi.profile_set import Profiles

log = logging.getLogger("ccrl_wsi")

CleanUp = Literal["as given", "standardised", "cleaned up"]
Normalisation = Literal["none", "whitening", "TVN", "centred TVN"]
BEYOND_MEASURE = 1e100
"""Of a feature: its square is finite still."""
SMALL_OF_RIDGE = 0.1
"""Share of the ridge below which a mean variance of controls is drowned by it."""
Kind = tuple[CleanUp, Normalisation]


@dataclass(frozen=True, eq=False, slots=True)
class MoaResult:
    """Scores of one kind of profiles.

    Parameters
    ----------
    clean_up, normalisation
        What was done to the features of wells, in this order.
    n_features
        Features that the treatments were compared by.
    treatments
        What was compared; row i is treatment i of the scores.
    """

    clean_up: CleanUp
    normalisation: Normalisation
    n_features: int
    treatments: Profiles
    scores: MechanismScores

    @property
    def name(self) -> str:
        """Such as ``cleaned up, TVN``."""
        return self.clean_up + ("" if self.normalisation == "none" else f", {self.normalisation}")


@dataclass(frozen=True, eq=False, slots=True)
class MoaEvaluation:
    """Results of one table of profiles, and sentences about it."""

    settings: MoaSettings
    path: Path
    n_rows: int
    wells: Profiles
    results: tuple[MoaResult, ...]
    remarks: tuple[str, ...]


def evaluate_moa(path: Path, settings: MoaSettings) -> MoaEvaluation:
    """Score the profiles in ``path``.

    Raises
    ------
    ConfigError
        If the table does not say what was given to its wells, and ``settings.data`` neither.
    StoreError
        If a file is absent or damaged.
    EvaluationError
        If nothing can be scored.
    """
    profiles, remarks = load_profiles(path, settings)
    wells, more = prepare_wells(profiles, settings)
    remarks += more
    results = tuple(score_wells(wells, settings, remarks))
    for remark in remarks:
        log.warning("%s: %s", path.name, remark)
    return MoaEvaluation(settings, path, len(profiles), wells, results, tuple(remarks))


def load_profiles(path: Path, settings: MoaSettings) -> tuple[Profiles, list[str]]:
    """The table's rows with compounds and mechanisms, and what there is to say of them."""
    columns = settings.columns.model_dump()
    table = read_profile_table(path, columns)
    profiles, remarks = table.profiles, list(table.remarks)
    has_compounds = any(profiles.text("compound"))
    if has_compounds and any(profiles.text("mechanism")):
        return profiles, remarks
    if settings.data is None:
        lacks = "mechanisms" if has_compounds else "compounds"
        raise ConfigError(
            f"{path} has no column of {lacks}. Name it with --set columns."
            f"{'mechanism' if has_compounds else 'compound'}=NAME, or give the folder with "
            "BBBC021_v1_image.csv and BBBC021_v1_moa.csv with --data."
        )
    if not any(profiles.text("plate")) or not any(profiles.text("well")):
        raise ConfigError(
            f"{path} has no columns of plates and wells, by which its rows could be found in "
            f"{settings.data}. Name them with --set columns.plate=NAME columns.well=NAME."
        )
    profiles, more = add_treatments(profiles, read_wells(settings.data))
    if not len(profiles):
        raise EvaluationError(f"None of the wells of {path} is listed in {settings.data}.")
    return profiles, remarks + more


def prepare_wells(profiles: Profiles, settings: MoaSettings) -> tuple[Profiles, list[str]]:
    """One profile a well, of numbers only; treatments' profiles stay as they are."""
    remarks = []
    is_number = np.abs(profiles.features) < BEYOND_MEASURE  # false for NaN
    hollow = is_number.mean(axis=1) < 0.5
    if hollow.any():
        remarks.append(f"{hollow.sum()} rows are mostly no numbers and are left out")
        profiles, is_number = profiles.where(~hollow), is_number[~hollow]
    usable = is_usable(np.where(is_number, profiles.features, np.nan))
    if not usable.all():
        n_holes = int((~is_number.all(axis=0)).sum())
        remarks.append(
            f"{(~usable).sum()} of {len(usable)} features are left out: {n_holes} lack numbers in "
            f"some rows, {(~usable).sum() - n_holes} are always the same"
        )
    if not usable.any():
        raise EvaluationError("No feature has a number in every row and varies.")
    names = tuple(np.array(profiles.names, object)[usable])
    profiles = profiles.with_features(profiles.features[:, usable], names)
    if not any(profiles.text("well")):
        return profiles, [*remarks, "no column of wells: every row is taken for one well's"]
    n_rows = len(profiles)
    wells = to_wells(profiles, settings.cells_to_wells)
    _check_one_compound(profiles, wells)
    if len(wells) < n_rows:
        how = settings.cells_to_wells
        remarks.append(f"{n_rows} rows of {len(wells)} wells: the {how} of each well is taken")
    return wells, remarks


def score_wells(wells: Profiles, settings: MoaSettings, remarks: list[str]) -> list[MoaResult]:
    """Every kind of profiles scored; what cannot be done is added to ``remarks``."""
    is_control = wells.is_control(settings.control)
    batch = wells.text("batch") if all(wells.text("batch")) else None
    if batch is None:
        remarks.append("batches are not known: neither NSCB nor CORAL")
    if is_control.sum() < FEWEST_CONTROLS:
        remarks.append(
            f"{is_control.sum()} wells of {settings.control}: neither clean-up nor normalisation, "
            "which need two or more; another control is named with --set control="
        )
        kinds: dict[Kind, FloatArray] = {("as given", "none"): wells.features}
    else:
        kinds = _kinds(wells, is_control, batch, settings)
        variance = float(wells.features[is_control].var(axis=0).mean())
        if settings.tvn and variance < SMALL_OF_RIDGE * settings.ridge:
            remarks.append(
                f"features as given vary among controls by {variance:.1g}, far less than the ridge "
                f"of {settings.ridge:g}: their whitening and TVN change little; read the "
                "standardised ones, or set a smaller ridge"
            )
        alone = batches_without_controls(is_control, batch) if batch and settings.tvn else []
        if alone:
            remarks.append(f"CORAL leaves {', '.join(alone)} as they are: too few controls")
    is_scored = ~is_control & _has_mechanism(wells, is_control, remarks)
    if not is_scored.any():
        raise EvaluationError("No well but the controls has a mechanism: nothing can be scored.")
    return [
        _scored(kind, wells.with_features(features).where(is_scored), batch is not None, settings)
        for kind, features in kinds.items()
    ]


def _has_mechanism(wells: Profiles, is_control: BoolArray, remarks: list[str]) -> BoolArray:
    """(n,) whether the mechanism is known; compounds without are told."""
    known = np.array([bool(name) for name in wells.text("mechanism")], bool)
    unknown = ~known & ~is_control
    if unknown.any():
        compounds = sorted(set(wells.where(unknown).text("compound")))
        some = ", ".join(compounds[:5]) + (" ..." if len(compounds) > 5 else "")
        remarks.append(
            f"{unknown.sum()} wells have no known mechanism and are not scored: treatments of "
            f"{len(compounds)} compounds ({some})"
        )
    return known


def _kinds(
    wells: Profiles, is_control: BoolArray, batch: Sequence[str] | None, settings: MoaSettings
) -> dict[Kind, FloatArray]:
    """Features of the wells by what was done to them."""
    kinds: dict[Kind, FloatArray] = {}
    for clean_up, features in _cleaned(wells, is_control, settings).items():
        kinds[clean_up, "none"] = features
        if settings.tvn:
            whitened = whiten(features, is_control, settings.ridge)
            kinds[clean_up, "whitening"] = whitened
            if batch is not None:
                ridge = settings.ridge
                kinds[clean_up, "TVN"] = align_batches(whitened, is_control, batch, ridge)
                kinds[clean_up, "centred TVN"] = normalise_typical_variation(
                    features, is_control, batch, ridge, centre=True
                )
    return kinds


def _cleaned(
    wells: Profiles, is_control: BoolArray, settings: MoaSettings
) -> dict[CleanUp, FloatArray]:
    """Features of the wells by how they were cleaned up."""
    rule = settings.clean_up
    group = [""] * len(wells) if rule.within == "all" else wells.text(rule.within)
    scaled = standardise(wells.features, is_control, group, rule.scaling)
    kept = is_usable(scaled)
    if not kept.any():
        raise EvaluationError(
            "No feature varies among the controls of every group. Set clean_up.within=all or "
            "clean_up.scaling=sd."
        )
    standardised = scaled[:, kept]
    chosen = ~is_about_the_record([n for n, k in zip(wells.names, kept, strict=True) if k])
    chosen &= is_moderate(standardised, rule.largest)
    cleaned = standardised[:, chosen]
    cleaned = cleaned[:, is_no_repetition(cleaned, rule.largest_correlation)]
    found: dict[CleanUp, FloatArray] = {"as given": wells.features, "standardised": standardised}
    return found | ({"cleaned up": cleaned} if cleaned.shape[1] else {})


def _scored(kind: Kind, wells: Profiles, has_batches: bool, settings: MoaSettings) -> MoaResult:
    """Treatments made of the ``wells``, which hold no controls, and their scores."""
    treatments = to_treatments(wells, settings.wells_to_treatments)
    _check_one_mechanism(wells, treatments)
    scores = score_mechanisms(
        treatments.features,
        treatments.text("compound"),
        treatments.text("mechanism"),
        treatments.text("batch") if has_batches else None,
        settings.same_batch,
    )
    return MoaResult(*kind, treatments.features.shape[1], treatments, scores)


def _check_one_compound(profiles: Profiles, wells: Profiles) -> None:
    known = set(profiles.text("compound"))
    for row, compound in enumerate(wells.text("compound")):
        if compound not in known:
            plate, well = wells.text("plate")[row], wells.text("well")[row]
            raise EvaluationError(
                f"Well {well or '(without a name)'} of plate {plate or '(without a name)'} has "
                f"several compounds: {compound[:60]}. Name the columns of plates and wells with "
                "--set columns.plate=NAME columns.well=NAME."
            )


def _check_one_mechanism(wells: Profiles, treatments: Profiles) -> None:
    known = set(wells.text("mechanism"))
    about = zip(treatments.text("compound"), treatments.text("mechanism"), strict=True)
    torn = [f"{compound} ({name})" for compound, name in about if name not in known]
    if torn:
        raise EvaluationError(f"The table gives several mechanisms to one treatment: {torn[0]}.")
