"""What others report on BBBC021, to stand beside what is measured.

Where a figure comes from is said with each: read in the primary source, quoted from later papers,
or inferred from differences that an abstract gives.
All are of 103 treatments of 38 compounds (NSC) and 92 of them (NSCB), cosine distance unless their
authors say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A row of the literature, in per cent; None where it is not reported."""

    name: str
    nsc: float | None
    nscb: float | None
    source: Literal["read", "quoted", "inferred"]
    where: str

    @property
    def drop(self) -> float | None:
        """NSC minus NSCB, in points."""
        return None if self.nsc is None or self.nscb is None else self.nsc - self.nscb


BBBC021 = (
    PublishedScore("Ljosa 2013, factor analysis", 94, 77, "quoted", "by later papers"),
    PublishedScore("Singh 2014, illumination correction", 90, 85, "quoted", "by later papers"),
    PublishedScore("Ando 2017, deep metric network and TVN", 96, 95, "quoted", "by later papers"),
    PublishedScore(
        "DeepProfiler, weakly supervised, whitening and CORAL",
        97.1,
        87.0,
        "read",
        "notebook of DeepProfilerExperiments: 100 of 103, 80 of 92",
    ),
    PublishedScore(
        "Perakis 2021, contrastive (the method of train/simclr_bbbc021)",
        96,
        95,
        "inferred",
        "abstract: 10 points of NSCB and 11 of drop better than the best unsupervised method",
    ),
    PublishedScore("WS-DINO 2022", 98, 96, "read", "abstract, arXiv:2209.07819"),
)
"""In the order of their years."""

LJOSA_MEAN_PROFILES = (83.0, 84.0)
"""NSC of the plain means of CellProfiler's features, in per cent, as quoted by later papers."""
