"""Weighted cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch

from training.datasets import IGNORE
from training.losses import weighted_cross_entropy


def test_it_is_the_weighted_mean_of_minus_log_softmax() -> None:
    logits = torch.tensor([[[[0.0, 2.0]], [[1.0, 0.0]]]])
    targets, weights = torch.tensor([[[1, 0]]]), torch.tensor([[[1.0, 3.0]]])
    first = math.log(1 + math.exp(-1.0))
    second = math.log(1 + math.exp(-2.0))
    assert weighted_cross_entropy(logits, targets, weights).item() == pytest.approx((first + 3 * second) / 2)


def test_a_hopeless_pixel_costs_its_logit_and_not_infinity() -> None:
    logits = torch.tensor([[[[1000.0]], [[0.0]]]], requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.ones(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(1000.0)
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [1.0, -1.0]


def test_unannotated_pixels_change_neither_loss_nor_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.zeros(1, 4, 4, dtype=torch.int64)
    targets[0, 2:] = IGNORE
    loss = weighted_cross_entropy(logits, targets, torch.ones(1, 4, 4))
    loss.backward()  # type: ignore[no-untyped-call]
    known = weighted_cross_entropy(logits[:, :, :2], targets[:, :2], torch.ones(1, 2, 4))
    assert loss.item() == pytest.approx(known.item())
    assert logits.grad is not None
    assert not logits.grad[:, :, 2:].any()


def test_a_tile_without_annotation_costs_nothing() -> None:
    targets = torch.full((1, 2, 2), IGNORE)
    assert weighted_cross_entropy(torch.zeros(1, 2, 2, 2), targets, torch.ones(1, 2, 2)).item() == 0


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(1, 2, 64, 64, dtype=torch.bfloat16)
    targets = torch.zeros(1, 64, 64, dtype=torch.int64)
    loss = weighted_cross_entropy(logits, targets, torch.ones(1, 64, 64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
