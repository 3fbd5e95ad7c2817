"""The table of problems is whole: no error class without one, no slug with two meanings, none undocumented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model.errors import InvalidPackage
from service.errors import ERROR_TREES, INTERNAL, KINDS, PROBLEMS, problem_kind

API_DOCUMENT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def with_subclasses(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(found for child in root.__subclasses__() for found in with_subclasses(child))]


EVERY_ERROR = [error for root in ERROR_TREES for error in with_subclasses(root)]


@pytest.mark.parametrize("error", EVERY_ERROR)
def test_every_error_of_every_layer_is_mapped(error: type[Exception]) -> None:
    assert error in PROBLEMS


def test_the_table_maps_nothing_but_errors_of_these_trees() -> None:
    assert set(PROBLEMS) == set(EVERY_ERROR)


def test_a_slug_means_one_status() -> None:
    statuses = {(kind.slug, kind.status) for kind in KINDS}
    assert len(statuses) == len({kind.slug for kind in KINDS})


def test_an_error_that_nobody_foresaw_is_internal() -> None:
    assert problem_kind(ZeroDivisionError()) is INTERNAL
    assert problem_kind(InvalidPackage()) is INTERNAL


def test_the_documentation_lists_every_problem_as_the_service_explains_it() -> None:
    documented = set(re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \| (.+?) \| (.+) \|$", API_DOCUMENT, re.MULTILINE))
    assert documented == {(str(kind.status), kind.slug, kind.title, kind.remedy) for kind in KINDS}
