"""Batch normalisation over the tiles of all processes of a run, as one process would do it with all of them."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class JointBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the mean and variance of all processes' batches, of one shape: (b, c, y, x), on the CPU.

    :class:`torch.nn.SyncBatchNorm` does so on GPUs, and nowhere else. Parameters and running statistics are those of
    the module that it takes the place of. In evaluation mode it is that module.
    """

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (b, c, y, x), in the same type; statistics are taken in float32."""
        if not self.training:
            return super().forward(features)
        whole = features.float()
        mean = _mean_of_all(whole.mean(dim=(0, 2, 3)))
        centred = whole - mean[:, None, None]
        variance = _mean_of_all(centred.square().mean(dim=(0, 2, 3)))
        self._follow(mean.detach(), variance.detach(), dist.get_world_size() * whole.numel() // whole.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, pixels: int) -> None:
        """Move the running statistics as :class:`torch.nn.BatchNorm2d` does; they are those of unbiased variances."""
        share = cast("float", self.momentum)
        for running, new in ((self.running_mean, mean), (self.running_var, variance * (pixels / max(1, pixels - 1)))):
            cast("Tensor", running).lerp_(new, share)
        cast("Tensor", self.num_batches_tracked).add_(1)


class _SumOfAll(torch.autograd.Function):
    """Sum over the processes; so is its gradient, for every process's loss depends on every process's share."""

    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:  # noqa: ANN401 - torch's, of no type
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401 - likewise
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _mean_of_all(value: Tensor) -> Tensor:
    return cast("Tensor", _SumOfAll.apply(value)) / dist.get_world_size()  # type: ignore[no-untyped-call]


def normalise_jointly(net: nn.Module) -> None:
    """Have every batch normalisation of a net look at the tiles of all processes; in place, on the net's device."""
    if next(net.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, JointBatchNorm(child))
