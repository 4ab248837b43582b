"""What the one training loop trains, and what it says at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ccrl_wsi.arrays import IntArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in the training we are. Whatever changes with time is a function of this.

    Parameters
    ----------
    step
        Steps done before this one.
    n_steps, steps_per_epoch
        Of the whole training.
    """

    step: int
    n_steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> float:
        """Epochs done before this step."""
        return self.step / self.steps_per_epoch

    @property
    def n_epochs(self) -> float:
        """Epochs of the whole training."""
        return self.n_steps / self.steps_per_epoch


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train together (torchrun); alone: rank 0 of 1."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """The part of a batch of ``n`` rows that belongs to this process.

        Raises
        ------
        ValueError
            If the batch cannot be shared equally: gradients would be weighted wrongly.
        """
        if n % self.size:
            raise ValueError(f"a batch of {n} cannot be shared by {self.size} processes equally")
        part = n // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


class Learner(Protocol):
    """A model with its data, losses and optimisers. Holds no counter and no random generator.

    Random numbers come from :func:`ccrl_wsi.seeding.rng_for` with the step among the names, so
    that a resumed training is the same training.
    """

    def step(self, rows: IntArray, moment: Moment) -> dict[str, Tensor]:
        """Learn from the ``rows`` (n,) of the training set; all processes get the same rows.

        Returns named scalars, left on the device so that nobody waits for it; one is ``loss``.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that must be kept to go on, the optimiser's tensors included."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        ...
