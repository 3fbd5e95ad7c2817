"""Packages that bring no label rule: what the names of their channels tell is taken, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.channels import in_words, kind_of, rule_from_names
from model.errors import InvalidPackage, UnsupportedPackage
from model.label_rule import LabelRule
from model.labels import class_mask, instance_labels
from model.package import ZOO, read_package
from tests.foreign import BOUNDARY, touching_pair, write_foreign_package


def apart(channels: int) -> NDArray[np.float32]:
    """A test output with a probability for each channel."""
    return np.random.default_rng(0).random((1, channels, 8, 9), dtype=np.float32)


def shared(channels: int) -> NDArray[np.float32]:
    """A test output with one probability that the channels share."""
    output = apart(channels)
    output /= output.sum(axis=1, keepdims=True)
    return output


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("background", "background"),
        ("BG", "background"),
        ("foreground", "object"),
        ("fg0", "object"),
        ("cellNuclei", "object"),
        ("cell_boundary", "boundary"),
        ("nuclei-edges", "boundary"),
        ("Membrane", "boundary"),
        ("channel0", None),
        ("boundary distance", None),
        ("non-background", None),
        ("bgx", None),
    ],
)
def test_names_tell_what_a_channel_holds(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("classes", "foreground", "seeds", "boundary"),
    [
        (["foreground", "boundary"], (0,), (0,), (1,)),
        (["membrane", "cells"], (1,), (1,), (0,)),
        (["background", "nucleus", "border"], (1,), (1,), (2,)),
        (["background", "nucleus"], (1,), (1,), ()),
        (["mask"], (0,), (0,), ()),
        (["anything"], (0,), (0,), ()),
    ],
)
def test_of_channels_with_a_probability_each_the_named_one_is_the_object(
    classes: list[str], foreground: tuple[int, ...], seeds: tuple[int, ...], boundary: tuple[int, ...]
) -> None:
    method = "watershed" if boundary else "components"
    expected = {"method": method, "foreground": foreground, "seeds": seeds, "boundary": boundary}
    assert rule_from_names(classes, apart(len(classes))) == LabelRule.model_validate(expected)


@pytest.mark.parametrize(
    ("classes", "method", "foreground", "seeds"),
    [
        (["background", "nucleus"], "components", (1,), (1,)),
        (["background", "glioblastoma"], "components", (1,), (1,)),
        (["cell", "rest"], "components", (0,), (0,)),
        (["background", "cell", "debris"], "components", (1, 2), (1, 2)),
        (["background", "interior", "boundary"], "watershed", (1, 2), (1,)),
        (["interior", "boundary", "background"], "watershed", (0, 1), (0,)),
    ],
)
def test_of_channels_that_share_a_probability_one_is_background(
    classes: list[str], method: str, foreground: tuple[int, ...], seeds: tuple[int, ...]
) -> None:
    expected = {"method": method, "foreground": foreground, "seeds": seeds}
    assert rule_from_names(classes, shared(len(classes))) == LabelRule.model_validate(expected)


@pytest.mark.parametrize("classes", [["channel0", "channel1"], ["nucleus", "cell"], ["foreground", "other"], ["bg"]])
def test_what_channels_with_a_probability_each_do_not_tell_is_refused(classes: list[str]) -> None:
    with pytest.raises(UnsupportedPackage, match=rf"{classes[0]}.*a probability each.*labels: {{method: watershed"):
        rule_from_names(classes, apart(len(classes)))


@pytest.mark.parametrize(
    "classes", [["channel0", "channel1"], ["cell", "boundary"], ["nucleus", "membrane", "cytoplasm"]]
)
def test_what_channels_that_share_a_probability_do_not_tell_is_refused(classes: list[str]) -> None:
    with pytest.raises(UnsupportedPackage, match="one probability that they share"):
        rule_from_names(classes, shared(len(classes)))


@pytest.mark.parametrize("name", ["boundary", "membrane", "distance", "flow x", "cell distance", "background"])
def test_a_single_channel_that_says_it_holds_no_objects_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedPackage, match=rf"1 output channels \({name}; a probability each\) do not tell"):
        rule_from_names([name], apart(1))


@pytest.mark.parametrize("value", [-0.5, 1.5, 255.0, np.nan])
def test_what_is_no_probability_is_refused(value: float) -> None:
    output = apart(1)
    output[0, 0, 2, 3] = value
    with pytest.raises(UnsupportedPackage, match=r"probabilities are from 0 to 1; add"):
        rule_from_names(["nucleus"], output)


def test_a_test_output_of_other_channels_is_invalid() -> None:
    with pytest.raises(InvalidPackage, match=r"shape \(1, 3, 8, 9\); \(1, 2, y, x\)"):
        rule_from_names(["foreground", "boundary"], apart(3))


def test_a_net_of_foreground_and_boundary_is_not_read_the_wrong_way_round(tmp_path: Path) -> None:
    spec = read_package(write_foreign_package(tmp_path)).spec
    package = read_package(tmp_path)
    (probabilities_cyx,) = package.golden_pair()[1]
    image_yx = touching_pair()
    assert spec.mask_classes == ("background", "object")
    np.testing.assert_array_equal(class_mask(probabilities_cyx, spec.label_rule), image_yx > 0)
    labels = instance_labels(probabilities_cyx, spec.label_rule)
    assert labels.max() == 2
    assert np.array_equal(labels > 0, image_yx > 0), "the boundary belongs to the objects"
    left, right = labels[6:26, 5:15], labels[6:26, 17:27]
    assert (np.unique(left).tolist(), np.unique(right).tolist()) == ([1], [2])
    # by the boundary they would be one ring with two holes
    wrong = instance_labels(probabilities_cyx, LabelRule(foreground=(1,)))
    assert np.array_equal(wrong > 0, image_yx == BOUNDARY)


def test_the_rule_that_is_taken_is_said_in_words(tmp_path: Path) -> None:
    assert read_package(write_foreign_package(tmp_path)).spec.label_rule_note == (
        "the package has no label rule; by the names of its channels objects grow from the connected areas where "
        "'foreground' - 'boundary' is above 0.5, over all where 'foreground' is above 0.5"
    )
    assert read_package(ZOO / "nuclei").spec.label_rule_note is None


def test_a_rule_of_the_package_is_taken_as_it_is(tmp_path: Path) -> None:
    labels = {"foreground": [0], "seeds": [0], "threshold": 0.75}
    spec = read_package(write_foreign_package(tmp_path, classes=("channel0", "channel1"), labels=labels)).spec
    assert spec.label_rule == LabelRule(foreground=(0,), seeds=(0,), threshold=0.75)
    assert spec.label_rule_note is None
    assert spec.mask_classes == ("background", "channel0")


def test_every_limit_of_a_rule_is_said() -> None:
    rule = LabelRule(
        method="watershed", foreground=(1, 2), min_seed_px=4, min_seed_share=0.1, min_area_px=9, min_score=0.6,
        fill_holes=True,
    )  # fmt: skip
    assert in_words(rule, ("background", "interior", "boundary")) == (
        "objects grow from the connected areas where 'interior' is above 0.5, over all where 'interior' + 'boundary' "
        "is above 0.5; seeds have at least 4 px; seeds have at least 0.1 of the typical one beside them; holes are "
        "filled; objects have at least 9 px; their mean probability is at least 0.6"
    )
    assert in_words(LabelRule(), ("background", "nucleus")) == (
        "objects are the connected areas where 'nucleus' is above 0.5"
    )
