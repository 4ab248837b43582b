"""What the CCRL paper prints, to stand beside what is measured.

Nakhli et al., "CCRL: Contrastive Cell Representation Learning", 2022, Table 2 (both data sets) and
Table 3 (ablations, NuCLS only), in per cent. The paper names neither seeds nor spread, nor whether
k-means was fitted on the test or on the training cells.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaperScores:
    """A row of the paper, in per cent."""

    ami: float
    ari: float
    purity: float


TABLE_2: dict[str, dict[str, PaperScores]] = {
    "consep": {
        "imagenet": PaperScores(7.3, 7.0, 42.7),
        "morphological": PaperScores(12.7, 1.3, 48.8),
        "manual": PaperScores(9.5, 6.4, 45.5),
        "dcae": PaperScores(10.1, 7.3, 50.5),
        "infogan": PaperScores(14.8, 15.7, 58.4),
        "ccrl": PaperScores(24.2, 21.7, 51.8),
    },
    "nucls": {
        "imagenet": PaperScores(9.3, 7.8, 56.7),
        "morphological": PaperScores(21.1, 18.8, 66.1),
        "manual": PaperScores(11.25, 7.8, 56.2),
        "dcae": PaperScores(8.3, 7.2, 56.8),
        "infogan": PaperScores(14.0, 12.6, 62.0),
        "ccrl": PaperScores(22.8, 24.0, 68.3),
    },
}
"""By data set and method."""

TABLE_3: dict[str, PaperScores] = {
    "no_local_global": PaperScores(21.9, 20.4, 69.7),
    "no_ensembling": PaperScores(21.1, 19.2, 67.2),
    "no_predictor": PaperScores(22.0, 20.9, 68.1),
}
"""CCRL on NuCLS with one part left out."""
