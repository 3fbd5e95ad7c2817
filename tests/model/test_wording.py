"""Counts in words: one of a thing is no plural."""

from __future__ import annotations

import pytest

from model.wording import counted


@pytest.mark.parametrize(
    ("number", "form", "said"),
    [
        (0, "", "0 images"),
        (1, "", "1 image"),
        (2, "", "2 images"),
        (31_030_658, "", "31030658 images"),
        (1.0, "g", "1 image"),
        (0.996, ".2g", "1 image"),
        (1.0, ".1f", "1.0 images"),
    ],
)
def test_a_number_has_the_noun_that_it_is_read_with(number: float, form: str, said: str) -> None:
    assert counted(number, "image", form) == said
