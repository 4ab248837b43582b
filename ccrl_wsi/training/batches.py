"""Which crops are learned from together: a pure function of seed and step."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.seeding import rng_for


class Batches:
    """The row numbers of every step.

    An epoch has ``n // batch_size`` steps; what is left over is dropped, and is other crops in
    every epoch. With ``balance="none"`` an epoch is a permutation of all rows.

    With ``balance="slides"`` an epoch is as long, but goes round the slides: each round draws one
    crop of every slide, in an order of its own. So in any epoch, and in any batch, the numbers of
    crops of two slides differ by two at most. Within an epoch the crops of one slide come in a
    random order and again only when all have come; of a large slide an epoch shows a part, another
    one each time, and a small slide comes several times.

    Parameters
    ----------
    source
        (n,) the slide of each crop.
    batch_size
        Crops of a step, of all processes together.
    seed
        Of the order.
    balance
        ``none`` or ``slides``.
    what
        What the rows are, for messages.

    Raises
    ------
    ConfigError
        If there are fewer crops than a batch takes.
    """

    def __init__(
        self,
        source: IntArray,
        batch_size: int,
        seed: int,
        balance: Literal["none", "slides"] = "none",
        what: str = "crops",
    ) -> None:
        n = len(source)
        if n < batch_size:
            raise ConfigError(
                f"There are {n} {what} to learn from, fewer than a batch of {batch_size}. "
                + (f"Set schedule.batch_size={n} or less." if n > 1 else "Give more images.")
            )
        self.n_rows = n
        self.batch_size = batch_size
        self.steps_per_epoch = n // batch_size
        self._seed = seed
        self._slides = _rows_by_slide(source) if balance == "slides" else None
        self._epoch = -1
        self._order: IntArray = np.empty(0, np.int64)

    def n_steps(self, epochs: float) -> int:
        """Steps of so many epochs, rounded; at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def rows(self, step: int) -> IntArray:
        """Row numbers (batch_size,) int64 of ``step``, counted from 0."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            # Only this epoch's order is kept; any other is drawn again when asked for.
            self._order, self._epoch = self._draw(epoch), epoch
        return self._order[within * self.batch_size : (within + 1) * self.batch_size].copy()

    def _draw(self, epoch: int) -> IntArray:
        rng = rng_for(self._seed, "batches", f"epoch {epoch}")
        n = self.steps_per_epoch * self.batch_size
        if self._slides is None:
            return rng.permutation(self.n_rows)[:n]
        n_slides = len(self._slides)
        rounds = np.tile(np.arange(n_slides), (-(-n // n_slides), 1))
        slide = rng.permuted(rounds, axis=1).ravel()[:n]
        # The places of each slide, one slide after the other, are filled with its crops.
        places = np.argsort(slide, kind="stable")
        counts = np.bincount(slide, minlength=n_slides)
        order = np.empty(n, np.int64)
        order[places] = np.concatenate(
            [_in_turn(rows, int(k), rng) for rows, k in zip(self._slides, counts, strict=True)]
        )
        return order


def _rows_by_slide(source: IntArray) -> list[IntArray]:
    """The rows of each slide that has any."""
    by_slide = np.argsort(source, kind="stable")
    starts = np.flatnonzero(np.diff(source[by_slide])) + 1
    return list(np.split(by_slide, starts))


def _in_turn(rows: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """``n`` of the ``rows`` in random order, none again before all have come."""
    turns = [rng.permutation(rows) for _ in range(-(-n // len(rows)))]
    return np.concatenate(turns)[:n] if turns else rows[:0]
