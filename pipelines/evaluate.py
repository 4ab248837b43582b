"""``ccrl-wsi evaluate``: encoders judged by the classes people gave to nuclei.

Not for choosing: a checkpoint or setting that is picked by its score on the test cells has learnt
from their labels. ``on_train`` scores on the training cells and never opens the test images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ccrl_wsi.crop_set import CropSet
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.errors import CcrlError, ConfigError
from ccrl_wsi.evaluation.probes import LabelledVectors, ProbeScores, probe
from ccrl_wsi.evaluation.protocol import (
    Embeddings,
    Judged,
    KMeansSettings,
    Reading,
    halves_by_source,
    judge,
    labelled,
)
from ccrl_wsi.evaluation.settings import SPLIT_KINDS, EvaluateSettings
from pipelines.embedders import Candidate, CutRule, find_candidate

if TYPE_CHECKING:
    from ccrl_wsi.interfaces import Encoder

log = logging.getLogger("ccrl_wsi")

Gather = Callable[[DataSettings, int], CropSet]


@dataclass(frozen=True, eq=False, slots=True)
class Cells:
    """Labelled cells cut by one rule; ``train`` or ``test`` is None where nobody needs it."""

    train: CropSet | None
    test: CropSet | None

    @property
    def scored(self) -> CropSet:
        """The cells that clusters are scored on."""
        found = self.test if self.test is not None else self.train
        assert found is not None
        return found

    @property
    def learnt(self) -> CropSet:
        """The cells a baseline may take its normalisation from: training ones if there are any."""
        return self.train if self.train is not None else self.scored

    def pair(self, reading: Reading) -> tuple[CropSet, CropSet]:
        """What is fitted on, and what is scored."""
        return (self.scored if reading == "fitted_on_test" else self.learnt), self.scored


@dataclass(frozen=True, eq=False, slots=True)
class EncoderResult:
    """What was found for one encoder.

    Parameters
    ----------
    name
        Unique among the results of one evaluation.
    """

    name: str
    candidate: Candidate
    judged: tuple[Judged, ...]
    probes: ProbeScores | None
    cells: Cells


@dataclass(frozen=True, slots=True)
class Failure:
    """An encoder that could not be judged, and why."""

    asked: str
    reason: str


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """Results in the order asked for, and failures."""

    settings: EvaluateSettings
    results: tuple[EncoderResult, ...]
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """1 if an encoder could not be judged."""
        return 1 if self.failures else 0


class CellStore:
    """The cells of the data set, cut once for every rule that an encoder asks for."""

    def __init__(self, settings: EvaluateSettings, gather: Gather) -> None:
        self._settings, self._gather = settings, gather
        self._known: dict[CutRule, Cells] = {}

    def by(self, rule: CutRule) -> Cells:
        """Labelled training and test cells, as far as they are needed.

        Raises
        ------
        EvaluationError
            If cells have no classes, or only one.
        """
        if rule not in self._known:
            settings = self._settings
            train = self._cut(rule, "train") if settings.needs_train else None
            test = None if settings.on_train else self._cut(rule, "test")
            self._known[rule] = with_same_classes(Cells(train, test))
        return self._known[rule]

    def _cut(self, rule: CutRule, part: str) -> CropSet:
        data = self._settings.data
        changes = {"scale": rule.scale, "size_px": rule.size_px, "shapes": rule.shapes}
        if data.kind in SPLIT_KINDS:
            chosen = data.model_copy(update={**changes, "split": part})
        else:
            is_test = part == "test" and self._settings.test_path is not None
            path = self._settings.test_path if is_test else data.path
            chosen = data.model_copy(update={**changes, "path": path})
        what = {"train": "training", "test": "test"}[part]
        return labelled(self._gather(chosen, self._settings.seed), what)


def evaluate(settings: EvaluateSettings, gather: Gather | None = None) -> Evaluation:
    """Judge every encoder that ``settings`` names; one that cannot be used does not stop others.

    Parameters
    ----------
    gather
        Reads crops; default :func:`pipelines.crop_sets.gather_crops`.

    Raises
    ------
    CcrlError
        If the data cannot be used, which no encoder could help.
    """
    if gather is None:
        _check_data_was_given(settings.data)
        from pipelines.crop_sets import gather_crops

        gather = gather_crops
    cells = CellStore(settings, gather)
    results: list[EncoderResult] = []
    failures: list[Failure] = []
    candidates: list[Candidate] = []
    for asked in settings.encoders:  # all of them first: a misspelt name is told at once
        try:
            candidates.append(find_candidate(asked, settings))
        except CcrlError as error:
            failures.append(_told(asked, error))
    names = [candidate.name for candidate in candidates]
    for candidate in candidates:
        mine = cells.by(candidate.rule)
        name = candidate.name if names.count(candidate.name) == 1 else candidate.asked
        try:
            results.append(judge_candidate(name, candidate, mine, settings))
        except CcrlError as error:
            failures.append(_told(candidate.asked, error))
    return Evaluation(settings, tuple(results), tuple(failures))


def _check_data_was_given(data: DataSettings) -> None:
    if "path" not in data.model_fields_set and not data.path.exists():
        raise ConfigError(
            "Give nuclei with classes to judge by: --data FOLDER for CoNSeP, --data KIND=FOLDER "
            "for others; and encoders: ccrl-wsi evaluate ccrl morphology --data CoNSeP -o scores."
        )


def judge_candidate(
    name: str, candidate: Candidate, cells: Cells, settings: EvaluateSettings
) -> EncoderResult:
    """All readings of one encoder, and the probes if they are wanted.

    Raises
    ------
    CcrlError
        If it cannot embed these crops, or they cannot be clustered.
    """
    candidate.check_mpp(cells.scored)
    embeddings = Embeddings(candidate.make(cells.learnt))
    k_means = KMeansSettings(
        k=settings.k or len(cells.scored.class_names),
        seed=settings.seed,
        n_seeds=settings.n_seeds,
        n_init=settings.n_init,
        max_iter=settings.max_iter,
    )
    readings: tuple[Reading, ...] = ("train_only",) if settings.on_train else settings.readings
    judged = []
    for reading in readings:
        judged.append(judge(embeddings, reading, *cells.pair(reading), k_means))
        _say(name, judged[-1])
    probes = _probes(embeddings, cells, settings) if settings.probes else None
    return EncoderResult(name, candidate, tuple(judged), probes, cells)


def _probes(embeddings: Embeddings, cells: Cells, settings: EvaluateSettings) -> ProbeScores:
    fit, scored = cells.learnt, cells.scored
    if settings.on_train:
        fit, scored = halves_by_source(cells.learnt, settings.seed)
    encoder: Encoder = embeddings.encoder(fit)
    vectors = [LabelledVectors(embeddings.of(part, fit), part.label) for part in (fit, scored)]
    return probe(vectors[0], vectors[1], standardise=encoder.standardise)


def with_same_classes(cells: Cells) -> Cells:
    """The same cells, classes numbered alike in both parts: a rare one may be missing in one."""
    train, test = cells.train, cells.test
    if train is None or test is None or train.class_names == test.class_names:
        return cells
    names = tuple(dict.fromkeys([*train.class_names, *test.class_names]))

    def renumbered(crops: CropSet) -> CropSet:
        number = np.array([names.index(name) for name in crops.class_names], np.int32)
        return replace(crops, label=number[crops.label], class_names=names)

    return Cells(renumbered(train), renumbered(test))


def _told(asked: str, error: CcrlError) -> Failure:
    log.error("%s cannot be judged. %s", asked, error)
    return Failure(asked, str(error))


def _say(name: str, judged: Judged) -> None:
    log.info(
        "%s, %s: AMI %.3f, ARI %.3f, purity %.3f (%d cells, %.0f s)",
        name,
        judged.reading.replace("_", " "),
        *(judged.mean(metric) for metric in ("ami", "ari", "purity")),
        judged.n_scored,
        judged.seconds,
    )
