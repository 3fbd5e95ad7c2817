"""Channels of more equal size: the same answers, and less that is lost in integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from model.unet import UNet
from training.packaging.equalize import equalized
from training.packaging.quantize import quantise


def first_of(net: UNet) -> nn.Conv2d:
    return next(module for module in net.down.modules() if isinstance(module, nn.Conv2d))


def uneven_net(depth: int = 2, downscale: int = 1) -> UNet:
    """Random, with channels of sizes from 1 to 50, and one that is dead."""
    torch.manual_seed(0)
    net = UNet(base_width=8, depth=depth, dropout=0.0, downscale=downscale).eval()
    with torch.no_grad():
        for convolution in (module for module in net.modules() if isinstance(module, nn.Conv2d)):
            if convolution.kernel_size == (3, 3):
                convolution.weight *= torch.logspace(0, 1.7, len(convolution.weight)).reshape(-1, 1, 1, 1)
                convolution.weight /= 10
        first = first_of(net)
        first.weight[0] = 0
        assert first.bias is not None
        first.bias[0] = -1
    return net


def tiles(edge: int, count: int = 3) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, 1, edge, edge), dtype=np.float32) for _ in range(count)]


@pytest.mark.parametrize(("depth", "downscale", "edge"), [(1, 1, 60), (2, 1, 92), (2, 2, 184)])
def test_the_answers_stay(depth: int, downscale: int, edge: int) -> None:
    net = uneven_net(depth, downscale)
    given = tiles(edge)
    same = equalized(net, given)
    with torch.inference_mode():
        for tile in map(torch.from_numpy, given):
            expected = net(tile)
            torch.testing.assert_close(same(tile), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not torch.equal(first_of(same).weight, first_of(net).weight)


def test_channels_become_more_equal() -> None:
    net, given = uneven_net(), tiles(92)
    same = equalized(net, given)
    with torch.inference_mode():
        before, after = (
            torch.relu(first_of(measured)(torch.from_numpy(given[0]))).amax(dim=(0, 2, 3))[1:]
            for measured in (net, same)
        )
    assert float(after.max() / after.min()) < 0.3 * float(before.max() / before.min())


def exactly(weights: bytes) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Run a graph as it is written: kernels for CPUs without VNNI saturate where two products exceed 16 bits."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = session.run(None, {given.name: tile})[0]
        return answer

    return run


def test_integers_lose_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.packaging.quantize._runner", exactly)
    net, given = uneven_net(), tiles(92, 4)
    better = quantise(net, given).agreement.other_class
    monkeypatch.setattr("training.packaging.quantize.equalized", lambda net, _: net)
    assert better < 0.8 * quantise(net, given).agreement.other_class
