"""The CCRL model: a query network that learns, a key network that follows, a queue of keys.

Each view passes an encoder and a projector; queries pass a prediction head as well. The key
network starts as a copy of the query network (He et al. 2020). VOLTA draws the weights of both
anew after the copy, so that its two networks start as strangers; here the copy stays one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ccrl_wsi.seeding import rng_for
from ccrl_wsi.training.heads import draw_xavier, predictor, projector
from ccrl_wsi.training.key_queue import KeyQueue
from ccrl_wsi.training.losses.byol import byol
from ccrl_wsi.training.losses.cosines import Cosines, cosines, mean_negative, top1, unit
from ccrl_wsi.training.losses.debiased import debiased
from ccrl_wsi.training.losses.info_nce import info_nce
from ccrl_wsi.training.losses.prototypes import prototype_scattering
from ccrl_wsi.training.momentum import follow
from ccrl_wsi.training.settings import LossSettings, NetworkSettings

Gather = Callable[[Tensor], Tensor]
Parts = dict[str, Tensor]


class Outcome(NamedTuple):
    """What one batch gave.

    Parameters
    ----------
    loss
        () float32, to go backward from; of this process' part of the batch.
    parts
        Scalars () without gradient, the same names at every step: the loss terms before weighting
        (``info_nce``, ``debiased`` or ``byol``; ``prototypes`` if asked for, 0 while there is no
        assignment), ``alignment`` (mean cosine of queries and their keys) and, with negatives,
        ``negative_similarity`` (mean cosine of the pairs that count) and ``accuracy`` (share of
        queries nearest to their own key).
    keys
        (n, d) float32 unit keys of the whole views, of all processes, for the queue.
    rows
        (n,) int64 rows of the training set they belong to.
    """

    loss: Tensor
    parts: Parts
    keys: Tensor
    rows: Tensor


def alone(tensor: Tensor) -> Tensor:
    """What one process gathers from all of them."""
    return tensor


class ContrastiveModel(nn.Module):
    """What a learner asks of a model besides ``forward``, which gives an :class:`Outcome`."""

    def enqueue(self, keys: Tensor, rows: Tensor) -> None:
        """Keep an outcome's keys as later negatives, where there is a queue."""

    def follow(self, momentum: float) -> None:
        """Move the key network towards the query network, where there is one."""

    def encoder(self, which: Literal["momentum", "query"]) -> nn.Module:
        """The backbone that gives embeddings."""
        raise NotImplementedError

    def encoders(self) -> list[nn.Module]:
        """All backbones there are."""
        raise NotImplementedError


class CcrlModel(ContrastiveModel):
    """Both networks, the queue and the loss. Everything that learns is used inside ``forward``.

    So it can be wrapped by ``DistributedDataParallel`` with ``broadcast_buffers=False``. After
    the optimiser's step the caller calls :meth:`enqueue` and :meth:`follow`. Both networks are
    meant to stay in training mode: each normalises by its own batch.

    Parameters
    ----------
    make_encoder
        Makes the backbone, (b, channels, h, w) to (b, n_dimensions); its convolutions and linear
        layers are drawn anew, Xavier-normal as in VOLTA.
    n_dimensions
        Of an embedding.
    network, loss
        The settings.
    seed
        Of weights and of the queue at the start; no part's weights depend on other parts.
    gather
        Joins a tensor of every process along its first axis, in order of ranks, without gradient.
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
        self._settings, self._gather = loss, gather
        self.query_encoder = drawn(make_encoder, seed, "encoder")
        self.query_projector = drawn(
            lambda: projector(n_dimensions, hidden, out), seed, "projector"
        )
        self.predictor: nn.Module = nn.Identity()
        if network.predictor is not None:
            width = network.predictor
            self.predictor = drawn(lambda: predictor(out, width), seed, "predictor")
        self.key_encoder = copy.deepcopy(self.query_encoder).requires_grad_(False)
        self.key_projector = copy.deepcopy(self.query_projector).requires_grad_(False)
        # Without negatives nobody would read a queue.
        self.queue = KeyQueue(loss.queue_size, out, seed) if loss.kind == "info_nce" else None

    def forward(
        self, first: Tensor, second: Tensor, rows: Tensor, assignment: Tensor | None = None
    ) -> Outcome:
        """Compare two views of the same cells.

        One-sided, as the paper's Eq. 2 reads: the local view asks (query), the whole view answers
        (key), as the queue holds keys of whole views. The paper does not say which view asks.
        Symmetric, as VOLTA: both ways, and the mean of the two losses.

        The prototype term is of the cells of this process only: its prototypes are means of
        queries, which carry gradients.

        Parameters
        ----------
        first, second
            (n, channels, h, w) whole views and local views, normalised.
        rows
            (n,) int64 rows of the training set.
        assignment
            (n,) int64 pseudo-class of each cell, -1 for none; None: no prototype term yet.

        Raises
        ------
        ValueError
            If an assignment comes without ``loss.prototypes``.
        """
        if assignment is not None and self._settings.prototypes is None:
            raise ValueError("an assignment to pseudo-classes needs loss.prototypes")
        # In order of ranks, the keys of all parts are those of the undivided batch.
        keys, all_rows = self._keys(first), self._gather(rows)
        all_keys = self._gather(keys)
        ways = [self._compare(self._queries(second), keys, (all_keys, all_rows), rows, assignment)]
        if self._settings.symmetric:
            local = self._keys(second)
            pool = (self._gather(local), all_rows)
            ways.append(self._compare(self._queries(first), local, pool, rows, assignment))
        loss = torch.stack([loss for loss, _ in ways]).mean()
        parts = {name: torch.stack([p[name] for _, p in ways]).mean() for name in ways[0][1]}
        return Outcome(loss, parts, all_keys, all_rows)

    def enqueue(self, keys: Tensor, rows: Tensor) -> None:
        """Keep an outcome's keys as later negatives; nothing to do for BYOL, which has none."""
        if self.queue is not None:
            self.queue.push(keys, rows)

    def follow(self, momentum: float) -> None:
        """Move the key network towards the query network (paper, Eq. 1)."""
        follow(self.key_encoder, self.query_encoder, momentum)
        follow(self.key_projector, self.query_projector, momentum)

    def encoder(self, which: Literal["momentum", "query"]) -> nn.Module:
        """The backbone that gives embeddings; momentum: the key network's (paper: ensembling)."""
        return {"momentum": self.key_encoder, "query": self.query_encoder}[which]

    def encoders(self) -> list[nn.Module]:
        """Both backbones."""
        return [self.query_encoder, self.key_encoder]

    def _queries(self, views: Tensor) -> Tensor:
        queries: Tensor = self.predictor(self.query_projector(self.query_encoder(views)))
        return queries

    @torch.no_grad()
    def _keys(self, views: Tensor) -> Tensor:
        return unit(self.key_projector(self.key_encoder(views)))

    def _compare(
        self,
        queries: Tensor,
        keys: Tensor,
        batch: tuple[Tensor, Tensor],
        rows: Tensor,
        assignment: Tensor | None,
    ) -> tuple[Tensor, Parts]:
        """The loss of one direction, with its parts; ``batch``: everybody's keys and rows."""
        loss, parts = self._instance_loss(queries, keys, batch, rows)
        settings = self._settings
        if settings.prototypes is not None:
            scattering = torch.zeros_like(loss)
            if assignment is not None:
                scattering = prototype_scattering(
                    queries, keys, assignment, settings.prototypes, settings.prototype_temperature
                )
            loss = loss + settings.prototype_weight * scattering
            parts["prototypes"] = scattering.detach()
        return loss, parts

    def _instance_loss(
        self, queries: Tensor, keys: Tensor, batch: tuple[Tensor, Tensor], rows: Tensor
    ) -> tuple[Tensor, Parts]:
        """The term that asks each cell for its own key."""
        settings = self._settings
        if self.queue is None:
            loss = byol(queries, keys)
            # By definition: 2 - 2 cos.
            return loss, {"byol": loss.detach(), "alignment": 1 - loss.detach() / 2}
        found = self._cosines(self.queue, queries, keys, batch, rows)
        if settings.debias > 0:
            name, loss = "debiased", debiased(found, settings.temperature, settings.debias)
        else:
            name, loss = "info_nce", info_nce(found, settings.temperature)
        return loss, {
            name: loss.detach(),
            "alignment": found.positive.detach().mean(),
            "negative_similarity": mean_negative(found),
            "accuracy": top1(found),
        }

    def _cosines(
        self,
        queue: KeyQueue,
        queries: Tensor,
        keys: Tensor,
        batch: tuple[Tensor, Tensor],
        rows: Tensor,
    ) -> Cosines:
        """Queries against their keys, the queue and, if asked for, the keys of the batch."""
        negatives, ignored = queue.keys, None
        if self._settings.mask_own:
            ignored = rows[:, None] == queue.rows
        if self._settings.batch_negatives:
            batch_keys, batch_rows = batch
            # A cell's own key is the positive, and never a negative, however often it was drawn.
            own = rows[:, None] == batch_rows
            older = ignored if ignored is not None else own.new_zeros(len(rows), len(queue))
            negatives, ignored = torch.cat([negatives, batch_keys]), torch.cat([older, own], dim=1)
        return cosines(queries, keys, negatives, ignored)


def trained_parameters(model: CcrlModel) -> Iterator[nn.Parameter]:
    """What the optimiser gets: the query side. Keys never receive a gradient."""
    for part in (model.query_encoder, model.query_projector, model.predictor):
        yield from part.parameters()


def drawn(make: Callable[[], nn.Module], seed: int, name: str) -> nn.Module:
    """A network on the CPU with weights that depend on ``seed`` and ``name`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng_for(seed, "weights", name).integers(2**63)))
        network = make()
        draw_xavier(network)
    return network
