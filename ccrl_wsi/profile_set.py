"""Profiles: rows of features of wells or treatments, with what is known of each row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ccrl_wsi.arrays import BoolArray, FloatArray, IntArray

ABOUT = ("plate", "well", "batch", "compound", "concentration", "mechanism")
"""What may be known of a profile: text, empty where nobody said; the concentration is a number."""


@dataclass(frozen=True, eq=False, slots=True)
class Profiles:
    """n profiles of d features.

    Parameters
    ----------
    features
        (n, d) float64.
    names
        d names of the features.
    about
        n rows with the columns ``ABOUT``; ``concentration`` is float64, NaN where nobody said.
    """

    features: FloatArray
    names: tuple[str, ...]
    about: pd.DataFrame

    def __post_init__(self) -> None:
        if self.features.shape != (len(self.about), len(self.names)):
            raise ValueError(
                f"features are {self.features.shape}, for {len(self.about)} rows and "
                f"{len(self.names)} names"
            )
        missing = [name for name in ABOUT if name not in self.about.columns]
        if missing:
            raise ValueError(f"profiles lack the columns {missing}")

    def __len__(self) -> int:
        return len(self.about)

    def text(self, column: str) -> list[str]:
        """A column of ``about`` as strings."""
        return [str(value) for value in self.about[column]]

    def where(self, keep: BoolArray | IntArray) -> Profiles:
        """The rows that ``keep`` (mask or row numbers) selects, in its order."""
        rows = np.arange(len(self))[keep]
        about = self.about.iloc[rows].reset_index(drop=True)
        return Profiles(self.features[rows], self.names, about)

    def with_features(self, features: FloatArray, names: tuple[str, ...] | None = None) -> Profiles:
        """The same rows with other features; without ``names`` they are called by number."""
        if names is None:
            names = tuple(f"feature_{i:04d}" for i in range(features.shape[1]))
        return replace(self, features=features, names=names)

    def is_control(self, control: str) -> BoolArray:
        """(n,) whether the compound is ``control``, such as DMSO, in whatever case."""
        wanted = control.casefold()
        return np.array([name.casefold() == wanted for name in self.text("compound")], bool)
