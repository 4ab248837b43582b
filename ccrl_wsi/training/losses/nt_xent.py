"""NT-Xent: know your other view among all views of the batch (Chen et al. 2020, SimCLR)."""

from __future__ import annotations

from torch import Tensor

from ccrl_wsi.training.losses.cosines import Cosines, cosines
from ccrl_wsi.training.losses.info_nce import info_nce


def view_cosines(
    views: Tensor, others: Tensor, rows: Tensor, pool: Tensor, pool_rows: Tensor
) -> Cosines:
    """Views against the other view of the same cell and all views of other cells.

    Parameters
    ----------
    views, others
        (n, d) projections of views and of the other view of each.
    rows
        (n,) int64, which cell each is of.
    pool, pool_rows
        (m, d) projections of all views of the batch, of all processes, and their cells. Those of
        the same cell are no negatives, however often it was drawn.
    """
    return cosines(views, others, pool, rows[:, None] == pool_rows)


def nt_xent(found: Cosines, temperature: float) -> Tensor:
    r"""Normalised temperature-scaled cross entropy (), a mean over views.

    .. math:: -\log \frac{e^{z_i z_j / \tau}}{\sum_{k \neq i} e^{z_i z_k / \tau}}

    (Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020,
    Eq. 1), where j is the other view of i's cell. It is InfoNCE with the batch as negatives.
    """
    return info_nce(found, temperature)
