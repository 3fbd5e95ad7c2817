"""The U-Net of Ronneberger, Fischer and Brox, MICCAI 2015 (arXiv:1505.04597), figure 1, in torch."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class DoubleConv(nn.Sequential):
    """Two unpadded 3x3 convolutions, each followed by a ReLU: (b, c_in, y, x) -> (b, c_out, y - 4, x - 4)."""

    def __init__(self, in_channels: int, out_channels: int, *, batch_norm: bool = False) -> None:
        super().__init__(
            _convolution(in_channels, out_channels, batch_norm=batch_norm),
            nn.ReLU(inplace=True),
            _convolution(out_channels, out_channels, batch_norm=batch_norm),
            nn.ReLU(inplace=True),
        )

    def fold(self) -> None:
        """Turn each convolution and its batch normalisation into the one convolution that does the same."""
        for index in (0, 2):
            normalised = self[index]
            if isinstance(normalised, nn.Sequential):
                convolution, normalisation = normalised
                self[index] = fuse_conv_bn_eval(cast("nn.Conv2d", convolution), cast("nn.BatchNorm2d", normalisation))


class UpBlock(nn.Module):
    """Expansive step: 2x2 up-convolution that halves the channels, crop and concatenate, two convolutions."""

    def __init__(self, in_channels: int, crop: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.crop = crop
        self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.conv = DoubleConv(in_channels, in_channels // 2, batch_norm=batch_norm)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Join ``below`` (b, 2c, y, x) with the centre of ``skip`` (b, c, 2y + 2k, 2x + 2k): (b, c, 2y - 4, 2x - 4).

        k is ``crop``: the border pixels lost in every convolution make it necessary (section 2). It is a constant of
        the level, not read off the tensors, so that the exported graph has no shape arithmetic.
        """
        skip = skip[..., self.crop : -self.crop, self.crop : -self.crop]
        return cast("Tensor", self.conv(torch.cat([skip, self.up(below)], dim=1)))


class UNet(nn.Module):
    """Contracting and expansive path of figure 1; returns logits, not probabilities.

    (b, ``in_channels``, y, x) -> (b, ``classes``, y - s, x - s), float32, with s = 184 for depth 4 (572 -> 388).
    Legal sizes are those of :func:`model.tiling.valid_unet_geometry`; others raise RuntimeError at a concatenation.

    Parameters
    ----------
    in_channels, classes
        Channels of the image and of the output (the first class is background).
    base_width
        Feature channels of the first level, doubled at each pooling (64 in the paper: 31,030,658 parameters for one
        channel and two classes).
    depth
        Number of 2x2 max poolings (4 in the paper).
    dropout
        Probability of the drop-out at the end of the contracting path (section 3.1).
    downscale
        Not in the paper, 1 there: the net works on blocks of ``downscale`` x ``downscale`` pixels. A learned
        convolution (begun as space to depth, so that nothing is lost) turns them into channels, a learned
        up-convolution turns its features back into classes of single pixels. For large objects: a quarter of the
        computation for 2, and twice the context.
    batch_norm
        Not in the paper: normalise each convolution's output over the batch and its pixels while training (Ioffe and
        Szegedy 2015), which learns in fewer steps. :meth:`folded` gives the paper's net back for use.

    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        base_width: int = 64,
        depth: int = 4,
        dropout: float = 0.5,
        *,
        downscale: int = 1,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.base_width, self.depth = in_channels, classes, base_width, depth
        self.downscale, self.batch_norm = downscale, batch_norm
        widths = [base_width * 2**level for level in range(depth + 1)]
        planes = in_channels * downscale**2
        self.stem = nn.Identity() if downscale == 1 else nn.Conv2d(in_channels, planes, downscale, stride=downscale)
        self.down = nn.ModuleList(
            DoubleConv(c_in, c_out, batch_norm=batch_norm)
            for c_in, c_out in zip([planes, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()
        # every level below takes 4 px in each of its two blocks, doubled by the up-convolution: 4, 16, 40, 88
        crops = [4]
        while len(crops) < depth:
            crops.append(2 * crops[-1] + 8)
        self.up = nn.ModuleList(
            UpBlock(width, crop, batch_norm=batch_norm) for width, crop in zip(reversed(widths[1:]), crops, strict=True)
        )
        if downscale == 1:
            self.head: nn.Module = nn.Conv2d(base_width, classes, kernel_size=1)
        else:
            self.head = nn.ConvTranspose2d(base_width, classes, downscale, stride=downscale)
        self.apply(_he_initialise)
        if isinstance(self.stem, nn.Conv2d):
            with torch.no_grad():
                self.stem.weight.copy_(torch.eye(planes).reshape(planes, in_channels, downscale, downscale))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (b, classes, y - s, x - s) of normalised images (b, in_channels, y, x)."""
        skips: list[Tensor] = []
        features = self.stem(image)
        for level, block in enumerate(self.down):
            features = block(features)
            if level < self.depth:
                skips.append(features)
                features = self.pool(features)
        features = self.dropout(features)
        for block in self.up:
            features = block(features, skips.pop())
        return cast("Tensor", self.head(features))

    def folded(self) -> UNet:
        """Return the net in evaluation mode, without batch normalisation: a copy that gives the same answers."""
        plain = copy.deepcopy(self).eval()
        for module in plain.modules():
            if isinstance(module, DoubleConv):
                module.fold()
        plain.batch_norm = False
        return plain


def _convolution(in_channels: int, out_channels: int, *, batch_norm: bool) -> nn.Module:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels)) if batch_norm else convolution


def _he_initialise(module: nn.Module) -> None:
    """Gaussian weights of standard deviation sqrt(2 / N), N the incoming nodes of one neuron (section 3)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # a 2x2 up-convolution with stride 2 sees one input pixel per output pixel: N is its input channels
        incoming = module.in_channels * (9 if module.kernel_size == (3, 3) else 1)
        nn.init.normal_(module.weight, std=(2.0 / incoming) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
