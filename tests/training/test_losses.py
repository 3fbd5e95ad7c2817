"""Weighted cross-entropy and soft Dice."""

from __future__ import annotations

import math

import pytest
import torch

from training.data.datasets import IGNORE
from training.learning.losses import soft_dice_loss, weighted_cross_entropy


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


def soft_dice_logits() -> torch.Tensor:
    """Two pixels, classes 0 and 1, with p(1) = 1/2 and 3/4."""
    return torch.tensor([[[[0.0, 0.0]], [[0.0, math.log(3.0)]]]])


def test_soft_dice_is_one_minus_the_mean_coefficient_of_the_classes() -> None:
    # class 0 at the first pixel: 2 * 1/2 / (1/4 + 1/16 + 1); class 1 at the second: 2 * 3/4 / (1/4 + 9/16 + 1)
    expected = 1 - ((1 / (21 / 16)) + (3 / 2) / (29 / 16)) / 2
    assert soft_dice_loss(soft_dice_logits(), torch.tensor([[[0, 1]]])).item() == pytest.approx(expected)


def test_a_class_that_does_not_occur_has_no_coefficient() -> None:
    # class 1 at both pixels: 2 * (1/2 + 3/4) / (1/4 + 9/16 + 2)
    expected = 1 - (5 / 2) / (45 / 16)
    assert soft_dice_loss(soft_dice_logits(), torch.tensor([[[1, 1]]])).item() == pytest.approx(expected)


def test_soft_dice_is_the_mean_over_tiles() -> None:
    logits, targets = soft_dice_logits(), torch.tensor([[[0, 1]]])
    both = soft_dice_loss(torch.cat([logits, logits]), torch.cat([targets, torch.ones_like(targets)]))
    each = [soft_dice_loss(logits, tile).item() for tile in (targets, torch.ones_like(targets))]
    assert both.item() == pytest.approx(sum(each) / 2)


def test_a_perfect_answer_has_no_dice_loss_and_the_opposite_has_all() -> None:
    targets = torch.tensor([[[0, 1, 1]]])
    logits = 200.0 * torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]])
    assert soft_dice_loss(logits, targets).item() == pytest.approx(0)
    assert soft_dice_loss(-logits, targets).item() == pytest.approx(1)


def test_unannotated_pixels_change_neither_dice_nor_its_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.arange(32).reshape(2, 4, 4) % 3
    targets[:, 2:] = IGNORE
    loss = soft_dice_loss(logits, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(soft_dice_loss(logits[:, :, :2], targets[:, :2]).item())
    assert logits.grad is not None
    assert logits.grad[:, :, :2].any()
    assert not logits.grad[:, :, 2:].any()


def test_a_tile_without_annotation_has_no_dice_loss() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = soft_dice_loss(logits, torch.full((1, 2, 2), IGNORE))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_gradient_of_dice_is_that_of_its_finite_differences() -> None:
    logits = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    targets = torch.arange(18).reshape(2, 3, 3) % 3
    targets[0, 0, 0] = IGNORE
    soft_dice_loss(logits, targets).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    for place in [(0, 0, 0, 1), (1, 2, 2, 2), (0, 1, 1, 0)]:
        step = torch.zeros_like(logits)
        step[place] = 0.01
        with torch.no_grad():
            slope = (soft_dice_loss(logits + step, targets) - soft_dice_loss(logits - step, targets)) / 0.02
        assert logits.grad[place].item() == pytest.approx(slope.item(), abs=2e-5)
