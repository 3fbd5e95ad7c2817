"""The format comes from ``format=``, then from Accept, then it is PNG."""

from __future__ import annotations

import pytest

from service.formats import ENCODERS, FORMAT_OF_MEDIA, UnknownFormat, negotiate


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "png"),
        ("image/tiff", "tiff"),
        ("IMAGE/TIFF; q=1.0", "tiff"),
        ("image/tiff, */*", "tiff"),
        ("application/json", "rle"),
        ("application/*", "rle"),
        ("application/geo+json;charset=utf-8", "geojson"),
        ("application/zip", "rois"),
        ("text/csv", "csv"),
        ("application/x-npy", "npy"),
        ("image/png;q=0.2, application/json;q=0.9", "rle"),
        ("image/png;q=0, */*", "tiff"),
        ("nonsense, image/tiff", "tiff"),
    ],
)
def test_accept_is_ranked_by_quality_then_by_how_specific_it_is(accept: str | None, chosen: str) -> None:
    assert negotiate(accept, None) == chosen


@pytest.mark.parametrize("name", ["png", "rle", "coco", "tiff", "geojson", "rois", "csv", "npy"])
def test_an_explicit_format_beats_accept(name: str) -> None:
    assert negotiate("image/png", name) == name


@pytest.mark.parametrize("accept", ["text/html", "image/png;q=0", "*/*;q=0", "image/tiff;q=nan"])
def test_nothing_acceptable_is_an_error_that_lists_what_there_is(accept: str) -> None:
    with pytest.raises(UnknownFormat, match="image/tiff"):
        negotiate(accept, None)


def test_an_unknown_format_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(UnknownFormat, match="'bmp' does not exist; ask for one of coco, csv, geojson, npy, png"):
        negotiate(None, "bmp")


@pytest.mark.parametrize(("media", "name"), FORMAT_OF_MEDIA.items())
def test_the_media_type_that_is_asked_for_is_the_one_that_is_sent(media: str, name: str) -> None:
    assert ENCODERS[name].media_type == media
