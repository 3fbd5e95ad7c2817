"""Figures over images, from a net and from its package."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import ndimage

from model.label_rule import LabelRule
from model.labels import class_mask
from training.data.datasets import IGNORE, AnnotatedImage
from training.evaluation.evaluate import Evaluation, ImageFigures, evaluate_images, figures, parted
from training.evaluation.prediction import net_predictor
from training.recipe import Recipe, recipe_from
from training.runs.checkpoint import build_net
from training.scoring import Scoring


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


CLASSES = ("background", "cell", "ring")
BY_CLASS = LabelRule(foreground=(1, 2), seeds=(1, 2))


def of_classes(image: AnnotatedImage, mask_yx: np.ndarray) -> ImageFigures:
    """Figures of a net that is certain of a class for each pixel."""
    probabilities = np.stack([mask_yx == number for number in range(3)]).astype(np.float32)
    return figures(probabilities, image, BY_CLASS, instances=False, classes=CLASSES)


def test_a_class_that_is_never_said_costs_the_score(image: AnnotatedImage) -> None:
    missing = Evaluation((of_classes(image, (image.labels_yx > 0).astype(int)),))
    wanted = {"iou": 8 / 43, "iou@cell": 16 / 43, "iou@ring": 0.0, "dice": 16 / 59, "pooled_iou": 8 / 43}
    assert missing.means() == pytest.approx(wanted)
    assert missing.score() == pytest.approx(8 / 43)
    assert Evaluation((of_classes(image, image.labels_yx),)).means() == dict.fromkeys(wanted, 1.0)
    line = missing.as_table().splitlines()[1].split()
    assert line[:5] == ["two", "0.1860", "0.2712", "0.3721", "0.0000"]
    assert missing.as_json()["rows"][0]["ring_either_px"] == 27


def test_the_scored_class_is_the_served_one(image: AnnotatedImage) -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet((1, 1, 1), size=image.labels_yx.shape).transpose(2, 0, 1).astype(np.float32)
    served = class_mask(probabilities, BY_CLASS)
    assert ((served > 0) != (probabilities[1:].sum(axis=0) > 0.5)).any()
    row = figures(probabilities, image, BY_CLASS, instances=False, classes=CLASSES)
    assert row == of_classes(image, served)


def test_images_without_a_class_say_nothing_of_it(image: AnnotatedImage) -> None:
    one = AnnotatedImage("one", image.image_yxc, np.where(image.labels_yx == 1, 1, 0))
    rows = (of_classes(image, np.minimum(image.labels_yx, 1)), of_classes(one, one.labels_yx))
    means = Evaluation(rows).means()
    assert means["iou@ring"] == 0, "it is in one image, and never found"
    assert means["iou@cell"] == pytest.approx((16 / 43 + 1) / 2)
    assert "iou@ring" not in Evaluation(rows[1:]).means()
    assert Evaluation(rows[1:]).score() == 1
    assert Evaluation(rows[1:]).as_json()["rows"][0]["iou@ring"] is None
    nothing = AnnotatedImage("none", image.image_yxc, np.zeros_like(image.labels_yx))
    assert Evaluation((of_classes(nothing, nothing.labels_yx),)).means() == {"iou": 1, "dice": 1, "pooled_iou": 1}


def test_classes_of_unannotated_pixels_count_on_neither_side(image: AnnotatedImage) -> None:
    partly = AnnotatedImage("partly", image.image_yxc, np.where(image.labels_yx == 2, IGNORE, image.labels_yx))
    assert Evaluation((of_classes(partly, image.labels_yx),)).means()["iou"] == 1


def test_a_net_of_classes_is_scored_by_its_own_names(image: AnnotatedImage) -> None:
    values = {
        "name": "three",
        "tile_output_px": 60,
        "data": {"kind": "semantic"},
        "net": {"base_width": 4, "depth": 2},
        "targets": {"scheme": "classes", "classes": CLASSES},
        "labels": {"foreground": [1, 2], "seeds": [1, 2]},
    }
    recipe = recipe_from(values, "three")
    predictor = net_predictor(build_net(recipe).eval(), recipe)
    served = class_mask(predictor.probabilities(image.image_yxc), recipe.labels)
    assert evaluate_images([image], predictor, instances=False).rows == (of_classes(image, served),)


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


@pytest.fixture
def both() -> Scoring:
    return Scoring(measures=("foreground", "ap", "seg", "isbi"))


def test_default_measures_follow_the_kind_of_masks(image: AnnotatedImage) -> None:
    of_objects, of_classes = (
        figures(certain(image.labels_yx > 0), image, LabelRule(), instances=kind) for kind in (True, False)
    )
    assert (of_objects.ap is not None, of_objects.jaccards, of_objects.isbi) == (True, None, None)
    assert (of_classes.ap, of_classes.jaccards, of_classes.isbi) == (None, None, None)


def test_seg_is_pooled_over_objects_and_not_over_images(image: AnnotatedImage, both: Scoring) -> None:
    one = AnnotatedImage("one", image.image_yxc, np.where(image.labels_yx == 1, 1, 0).astype(np.int32))
    rows = [
        figures(certain(seen), of, LabelRule(), instances=True, scoring=both)
        for of, seen in ((image, image.labels_yx > 9), (one, one.labels_yx == 1))
    ]
    evaluation = Evaluation(tuple(rows), both)
    assert evaluation.means()["seg"] == pytest.approx(1 / 3)
    assert [row["seg"] for row in evaluation.as_json()["rows"]] == [0.0, 1.0]


def test_errors_are_those_of_one_threshold_for_all_images(image: AnnotatedImage) -> None:
    scoring = Scoring(measures=("isbi",), choose_by="pixel_error")
    low, high = (np.where(image.labels_yx > 0, cell, ground) for cell, ground in ((0.25, 0.05), (0.95, 0.75)))
    rows = [figures(certain(seen), image, LabelRule(), instances=False, scoring=scoring) for seen in (low, high)]
    evaluation = Evaluation(tuple(rows), scoring)
    assert [row["pixel_error"] for row in evaluation.as_json()["rows"]] == [0, 0]
    # 43 cell pixels of 120 in each; above 0.1 all of the second image is found
    assert evaluation.means()["pixel_error"] == pytest.approx(1 - 2 * 86 / (43 + 120 + 86))
    assert evaluation.as_json()["thresholds"]["pixel_error"] == 0.1
    assert evaluation.score() == pytest.approx(1 - evaluation.means()["pixel_error"])
    assert "iou" not in evaluation.means()


def test_what_a_watershed_parts_is_apart_at_every_threshold_of_the_challenge() -> None:
    cell = np.full((30, 60), 0.2, dtype=np.float32)
    cell[5:25, 5:55] = 0.95
    cell[:, 28:32] -= 0.15  # 0.8 where the two cells touch, which no threshold below it parts
    truth = np.zeros((30, 60), dtype=np.int32)
    truth[5:25, 5:29] = truth[5:25, 31:55] = 1
    image = AnnotatedImage("two", cell[..., np.newaxis], truth)
    probabilities, scoring = np.stack([1 - cell, cell]), Scoring(measures=("isbi",), choose_by="rand_error")
    joined, apart = (LabelRule(method=method, seed_threshold=0.9) for method in ("components", "watershed"))
    np.testing.assert_array_equal(parted(probabilities, joined), cell)
    map_yx = parted(probabilities, apart)
    line = map_yx != cell
    assert (map_yx[line] == 0).all()
    assert line.sum(axis=1).tolist() == [1] * 30
    assert set(np.nonzero(line)[1]) <= {28, 29, 30, 31}
    one, two, shrunk = (math.comb(pixels, 2) for pixels in (960, 480, 460))
    for rule, found in ((joined, [one, one, 2 * shrunk]), (apart, [2 * two, 2 * two, 2 * shrunk])):
        counts = figures(probabilities, image, rule, instances=False, scoring=scoring).isbi
        assert counts is not None
        levels = [counts.levels[level] for level in (0, 5, 9)]  # 0, 0.5 and 0.9
        assert [level.found_pairs for level in levels] == found
        assert [level.both_pairs for level in levels] == [2 * two, 2 * two, 2 * shrunk]


def test_a_rule_parts_a_map_as_it_parts_objects() -> None:
    """Its typical seed is that of a connected foreground, not of the image."""
    cell = np.full((60, 120), 0.01, dtype=np.float32)
    cell[5:55, 5:55] = 0.97
    cell[20:32, 70:110] = 0.6  # two objects that touch
    cell[22:30, 74:80] = cell[22:30, 100:106] = 0.97
    rule = LabelRule(method="watershed", seed_threshold=0.9, min_seed_share=0.1, min_area_px=4000, min_score=0.9)
    parts, count = ndimage.label(parted(np.stack([1 - cell, cell]), rule) > 0.5)
    assert count == 3
    assert parts[26, 76] != parts[26, 103]


def test_reports_are_json_without_nan_where_nothing_is_annotated(image: AnnotatedImage, both: Scoring) -> None:
    nothing = AnnotatedImage("nothing", image.image_yxc, np.full_like(image.labels_yx, IGNORE))
    row = figures(certain(image.labels_yx > 0), nothing, LabelRule(), instances=True, scoring=both)
    evaluation = Evaluation((row,), both)
    report = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert report["rows"][0]["seg"] is None
    assert "seg" not in report["means"]
    assert evaluation.as_table().splitlines()[1].split()[-4:] == ["-", "0.000000", "0.0000", "0.0000"]


def test_a_figure_that_the_images_do_not_define_chooses_nothing(image: AnnotatedImage) -> None:
    scoring = Scoring(measures=("seg",), choose_by="seg")
    empty = AnnotatedImage("empty", image.image_yxc, np.zeros_like(image.labels_yx))
    rows = [
        figures(certain(of.labels_yx > 0), of, LabelRule(), instances=True, scoring=scoring) for of in (image, empty)
    ]
    assert Evaluation((rows[0],), scoring).score() == 1
    assert Evaluation((rows[1],), scoring).score() == 0


def test_the_table_has_a_column_for_each_measure(image: AnnotatedImage, both: Scoring) -> None:
    row = figures(certain(image.labels_yx > 0), image, LabelRule(), instances=True, scoring=both)
    header, line, means = Evaluation((row,), both).as_table().splitlines()
    assert header.split() == ["image", "IoU", "Dice", "objects", "found", "AP@0.5", "SEG", "warping", "rand", "pixel"]
    assert line.split() == ["two", *["1.0000"] * 2, "2", "2", *["1.0000"] * 2, "0.000000", "0.0000", "0.0000"]
    assert means.startswith("mean over 1 image: iou 1.0000")
