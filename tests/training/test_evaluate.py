"""Figures over images, from a net and from its package."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.labels import LabelRule
from training.checkpoint import build_net
from training.datasets import AnnotatedImage
from training.evaluate import Evaluation, evaluate_images, figures
from training.prediction import net_predictor
from training.recipe import Recipe


@pytest.fixture
def image() -> AnnotatedImage:
    labels = np.zeros((10, 12), dtype=np.int32)
    labels[1:5, 1:5], labels[6:9, 2:11] = 1, 2
    return AnnotatedImage("two", np.random.default_rng(0).integers(0, 255, (10, 12, 1), dtype=np.uint8), labels)


def certain(foreground_yx: np.ndarray) -> np.ndarray:
    return np.stack([1 - foreground_yx, foreground_yx]).astype(np.float32)


def test_a_perfect_answer_scores_one(image: AnnotatedImage) -> None:
    row = figures(certain(image.labels_yx > 0), image, LabelRule(), instances=True)
    assert (row.iou, row.dice, row.objects, row.found) == (1, 1, 2, 2)
    assert row.ap == dict.fromkeys(("0.5", "0.6", "0.7", "0.8", "0.9"), 1.0)


def test_a_missed_object_costs_half_of_the_two(image: AnnotatedImage) -> None:
    row = figures(certain(image.labels_yx == 1), image, LabelRule(), instances=True)
    assert row.iou == pytest.approx(16 / 43)
    assert row.ap is not None
    assert row.ap["0.5"] == 0.5


def test_semantic_masks_have_no_object_figures(image: AnnotatedImage) -> None:
    row = figures(certain(image.labels_yx > 0), image, LabelRule(), instances=False)
    evaluation = Evaluation((row,))
    assert evaluation.means() == {"iou": 1.0, "dice": 1.0, "pooled_iou": 1.0}
    assert evaluation.score() == 1.0
    assert " - " in evaluation.as_table()


def test_pooled_figures_weigh_images_by_their_foreground(image: AnnotatedImage) -> None:
    empty = AnnotatedImage("empty", image.image_yxc, np.zeros_like(image.labels_yx))
    rows = [
        figures(certain(seen), of, LabelRule(), instances=True)
        for of, seen in ((image, image.labels_yx == 1), (empty, np.zeros((10, 12))))
    ]
    means = Evaluation(tuple(rows)).means()
    assert means["iou"] == pytest.approx((16 / 43 + 1) / 2)
    assert means["pooled_iou"] == pytest.approx(16 / 43)


def test_means_are_over_images_not_pixels(image: AnnotatedImage) -> None:
    good = figures(certain(image.labels_yx > 0), image, LabelRule(), instances=True)
    bad = figures(certain(image.labels_yx > 9), image, LabelRule(), instances=True)
    evaluation = Evaluation((good, bad))
    assert evaluation.means()["iou"] == 0.5
    assert evaluation.means()["pooled_iou"] == pytest.approx(43 / 86)
    assert evaluation.score() == 0.5
    assert json.loads(json.dumps(evaluation.as_json()))["images"] == 2


def test_whole_images_are_scored_as_one_row_each(image: AnnotatedImage, tiny_recipe: Recipe) -> None:
    predictor = net_predictor(build_net(tiny_recipe).eval(), tiny_recipe)
    assert predictor.probabilities(image.image_yxc).shape == (2, 10, 12)
    evaluation = evaluate_images([image, image], predictor, instances=True)
    assert [row.stem for row in evaluation.rows] == ["two", "two"]
    assert evaluation.rows[0] == evaluation.rows[1]
