"""The codebook: what a cluster is, in one file that can be applied to other slides."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ccrl_wsi.arrays import FloatArray
from ccrl_wsi.clusters.palette import cluster_colors, cluster_names
from ccrl_wsi.errors import ClusterError

FORMAT = "ccrl-wsi codebook 1"
CENTRED_FORMAT = "ccrl-wsi codebook 2"
"""Of codebooks that centre slides: a program that knows the first only must not use them."""

FILE_NAME = "codebook.safetensors"
"""In the output folder of a run."""


@dataclass(frozen=True, eq=False, slots=True)
class Codebook:
    """k-means centres with all that is needed to use them elsewhere.

    Parameters
    ----------
    centers
        (k, d) float64, in the standardised space.
    mean, std
        (d,) float64: an embedding e is compared as ``(e - mean) / std``; zeros and ones where
        nothing is standardised.
    encoder_name, encoder_fingerprint
        The encoder whose embeddings these are. Another one is refused.
    sizes
        Cells of the fitting sample in each cluster.
    record
        How it was fitted: seed, number of cells and slides, settings.
    centres_slides
        Embeddings are compared less the mean of their slide.
    """

    centers: FloatArray
    mean: FloatArray
    std: FloatArray
    encoder_name: str
    encoder_fingerprint: str
    sizes: tuple[int, ...]
    record: dict[str, object]
    centres_slides: bool = False

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.centers)

    @property
    def is_k_chosen(self) -> bool:
        """Whether the number of clusters was chosen by ``clusters.k=auto``."""
        return bool(self.record.get("choice_of_k"))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the clusters, by number."""
        return cluster_names(self.k)

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB 0..255 of the clusters, by number."""
        return cluster_colors(self.k)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with centres, scaling, centring or the encoder."""
        digest = hashlib.sha256(self.encoder_fingerprint.encode())
        digest.update(b"centres slides" if self.centres_slides else b"")
        for array in (self.centers, self.mean, self.std):
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()[:16]

    def check_encoder(self, name: str, fingerprint: str) -> None:
        """Refuse embeddings of another encoder.

        Raises
        ------
        ClusterError
            If the fingerprints differ.
        """
        if fingerprint != self.encoder_fingerprint:
            raise ClusterError(
                f"This codebook was fitted on embeddings of {self.encoder_name!r} "
                f"({self.encoder_fingerprint}), but the cells were embedded by {name!r} "
                f"({fingerprint}): the numbers mean different things. Embed with the codebook's "
                "encoder and crop rule, or fit a new codebook."
            )


def save_codebook(path: Path, codebook: Codebook) -> None:
    """Write ``codebook`` to one .safetensors file, whole or not at all."""
    header = {
        "format": CENTRED_FORMAT if codebook.centres_slides else FORMAT,
        "encoder_name": codebook.encoder_name,
        "encoder_fingerprint": codebook.encoder_fingerprint,
        "sizes": list(codebook.sizes),
        "names": list(codebook.names),
        "colors": [list(color) for color in codebook.colors],
        "record": codebook.record,
    }
    arrays = {
        name: np.ascontiguousarray(getattr(codebook, name), np.float64)
        for name in ("centers", "mean", "std")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(save(arrays, metadata={"ccrl_wsi": json.dumps(header, sort_keys=True)}))
    temporary.replace(path)


def load_codebook(path: Path) -> Codebook:
    """Read what :func:`save_codebook` wrote.

    ``path`` is the file, or the folder of a run, or the file without its ending.

    Raises
    ------
    ClusterError
        If the file is missing, damaged or something else.
    """
    path = _file_of(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["ccrl_wsi"])
            arrays = {name: file.get_tensor(name) for name in ("centers", "mean", "std")}
    except FileNotFoundError:
        raise ClusterError(
            f"No codebook at {path}. A finished run has one in its output."
        ) from None
    except (SafetensorError, KeyError, ValueError, OSError):
        raise ClusterError(
            f"{path} is not a ccrl-wsi codebook, or it is damaged. Give the codebook.safetensors "
            "of a finished run."
        ) from None
    if header.get("format") not in (FORMAT, CENTRED_FORMAT):
        raise ClusterError(
            f"{path} has format {header.get('format')!r}; this version reads {FORMAT!r} and "
            f"{CENTRED_FORMAT!r}."
        )
    return Codebook(
        **arrays,
        encoder_name=header["encoder_name"],
        encoder_fingerprint=header["encoder_fingerprint"],
        sizes=tuple(header["sizes"]),
        record=header["record"],
        centres_slides=header["format"] == CENTRED_FORMAT,
    )


def _file_of(path: Path) -> Path:
    if path.is_dir():
        return path / FILE_NAME
    ending = Path(FILE_NAME).suffix
    return path if path.suffix == ending or path.exists() else path.with_name(path.name + ending)
