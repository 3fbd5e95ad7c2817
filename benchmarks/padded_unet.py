"""The U-Net with padded convolutions, as most software has it: for rivals that cannot crop what a tile loses."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from model.unet import DoubleConv, UNet, UpBlock


class PaddedUNet(nn.Module):
    """The layers of a classic net, each 3x3 convolution padded with zeros, nothing cropped.

    (b, ``in_channels``, y, x) -> (b, ``classes``, y, x), float32, logits; y and x are multiples of 2**depth. Far from
    the border it gives what the classic net gives (test: ``test_padded_net_equals_the_classic_one_inside``).

    Parameters
    ----------
    net
        Whose layers it takes, and changes.

    """

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net.eval()
        for block in net.modules():
            if isinstance(block, DoubleConv):
                for layer in block.modules():
                    if isinstance(layer, nn.Conv2d):
                        layer.padding = (1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of normalised images."""
        skips: list[Tensor] = []
        features = self.net.stem(image)
        for level, block in enumerate(self.net.down):
            features = block(features)
            if level < self.net.depth:
                skips.append(features)
                features = self.net.pool(features)
        for block in self.net.up:
            step = cast("UpBlock", block)
            features = step.conv(torch.cat([skips.pop(), step.up(features)], dim=1))
        return cast("Tensor", self.net.head(features))
