"""Pictures: classes and numbers get the colours that the legends promise, and lines lie where they should."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from training.data.augmentation import Deformation
from training.data.datasets import IGNORE
from training.report.pictures import (
    CLASSES,
    FOUND,
    REFERENCE,
    class_colour,
    class_picture,
    data_uri,
    display_size,
    draw_cross,
    draw_ring,
    grey_picture,
    grey_range,
    grid_lines,
    heat_picture,
    outlines,
    paint,
    png_bytes,
    resize,
    resize_image,
    resize_labels,
)


@given(arrays(np.uint8, (5, 7, 3)))
def test_a_png_holds_every_pixel(picture: np.ndarray) -> None:
    with Image.open(io.BytesIO(png_bytes(picture))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), picture)


def test_a_png_of_more_colours_than_a_palette_holds_every_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png_bytes(picture))) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), picture)


def test_a_picture_of_few_colours_has_a_palette() -> None:
    grey = grey_picture(np.random.default_rng(0).normal(size=(64, 64, 1)), -2, 2)
    picture = paint(grey, np.indices((64, 64))[0] % 8 == 0, FOUND, 0.5)
    with Image.open(io.BytesIO(png_bytes(picture))) as image:
        assert image.mode == "P"


def test_a_link_holds_the_bytes() -> None:
    head, _, tail = data_uri(b"\x89PNG").partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(tail) == b"\x89PNG"


def test_grey_values_go_from_black_to_white() -> None:
    picture = grey_picture(np.array([[[10.0], [20.0], [30.0], [99.0], [-5.0]]]), 10, 30)
    assert picture[0, :, 0].tolist()[0::2] == [0, 255, 0]
    assert picture[0, 3, 0] == 255
    assert int(picture[0, 1, 0]) == pytest.approx(128, abs=3)


def test_three_channels_are_shown_in_colour_and_two_by_the_first() -> None:
    colours = grey_picture(np.array([[[0.0, 0.5, 1.0]]]), 0, 1)
    assert colours[0, 0, 0] < colours[0, 0, 1] < colours[0, 0, 2]
    assert grey_picture(np.array([[[1.0, 0.0]]]), 0, 1)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_an_image_of_one_value_can_be_shown(value: int) -> None:
    image = np.full((4, 4, 1), value, dtype=np.uint16)
    low, high = grey_range(image)
    assert high > low
    assert grey_picture(image, low, high).shape == (4, 4, 3)


def test_one_hot_pixel_does_not_darken_an_image() -> None:
    image = np.random.default_rng(0).integers(100, 200, (100, 100, 1)).astype(np.uint16)
    image[0, 0] = 65535
    assert grey_range(image)[1] < 201


def test_each_class_has_its_colour_and_what_nobody_annotated_is_hatched() -> None:
    targets = np.array([[0, 1, 2]] * 16, dtype=np.int64)
    targets[:, 2] = IGNORE
    picture = class_picture(targets)
    assert tuple(picture[0, 0].tolist()) == CLASSES[0]
    assert tuple(picture[0, 1].tolist()) == class_colour(1)
    hatch = np.unique(picture[:, 2], axis=0)
    assert len(hatch) == 2  # stripes
    assert (hatch == hatch[:, :1]).all()  # of grey


def test_only_background_is_background_coloured() -> None:
    assert [number for number in range(20) if class_colour(number) == CLASSES[0]] == [0]


def test_larger_numbers_are_brighter() -> None:
    picture = heat_picture(np.linspace(0, 5, 50)[None], 5).astype(float)
    brightness = picture @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness[0]) > 0).all()
    assert picture[0, 0].tolist() == [68, 1, 84]
    assert picture[0, -1].tolist() == [253, 231, 37]
    assert np.array_equal(heat_picture(np.array([[5.0, 9.0]]), 5)[0, 0], heat_picture(np.array([[5.0, 9.0]]), 5)[0, 1])


def test_weights_of_nothing_are_dark() -> None:
    assert (heat_picture(np.zeros((2, 2)), 0.0) == (68, 1, 84)).all()


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_what_is_shown_fits_and_keeps_whole_pixels(height: int, width: int) -> None:
    shown = display_size((height, width), 500)
    assert 1 <= min(shown) <= max(shown) <= 500
    if max(height, width) <= 500:
        assert shown[0] % height == shown[1] % width == 0
        assert shown[0] // height == shown[1] // width
    else:
        assert max(shown) == 500


def test_pictures_images_and_labels_are_resized_alike() -> None:
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    picture = np.repeat(labels[..., None], 3, axis=-1).astype(np.uint8)
    larger = resize_labels(labels, (9, 12))
    assert np.array_equal(larger, np.kron(labels, np.ones((3, 3), dtype=np.int32)))
    assert np.array_equal(resize(picture, (9, 12))[..., 0], larger)
    assert np.array_equal(resize_image(labels[..., None], (9, 12))[..., 0], larger)
    assert resize_image(np.array([[[0.0], [10.0]], [[20.0], [30.0]]]), (1, 1))[0, 0, 0] == 15


def test_outlines_run_inside_of_the_objects_and_part_neighbours() -> None:
    labels = np.zeros((12, 12), dtype=np.int32)
    labels[2:10, 2:6], labels[2:10, 6:10] = 1, 2
    lines = outlines(labels, 1)
    assert not lines[labels == 0].any()
    assert lines[4, [2, 5, 6, 9]].all()
    assert not lines[4, [3, 4, 7, 8]].any()


def test_a_grid_is_straight_where_nothing_is_deformed_and_follows_where_it_is() -> None:
    still = Deformation((50.0, 50.0), np.eye(2, dtype=np.float32), np.zeros((2, 3, 3), dtype=np.float32))
    lines = grid_lines(still.coordinates(40).numpy(), 10)
    assert [row for row in range(40) if lines[row].all()] == [row for row in range(1, 40) if (30.5 + row) % 10 < 1]
    pushed = np.zeros((2, 3, 3), dtype=np.float32)
    pushed[0, 1, 1] = 6
    bent = grid_lines(Deformation((50.0, 50.0), np.eye(2, dtype=np.float32), pushed).coordinates(40).numpy(), 10)
    assert not any(bent[row].all() for row in range(40))
    assert torch.from_numpy(bent).sum() > 0


def test_marks_are_drawn_where_they_are_asked_for() -> None:
    blank = np.full((41, 41, 3), 128, dtype=np.uint8)
    ring, cross = draw_ring(blank, (20, 20), 10, REFERENCE), draw_cross(blank, (20, 20), 10, FOUND)
    assert tuple(ring[20, 10].tolist()) == REFERENCE
    assert ring[20, 20].tolist() == [128] * 3
    assert tuple(cross[20, 20].tolist()) == FOUND
    assert cross[20, 8].tolist() == [128] * 3
    assert (blank == 128).all()
