"""The SimCLR model: one network, two views, the batch as negatives (Chen et al. 2020).

As Perakis et al. 2021 use it for single-cell phenotypes: no key network that follows, no queue, no
prediction head, and a projector without normalisation. It learns in the same loop and by the same
learner as CCRL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ccrl_wsi.training.ccrl_model import ContrastiveModel, Gather, Outcome, alone, drawn
from ccrl_wsi.training.heads import plain_projector
from ccrl_wsi.training.losses.cosines import mean_negative, top1, unit
from ccrl_wsi.training.losses.nt_xent import nt_xent, view_cosines
from ccrl_wsi.training.settings import LossSettings, NetworkSettings


class SimclrModel(ContrastiveModel):
    """Encoder, projector and loss.

    Parameters
    ----------
    make_encoder
        Makes the backbone; drawn anew unless ``network.pretrained``.
    n_dimensions
        Of an embedding.
    network, loss
        The settings.
    seed
        Of the weights.
    gather
        Joins a tensor of every process along its first axis, in order of ranks; gradients flow
        back to where the rows came from.
    """

    def __init__(
        self,
        make_encoder: Callable[[], nn.Module],
        n_dimensions: int,
        network: NetworkSettings,
        loss: LossSettings,
        seed: int,
        gather: Gather = alone,
    ) -> None:
        super().__init__()
        hidden, out = network.projector
        self._temperature, self._gather = loss.temperature, gather
        is_ready = network.pretrained
        self.query_encoder = make_encoder() if is_ready else drawn(make_encoder, seed, "encoder")
        self.query_projector = drawn(
            lambda: plain_projector(n_dimensions, hidden, out), seed, "projector"
        )

    def forward(
        self, first: Tensor, second: Tensor, rows: Tensor, assignment: Tensor | None = None
    ) -> Outcome:
        """Compare two views of the same cells; see :class:`CcrlModel`. No pseudo-classes.

        Raises
        ------
        ValueError
            If there is an assignment.
        """
        if assignment is not None:
            raise ValueError("SimCLR knows no pseudo-classes")
        # Both views in one pass: they share the statistics of their normalisation, as in SimCLR.
        views = self.query_projector(self.query_encoder(torch.cat([first, second])))
        own, other = views.chunk(2)
        both = torch.cat([rows, rows])
        found = view_cosines(
            views, torch.cat([other, own]), both, self._gather(views), self._gather(both)
        )
        loss = nt_xent(found, self._temperature)
        parts = {
            "nt_xent": loss.detach(),
            "alignment": found.positive.detach().mean(),
            "negative_similarity": mean_negative(found),
            "accuracy": top1(found),
        }
        return Outcome(loss, parts, unit(own.detach()), rows)

    def encoder(self, which: Literal["momentum", "query"]) -> nn.Module:
        """The backbone: there is but one."""
        return self.query_encoder

    def encoders(self) -> list[nn.Module]:
        """The backbone: there is but one."""
        return [self.query_encoder]
