"""The critic of the GAN of Hu et al., IEEE J. Biomed. Health Inform. 23 (2019) 1316, as encoder.

"Unsupervised learning for cell-level visual representation in histopathology images with GANs":
a residual critic without normalisation, and a layer on it that tells which category a drawn cell
was asked to be. Layers are those of the authors' code as our notes describe it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """Two 3 x 3 convolutions added to the input; ``halves``: then 2 x 2 means.

    ``is_first``: on pixels, which are not put through a ReLU.
    """

    def __init__(self, n_in: int, n_out: int, *, halves: bool, is_first: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.shortcut = nn.Conv2d(n_in, n_out, 1) if halves else None
        self._halves, self._is_first = halves, is_first

    def forward(self, x: Tensor) -> Tensor:
        """(b, n_in, h, w) to (b, n_out, h, w), or half as high and wide."""
        active = x if self._is_first else functional.relu(x)
        out: Tensor = self.conv2(functional.relu(self.conv1(active)))
        kept = x
        if self._halves:
            out, kept = functional.avg_pool2d(out, 2), functional.avg_pool2d(x, 2)
        # One by one, it does not matter whether means are taken before or after: before is quicker.
        return out + (kept if self.shortcut is None else self.shortcut(kept))


class InfoganCritic(nn.Module):
    """(b, n_channels, h, w) float images of -1..1 to (b, width) embeddings.

    Parameters
    ----------
    width
        Channels everywhere, and the length of an embedding; the original's is 128.
    n_codes
        Categories.
    """

    def __init__(self, n_channels: int = 3, width: int = 128, n_codes: int = 4) -> None:
        super().__init__()
        self.n_dimensions = width
        self.trunk = nn.Sequential(
            _Block(n_channels, width, halves=True, is_first=True),
            _Block(width, width, halves=True),
            _Block(width, width, halves=False),
            _Block(width, width, halves=False),
            nn.ReLU(),
        )
        self.code = nn.Linear(width, n_codes)

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the pixels of the last block."""
        mean: Tensor = self.trunk(x).mean(dim=(2, 3))
        return mean

    def own_clusters(self, vectors: Tensor) -> Tensor:
        """Scores (n, k) of the categories for ``vectors`` (n, width): Q before its softmax."""
        scores: Tensor = self.code(vectors)
        return scores
