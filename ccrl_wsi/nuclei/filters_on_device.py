"""The host's filters where a network's maps are: what comes down is ready for finding nuclei.

Rows and columns of a kernel are summed as shifted images. A convolution would be one call, but on
a GPU cuDNN computes it in TF32 unless somebody switched that off: ten bits of each value, while
slopes are small differences of them.

What is filtered comes down as float32: of 74,000 drawn nuclei none changes (another order of sums
moved one pixel between two). As float16, half of it, 0.6 % change, and 0.06 % by more than a
hundredth of their area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from ccrl_wsi.nuclei.hovernet_instances import KERNEL_PX
from ccrl_wsi.nuclei.tile_maps import mirrored

if TYPE_CHECKING:
    import torch


def rise_on_device(hv: torch.Tensor, gradient_range: tuple[float, float] | None) -> torch.Tensor:
    """The smaller of the two slopes of ``hv`` on the scale of the range: (h, w) float32.

    That of ``hovernet_instances`` but for rounding (3e-7), where ``hv`` (h, w, 2) is.
    """
    import torch

    rises = []
    for axis in (0, 1):
        slope = _slope(hv[..., axis].float(), axis)
        if gradient_range is None:
            # Stays there: a number that the host sends or asks for waits for the network.
            lowest, highest = slope.aminmax()
            gain = (1 / (highest - lowest)).masked_fill(highest <= lowest, 0.0)
            rises.append((slope - lowest).mul_(gain))
        else:
            low, high = gradient_range
            rises.append(slope.sub_(low).mul_(1 / (high - low)))
    return torch.minimum(*rises)


def blurred_on_device(image: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """What ``cv2.GaussianBlur`` gives for ``image`` (h, w) float32, but for rounding."""
    # OpenCV's own choice for float32: four sigma on each side.
    n = round(8 * sigma_px + 1) | 1
    weights = cv2.getGaussianKernel(n, sigma_px, cv2.CV_32F).ravel().tolist()
    return _correlated(_correlated(image, weights, 1), weights, 0)


def _slope(image: torch.Tensor, axis: int) -> torch.Tensor:
    """What ``cv2.Sobel`` gives for ``image`` (h, w): change per pixel along x (0) or y (1)."""
    kernels = cv2.getDerivKernels(1 - axis, axis, KERNEL_PX)
    for along, kernel in zip((1, 0), kernels, strict=True):
        # So that the response to a slope of 1 is 1. Powers of two, which cost no bit.
        is_derivative = along == 1 - axis
        scale = 2.0 ** (2 - KERNEL_PX if is_derivative else 1 - KERNEL_PX)
        image = _correlated(image, [scale * float(weight) for weight in kernel.ravel()], along)
    return image


def _correlated(image: torch.Tensor, weights: list[float], axis: int) -> torch.Tensor:
    """``image`` (h, w), mirrored at its edges, correlated with ``weights`` along ``axis``.

    Weights are symmetric or antisymmetric: pixels are summed two by two, so that what is flat has
    no slope at all.
    """
    n, reach = image.shape[axis], len(weights) // 2
    wide = image.index_select(axis, mirrored(range(-reach, n + reach), n, image.device))
    total = wide.narrow(axis, reach, n) * weights[reach]
    for away in range(1, reach + 1):
        before, after = (wide.narrow(axis, reach + step, n) for step in (-away, away))
        pair = after + before if weights[0] == weights[-1] else after - before
        total.add_(pair, alpha=weights[reach + away])
    return total
