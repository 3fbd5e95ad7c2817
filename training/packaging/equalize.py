"""The same net with channels of more equal size, so that one range for all of a tensor's channels wastes fewer levels.

Behind a ReLU a channel may be divided by any positive number if the weights that read it are multiplied by it: the
answers stay. With integers they do not: an activation has 256 levels for its largest channel, and a channel a tenth as
large has 26 of them.

    M. Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction. ICCV 2019, section 4.1
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.unet import UNet

_Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d

_QUANTILE = 0.9995  # of a channel's values in a tile
_STRIDE_PX = 3  # neighbours say nearly the same
_LEAST = 0.03  # of the largest channel: smaller ones would make their readers' weights too unequal
_POWER = 0.5  # of a channel's size; 1 would leave all the inequality to the weights


class _Link(NamedTuple):
    """A convolution, whether a ReLU follows, and who reads it, each with the place of its first channel there."""

    writer: _Convolution
    relu: bool
    readers: Sequence[tuple[_Convolution, int]]


def equalized(net: UNet, tiles: Sequence[NDArray[np.float32]]) -> UNet:
    """Return a copy that gives the same answers with channels of more equal size.

    Parameters
    ----------
    net
        In evaluation mode, on the CPU; its batch normalisation folded.
    tiles
        Normalised tiles (1, c, y, x) of legal sizes, on which the channels are measured.

    """
    copied = copy.deepcopy(net).eval()
    links = _links(copied)
    sizes = _sizes(copied, links, tiles)
    with torch.no_grad():
        for writer, _, readers in links:
            largest = sizes[writer].max()
            if largest == 0:  # of a tensor that is 0 everywhere
                continue
            scale = sizes[writer].clamp(min=float(_LEAST * largest)) ** _POWER
            writer.weight /= _along(scale, 1 if isinstance(writer, nn.ConvTranspose2d) else 0)
            if writer.bias is not None:
                writer.bias /= scale
            for reader, first in readers:
                axis = 0 if isinstance(reader, nn.ConvTranspose2d) else 1
                reader.weight.narrow(axis, first, len(scale)).mul_(_along(scale, axis))
    return copied


def _along(scale: Tensor, axis: int) -> Tensor:
    """Shape a vector to be multiplied with a convolution's weights along one of their four axes."""
    return scale.reshape([-1 if place == axis else 1 for place in range(4)])


def _links(net: UNet) -> list[_Link]:
    """Every convolution but the first one and the head, and who reads it."""
    down = [_pair(block) for block in net.down]
    up = [_pair(cast("nn.Module", block.conv)) for block in net.up]
    ups = [cast("nn.ConvTranspose2d", block.up) for block in net.up]
    below: list[_Convolution] = [*ups, cast("_Convolution", net.head)]
    links = [_Link(first, relu=True, readers=[(second, 0)]) for first, second in [*down, *up]]
    for level in range(net.depth):
        _, second = down[level]
        links.append(_Link(second, relu=True, readers=[(down[level + 1][0], 0), (up[net.depth - 1 - level][0], 0)]))
    links.append(_Link(down[-1][1], relu=True, readers=[(below[0], 0)]))
    for place, (first, second) in enumerate(up):
        links.append(_Link(ups[place], relu=False, readers=[(first, ups[place].out_channels)]))
        links.append(_Link(second, relu=True, readers=[(below[place + 1], 0)]))
    return links


def _pair(block: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d]:
    first, second = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    return first, second


def _sizes(net: UNet, links: Sequence[_Link], tiles: Sequence[NDArray[np.float32]]) -> dict[_Convolution, Tensor]:
    """Size of each channel that the writers write: the largest quantile of any tile."""
    sizes: dict[_Convolution, Tensor] = {}

    def measure(writer: _Convolution, *, relu: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, written: Tensor) -> None:  # noqa: ANN401 - as torch calls it
            values = written.relu() if relu else written.abs()
            size = torch.quantile(values[0, :, ::_STRIDE_PX, ::_STRIDE_PX].flatten(1), _QUANTILE, dim=1)
            sizes[writer] = torch.maximum(sizes[writer], size) if writer in sizes else size

        return hook

    hooks = [link.writer.register_forward_hook(measure(link.writer, relu=link.relu)) for link in links]
    with torch.inference_mode():
        for tile in tiles:
            net(torch.from_numpy(tile))
    for hook in hooks:
        hook.remove()
    return {writer: size.clone() for writer, size in sizes.items()}
