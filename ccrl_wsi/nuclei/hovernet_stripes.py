"""HoVer-Net's layers in the order of TIAToolbox's network, with a third of the memory on CPU cores.

What fills memory are maps of 256 channels at full resolution: their sums, normalised copies, padded
copies. Each is needed only around the pixels a layer is at. So layers are done in stripes of rows
where they can be: what they see is cut (or doubled and added) for one stripe at a time, and their
sums are added to maps that are there already. The layers and their weights are TIAToolbox's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIPE_PX = 32768
"""Pixels of a stripe: 32 MB of 256 channels. Smaller ones see more rows twice."""

_CROPPED_PX = {"original": (72, 184), "fast": (36, 92)}
"""What the maps of half and of full size lose in all before decoders see them."""


class InStripes(nn.Module):
    """TIAToolbox's HoVer-Net ``network``, in evaluation mode, to be asked without gradients.

    On CPU cores in stripes. On a GPU, and compiled, each layer sees the whole image: there launches
    cost more than memory, and a compiler fuses what stripes would.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by the names of the decoders, of ``images`` (n, 3, h, w) in 0..255."""
        layers = self.network
        full = _residual(layers.d0, layers.conv0(images / 255.0))
        half = _residual(layers.d1, full)
        quarter = _residual(layers.d2, half)
        eighth = layers.conv_bot(_residual(layers.d3, quarter))
        of_half, of_full = _CROPPED_PX[layers.mode]
        skipped = quarter, _inner(half, of_half), _inner(full, of_full)
        return {name: _decoded(d, eighth, skipped) for name, d in layers.decoder.items()}


def _residual(block: Any, images: Tensor) -> Tensor:
    """A block of units, each of which adds to what the ones before it left."""
    total: Tensor = block.shortcut(images)
    for number, unit in enumerate(block.units):
        _add_unit(unit, total if number else images, total)
    return _pointwise(block.blk_bna, total, onto=total)


def _add_unit(unit: nn.Sequential, images: Tensor, total: Tensor) -> None:
    """Add to ``total`` what ``unit`` makes of ``images``, which may be the same."""
    if _is_whole(images):
        total += unit(images)
        return
    cut = [name for name, _ in unit.named_children()].index("conv2/pad")
    layers = list(unit)
    narrow = _pointwise(nn.Sequential(*layers[:cut]), images)
    reach, wide = _Reach.of(layers[cut], narrow.shape[2]), nn.Sequential(*layers[cut + 1 :])
    for rows in _stripes(total.shape[2:]):
        total[:, :, rows] += wide(reach.cut(rows, lambda seen: narrow[:, :, seen]))


def _decoded(decoder: Any, deepest: Tensor, skipped: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What one decoder says."""
    images = deepest
    for block, skip in ((decoder.u3, skipped[0]), (decoder.u2, skipped[1])):
        images = _dense(block, _joined(images, skip, nn.Sequential(block.conva)))
    return _joined(images, skipped[2], nn.Sequential(*decoder.u1, *decoder.u0))


def _joined(small: Tensor, skip: Tensor, layers: nn.Sequential) -> Tensor:
    """``layers`` of the sum of ``skip`` and ``small``, doubled in size.

    They begin with a convolution, padded or not, and go on pixel by pixel.
    """
    if _is_whole(skip):
        return _called(layers, _doubled(small).add_(skip))
    reach = _Reach.of(layers[0], skip.shape[2])
    convolution = layers[1:] if reach.is_padded else layers

    def summed(rows: slice) -> Tensor:
        first = rows.start // 2
        doubled = _doubled(small[:, :, first : -(-rows.stop // 2)])
        begin = rows.start - 2 * first
        return doubled[:, :, begin : begin + rows.stop - rows.start].add_(skip[:, :, rows])

    return _put_together(
        lambda rows: convolution(reach.cut(rows, summed)), reach.size_out(skip.shape[2:])
    )


def _dense(block: Any, images: Tensor) -> Tensor:
    """The units of a decoder's ``block``, each of which sees all maps before it, and what follows.

    Each gives two rows and columns less than it sees, or four. All write into the same maps, which
    is why nothing has to be put together anew.
    """
    units, last = block.dense.units, nn.Sequential(*block.dense.blk_bna, block.convf)
    if _is_whole(images):
        return _called(block.convf, block.dense(images))
    n, n_maps, height, width = images.shape
    in_all = n_maps + sum(unit[-1].out_channels for unit in units)
    whole = images.new_empty((n, height, width, in_all)).permute(0, 3, 1, 2)
    whole[:, :n_maps] = images
    del images
    lost = 0
    for unit in units:
        new = unit[-1](_pointwise(unit[:-1], _inner(whole[:, :n_maps], lost)))
        lost = height - new.shape[2]
        _inner(whole[:, n_maps : n_maps + new.shape[1]], lost)[...] = new
        n_maps += new.shape[1]
    return _pointwise(last, _inner(whole, lost))


def _pointwise(layers: nn.Sequential, images: Tensor, onto: Tensor | None = None) -> Tensor:
    """``layers`` that look at single pixels, the first of which leaves what it sees alone.

    On CPU cores the result is put ``onto`` a map, which may be what they see.
    """
    if _is_whole(images):
        return _called(layers, images)

    def part(rows: slice) -> Tensor:
        # Some of all maps, or a part of their width, must be laid side by side first.
        return _called(layers, images[:, :, rows].contiguous(memory_format=torch.channels_last))

    return _put_together(part, images.shape[2:], onto)


def _put_together(
    part_of: Callable[[slice], Tensor], size: Sequence[int], onto: Tensor | None = None
) -> Tensor:
    """A map of ``size`` (h, w), from its stripes."""
    for rows in _stripes(size):
        part = part_of(rows)
        if onto is None:
            onto = torch.empty(
                (*part.shape[:2], *size), dtype=part.dtype, memory_format=torch.channels_last
            )
        onto[:, :, rows] = part
    assert onto is not None
    return onto


@dataclass(frozen=True, slots=True)
class _Reach:
    """What a convolution sees of an image of ``height`` rows.

    Parameters
    ----------
    kernel, stride
        Of the convolution, in pixels.
    before, behind
        Zeros around the image, in both directions.
    """

    kernel: int
    stride: int
    before: int
    behind: int
    height: int

    @classmethod
    def of(cls, layer: Any, height: int) -> _Reach:
        """Of a convolution, or of one that TIAToolbox's padding ``layer`` comes before."""
        if isinstance(layer, nn.Conv2d):
            return cls(layer.kernel_size[0], layer.stride[0], 0, 0, height)
        zeros = max(layer.ksize - (height % layer.stride or layer.stride), 0)
        return cls(layer.ksize, layer.stride, zeros // 2, zeros - zeros // 2, height)

    @property
    def is_padded(self) -> bool:
        """Whether there are zeros around the image."""
        return self.behind > 0

    def size_out(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of what comes out of an image of ``size``."""
        lost = self.kernel - self.before - self.behind
        height, width = ((n - lost) // self.stride + 1 for n in size)
        return height, width

    def cut(self, rows: slice, image_of: Callable[[slice], Tensor]) -> Tensor:
        """What it sees for ``rows`` of its output, from the rows that ``image_of`` gives."""
        first = rows.start * self.stride - self.before
        last = (rows.stop - 1) * self.stride - self.before + self.kernel
        image = image_of(slice(max(first, 0), min(last, self.height)))
        if not self.is_padded:
            return image
        above, below = max(-first, 0), max(last - self.height, 0)
        return functional.pad(image, (self.before, self.behind, above, below))


def _called(layers: nn.Module, images: Tensor) -> Tensor:
    maps: Tensor = layers(images)
    return maps


def _is_whole(images: Tensor) -> bool:
    return images.device.type != "cpu" or torch.compiler.is_compiling()


def _stripes(size: Sequence[int]) -> Iterator[slice]:
    """The rows of a map of ``size`` (h, w), some at a time."""
    height, width = size
    step = max(1, STRIPE_PX // width)
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))


def _doubled(images: Tensor) -> Tensor:
    return functional.interpolate(images, scale_factor=2, mode="nearest")


def _inner(images: Tensor, lost: int) -> Tensor:
    """``images`` without ``lost`` rows and columns in all, half of them on each side."""
    before, (height, width) = lost // 2, images.shape[2:]
    inside = slice(before, height - lost + before), slice(before, width - lost + before)
    return images[:, :, *inside]
