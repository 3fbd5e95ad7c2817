"""Labels of an image that is looked at in parts: those of the whole image, whatever the parts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from model.flooding import flood
from model.label_rule import LabelRule
from model.labels import evidence_of, foreground_probability, instance_labels, label_evidence
from model.pixels import BAND_PX

sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
# few levels, so that many pixels are equal: the order of equal ones is where parts could differ from the whole
levels = st.sampled_from([0.0, 0.2, 0.45, 0.6, 0.75, 0.9, 1.0])
grounds = sizes.flatmap(lambda size: hnp.arrays(np.float32, size, elements=levels, fill=st.nothing()))
rules = st.builds(
    LabelRule,
    method=st.sampled_from(["components", "watershed"]),
    connectivity=st.sampled_from([1, 2]),
    fill_holes=st.booleans(),
    min_area_px=st.integers(0, 4),
    threshold=st.just(0.4),
    seed_threshold=st.just(0.8),
    min_seed_px=st.integers(0, 4),
    min_seed_share=st.sampled_from([0.0, 0.3, 0.7]),
    min_score=st.sampled_from([0.0, 0.7]),
)

RULE = LabelRule(threshold=0.5, min_area_px=1)


def with_background(foreground_yx: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([1 - foreground_yx, foreground_yx])


@given(foreground=grounds, rule=rules, band_px=st.integers(1, 200))
def test_labels_do_not_depend_on_bands(foreground: NDArray[np.float32], rule: LabelRule, band_px: int) -> None:
    evidence = evidence_of(with_background(foreground), rule)
    whole = label_evidence(evidence, rule)
    parts = label_evidence(evidence, rule, band_px=band_px)
    assert np.array_equal(parts.labels[:, :], whole.labels[:, :])
    assert np.array_equal(parts.scores, whole.scores)


@given(foreground=grounds, rule=rules)
def test_labels_are_those_of_scipy_and_skimage_on_the_whole_image(
    foreground: NDArray[np.float32], rule: LabelRule
) -> None:
    """Distinct probabilities, so that the watershed has one answer only."""
    order = np.random.default_rng(0).permutation(foreground.size).reshape(foreground.shape)
    distinct = (foreground * 0.9 + order.astype(np.float32) * np.float32(1e-4)).astype(np.float32)
    labels = instance_labels(with_background(distinct), rule)
    assert np.array_equal(labels, reference(distinct, rule))


def reference(foreground: NDArray[np.float32], rule: LabelRule) -> NDArray[Any]:
    """The rule in as few words as possible, on the whole image."""
    mask = foreground > np.float32(rule.threshold)
    structure = ndimage.generate_binary_structure(2, rule.connectivity)
    if rule.method == "components":
        labels = ndimage.label(mask, structure)[0]
    else:
        seeds = ndimage.label(mask & (foreground > np.float32(rule.seed_threshold)), structure)[0]
        areas = np.bincount(seeds.ravel())
        regions = ndimage.label(mask, structure)[0]
        for seed in range(1, len(areas)):
            beside = np.abs(seeds[(regions == regions[seeds == seed][0]) & (seeds != 0)])
            typical = np.sort(areas[beside])[(len(beside) - 1) // 2]  # of the seed that the median pixel lies in
            if areas[seed] < max(rule.min_seed_px, rule.min_seed_share * typical):
                seeds = np.where(seeds == seed, -seed, seeds)
        seeds = np.maximum(seeds, 0)
        labels = watershed(-foreground, seeds, mask=mask, connectivity=rule.connectivity)
    if rule.fill_holes:
        regions, count = ndimage.label(labels == 0)
        filled = labels.copy()
        for region in range(1, count + 1):
            hole = regions == region
            around = np.unique(labels[ndimage.binary_dilation(hole) & ~hole])
            border = np.concatenate([hole[0], hole[-1], hole[:, 0], hole[:, -1]])
            if len(around) == 1 and not border.any():
                filled[hole] = around[0]
        labels = filled
    areas = np.bincount(labels.ravel())
    kept = [
        label
        for label in range(1, len(areas))
        if areas[label] >= max(1, rule.min_area_px)
        and np.float32(foreground[labels == label].mean(dtype=np.float64)) >= rule.min_score
    ]
    numbered: NDArray[Any] = np.searchsorted(kept, labels) * np.isin(labels, kept) + np.isin(labels, kept)
    return numbered


@given(
    foreground=grounds,
    connectivity=st.sampled_from([1, 2]),
    window=st.integers(1, 12),
    margin=st.integers(1, 3),
    data=st.data(),
)
def test_flooding_by_windows_is_flooding_the_whole(
    foreground: NDArray[np.float32], connectivity: Literal[1, 2], window: int, margin: int, data: st.DataObject
) -> None:
    """Margins grow until they are wide enough, here up to the whole image; ties are everywhere."""
    dense = data.draw(st.booleans())
    foreground = np.maximum(foreground, np.float32(0.45)) if dense else foreground
    seeds = np.where(foreground > 0.8, 1 + np.arange(foreground.size).reshape(foreground.shape), 0).astype(np.int32)
    whole, parts = np.zeros_like(seeds), np.zeros_like(seeds)
    assert flood(foreground, seeds, 0.4, connectivity, whole) == 0
    margins = (margin, 2 * margin, 4 * margin, 24)
    assert flood(foreground, seeds, 0.4, connectivity, parts, window=window, margins=margins) == 0
    assert np.array_equal(parts, whole)


def test_what_the_widest_margin_does_not_settle_is_counted_and_still_labelled() -> None:
    """One seed at the end of a long bar without any other."""
    foreground = np.zeros((5, 60), dtype=np.float32)
    foreground[2] = 0.6
    foreground[2, 0] = 0.9
    seeds = (foreground > 0.8).astype(np.int32)
    labels = np.zeros_like(seeds)
    uncertain = flood(foreground, seeds, 0.5, 1, labels, window=10, margins=(2, 4))
    assert 50 <= uncertain < 60  # all windows but the first, and what the unknown flood reaches of that
    assert (labels[2, :10] == 1).all()
    assert flood(foreground, seeds, 0.5, 1, labels, window=10, margins=(2, 60)) == 0
    assert (labels[2] == 1).all()


def test_equal_seeds_come_in_reading_order() -> None:
    """Two seeds of probability 1 beside one free pixel: the upper left one gets it, in every window."""
    foreground = np.array([[1.0, 0.6, 1.0]], dtype=np.float32)
    rule = LabelRule(method="watershed", seed_threshold=0.8)
    for image in (foreground, foreground.T):
        assert instance_labels(with_background(image), rule).ravel().tolist() == [1, 1, 2]


def test_scores_are_the_mean_probability_of_each_object() -> None:
    foreground = np.random.default_rng(0).random((70, 90)).astype(np.float32)
    rule = LabelRule(threshold=0.6, fill_holes=True)
    objects = label_evidence(evidence_of(with_background(foreground), rule), rule)
    labels = objects.labels[:, :]
    expected = ndimage.mean(
        foreground_probability(with_background(foreground), rule), labels, range(1, labels.max() + 1)
    )
    np.testing.assert_allclose(objects.scores, expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_an_image_of_several_bands_has_the_labels_of_one(method: str) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(1).random((900, 1300)), 3)
    foreground = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    rule = LabelRule.model_validate({"method": method, "seed_threshold": 0.6, "fill_holes": True})
    evidence = evidence_of(with_background(foreground), rule)
    whole, parts = label_evidence(evidence, rule), label_evidence(evidence, rule, band_px=7 * 1300)
    assert whole.labels[:, :].max() > 100
    assert np.array_equal(whole.labels[:, :], parts.labels[:, :])


@given(
    foreground=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1])
    ),
    min_area=st.integers(0, 6),
)
def test_objects_know_their_areas_and_whether_the_edge_cuts_them(
    foreground: NDArray[np.float32], min_area: int
) -> None:
    objects = label_evidence(foreground, LabelRule(min_area_px=min_area, fill_holes=True))
    labels = np.asarray(objects.labels[:, :])
    assert objects.areas_px.tolist() == np.bincount(labels.ravel(), minlength=labels.max() + 1)[1:].tolist()
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert (np.flatnonzero(objects.cut) + 1).tolist() == np.unique(rim[rim > 0]).tolist()


def test_more_objects_than_a_band_has_pixels_are_each_measured() -> None:
    checks = (np.indices((1100, 2048)).sum(axis=0) % 2).astype(np.float32)
    told: list[int] = []
    objects = label_evidence(evidence_of(with_background(checks), RULE), RULE, tell=told.append)
    assert len(objects.scores) == 1100 * 2048 // 2 > BAND_PX
    assert (objects.scores == 1).all()
    assert np.array_equal(objects.labels[:, :][checks > 0], np.arange(1, 1100 * 2048 // 2 + 1))
    assert told[-1] == len(objects.scores)
    assert told == sorted(told)


def test_regions_are_told_beside_their_seeds() -> None:
    """Each takes room in the tables; here five regions hold a seed each, and five none."""
    foreground = np.zeros((1, 20), dtype=np.float32)
    foreground[0, ::4], foreground[0, 2::4] = 0.9, 0.6
    told: list[int] = []
    rule = LabelRule(method="watershed", seed_threshold=0.8, min_seed_share=0.1)
    objects = label_evidence(evidence_of(with_background(foreground), rule), rule, tell=told.append)
    assert len(objects.scores) == 5
    assert told[0] == 5
    assert told[-1] >= 5 + 10


def test_who_is_told_can_end_the_work() -> None:
    class TooManyError(Exception): ...

    def refuse(objects: int) -> None:
        if objects > 3:
            raise TooManyError(str(objects))

    few, many = np.eye(3, dtype=np.float32), np.eye(4, dtype=np.float32)
    assert len(label_evidence(evidence_of(with_background(few), RULE), RULE, tell=refuse).scores) == 3
    with pytest.raises(TooManyError, match="4"):
        label_evidence(evidence_of(with_background(many), RULE), RULE, tell=refuse)
