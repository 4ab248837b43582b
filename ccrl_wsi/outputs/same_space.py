"""Whether the slides of a cohort can stand in one file."""

from __future__ import annotations

from collections.abc import Sequence

from ccrl_wsi.errors import StoreError
from ccrl_wsi.store import SlideStore

_LABEL = "label"


def check_same_space(stores: Sequence[SlideStore]) -> None:
    """Vectors and cluster numbers mean the same only from one encoder and one codebook.

    Raises
    ------
    StoreError
        If there is no slide, or two of them differ in encoder, columns or codebook.
    """
    if not stores:
        raise StoreError("There is no finished slide to export. Run `ccrl-wsi run` first.")
    made = {
        (
            store.attrs["encoder"]["fingerprint"],
            # Some slides may have labels and others none.
            tuple(name for name in store.columns if name != _LABEL),
        ): store
        for store in stores
    }
    if len(made) > 1:
        a, b = list(made.values())[:2]
        raise StoreError(
            f"{a.slide_id} and {b.slide_id} differ in encoder or columns. "
            "Run the cohort again so that all slides are treated alike."
        )
    clustered = {store.attrs.get("clusters", {}).get("codebook"): store for store in stores}
    if len(clustered) > 1:
        a, b = list(clustered.values())[:2]
        raise StoreError(
            f"{a.slide_id} and {b.slide_id} have clusters of different codebooks, so C01 of one is "
            "not C01 of the other. Run `ccrl-wsi cluster` first."
        )
