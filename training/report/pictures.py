"""Pictures for people: grey values, classes, weights, outlines and deformed grids as 8-bit RGB, and those as PNG.

Colours are told apart by people of every colour vision: classes and outlines are from Okabe and Ito's palette, numbers
are shown in viridis, and what is marked has a shape of its own.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.data.datasets import IGNORE
from training.data.weight_map import inner_boundary

Picture = NDArray[np.uint8]
"""(y, x, 3), RGB."""

Colour = tuple[int, int, int]

REFERENCE: Colour = (86, 180, 233)
FOUND: Colour = (255, 176, 0)
BOTH: Colour = (255, 255, 255)
GRID: Colour = (240, 228, 66)
CLASSES: tuple[Colour, ...] = (
    (38, 44, 54),
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (0, 114, 178),
    (213, 94, 0),
)
_HATCH: tuple[Colour, Colour] = ((150, 150, 150), (104, 104, 104))
_HATCH_PX = 8
_GREY_LEVELS = 64  # as many as an eye tells apart; noise in the last bits is most of a PNG's size
_VIRIDIS = (
    (68, 1, 84),
    (72, 26, 108),
    (71, 47, 125),
    (65, 68, 135),
    (57, 86, 140),
    (49, 104, 142),
    (42, 120, 142),
    (35, 136, 142),
    (31, 152, 139),
    (34, 168, 132),
    (53, 183, 121),
    (84, 197, 104),
    (122, 209, 81),
    (165, 219, 54),
    (210, 226, 27),
    (253, 231, 37),
)  # sixteen equal steps through matplotlib's map


def class_colour(number: int) -> Colour:
    """Colour of a class; they repeat after eight, background apart."""
    return CLASSES[number] if number == 0 else CLASSES[1 + (number - 1) % (len(CLASSES) - 1)]


def grey_range(image_yxc: NDArray[Any]) -> tuple[float, float]:
    """Grey values to show as black and as white: the 0.5th and 99.8th percentile, or what is wider than nothing."""
    low, high = (float(value) for value in np.percentile(image_yxc, (0.5, 99.8)))
    if high <= low:
        low, high = float(image_yxc.min()), float(image_yxc.max())
    return (low, high) if high > low else (low, low + 1.0)


def grey_picture(image_yxc: NDArray[Any], low: float, high: float, gamma: float = 1.0) -> Picture:
    """Show an image (y, x, c): colours where it has three channels, else its first channel in grey.

    Parameters
    ----------
    image_yxc
        Of any dtype.
    low, high
        Shown as black and as white.
    gamma
        Exponent of what lies between: below 1 the dark parts are brightened.

    """
    shown = image_yxc if image_yxc.shape[-1] == 3 else image_yxc[..., :1]
    part = np.clip((shown.astype(np.float32) - low) / (high - low), 0, 1) ** gamma
    level = np.round(np.round(part * (_GREY_LEVELS - 1)) * (255 / (_GREY_LEVELS - 1)))
    picture: Picture = np.repeat(level, 3 // level.shape[-1], axis=-1).astype(np.uint8)
    return picture


def class_picture(targets_yx: NDArray[Any]) -> Picture:
    """Colour class indexes (y, x); what nobody has annotated is hatched in grey."""
    palette = np.array([class_colour(number) for number in range(int(max(1, targets_yx.max(initial=0))) + 1)])
    picture: Picture = palette.astype(np.uint8)[np.maximum(targets_yx, 0)]
    y, x = np.nonzero(targets_yx == IGNORE)
    period = max(_HATCH_PX, max(targets_yx.shape) // 32)  # to be seen where the picture is shrunk
    picture[y, x] = np.array(_HATCH, dtype=np.uint8)[((y + x) % period < period // 2).astype(int)]
    return picture


def heat_picture(values_yx: NDArray[Any], high: float) -> Picture:
    """Show numbers from 0 to ``high`` in viridis, dark to bright; higher ones as ``high``."""
    part = np.clip(values_yx.astype(np.float64) / high, 0, 1) if high > 0 else np.zeros(values_yx.shape)
    steps = np.round(part * 255) / 255 * (len(_VIRIDIS) - 1)
    at = np.arange(len(_VIRIDIS))
    channels = [np.interp(steps, at, [colour[channel] for colour in _VIRIDIS]) for channel in range(3)]
    picture: Picture = np.stack(channels, axis=-1).round().astype(np.uint8)
    return picture


def viridis_stops() -> list[str]:
    """The colours of :func:`heat_picture` at equal steps, as CSS writes them."""
    return [css(colour) for colour in _VIRIDIS]


def css(colour: Colour) -> str:
    """Colour as CSS writes it: ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def display_size(size_yx: tuple[int, int], side_px: int) -> tuple[int, int]:
    """Size to show a plane of ``size_yx`` at.

    Large ones are shrunk so that no side is longer than ``side_px``; small ones are enlarged by a whole number as long
    as they keep within it, so that a pixel remains a square.
    """
    longest = max(size_yx)
    factor = side_px / longest if longest > side_px else side_px // longest
    return max(1, round(size_yx[0] * factor)), max(1, round(size_yx[1] * factor))


def resize(picture: Picture, size_yx: tuple[int, int]) -> Picture:
    """Resize a picture: the mean of the area where it shrinks, squares where it grows."""
    grows = size_yx[0] >= picture.shape[0] and size_yx[1] >= picture.shape[1]
    method = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize((size_yx[1], size_yx[0]), method))


def resize_image(image_yxc: NDArray[Any], size_yx: tuple[int, int]) -> NDArray[np.float32]:
    """Resize an image of any dtype as :func:`resize` does; returns float32 (y, x, c)."""
    grows = size_yx[0] >= image_yxc.shape[0] and size_yx[1] >= image_yxc.shape[1]
    method = Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((size_yx[1], size_yx[0]), method))
        for plane in np.moveaxis(image_yxc, -1, 0)
    ]
    return np.stack(planes, axis=-1)


def resize_labels(labels_yx: NDArray[Any], size_yx: tuple[int, int]) -> NDArray[Any]:
    """Resize labels: each pixel takes the nearest one's."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(size_yx, labels_yx.shape, strict=True)
    )
    resized: NDArray[Any] = labels_yx[rows[:, None], columns]
    return resized


def outlines(labels_yx: NDArray[Any], width_px: int = 2) -> NDArray[np.bool_]:
    """Outermost pixels of every object (numbers above 0), ``width_px`` wide; the plane's edge is no outline."""
    return inner_boundary(np.maximum(labels_yx, 0), width_px)


def paint(picture: Picture, where_yx: NDArray[np.bool_], colour: Colour, opacity: float = 1.0) -> Picture:
    """Return the picture with ``colour`` laid over some pixels."""
    painted = picture.copy()
    under = painted[where_yx].astype(np.float32)
    painted[where_yx] = np.round(under * (1 - opacity) + np.array(colour, dtype=np.float32) * opacity)
    return painted


def grid_lines(coordinates_yx: NDArray[Any], spacing_px: float) -> NDArray[np.bool_]:
    """Where a square grid of the image comes to lie in a tile that was read at ``coordinates_yx``.

    Parameters
    ----------
    coordinates_yx
        (2, y, x): the place in the image that each pixel of the tile shows, in pixels.
    spacing_px
        Distance of the grid's lines in the image.

    Returns
    -------
    NDArray[np.bool_]
        (y, x): pixels right below or right of a line.

    """
    cell = np.floor(np.asarray(coordinates_yx, dtype=np.float64) / spacing_px)
    lines = np.zeros(cell.shape[1:], dtype=bool)
    lines[1:] |= (np.diff(cell, axis=1) != 0).any(axis=0)
    lines[:, 1:] |= (np.diff(cell, axis=2) != 0).any(axis=0)
    return lines


def draw_path(picture: Picture, points_yx: NDArray[Any], colour: Colour, width_px: int = 2) -> Picture:
    """Return the picture with a line through points (n, 2)."""
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).line([(float(x), float(y)) for y, x in points_yx], fill=colour, width=width_px, joint="curve")
    return np.asarray(image)


def draw_ring(picture: Picture, centre_yx: tuple[float, float], radius_px: float, colour: Colour) -> Picture:
    """Return the picture with a ring, dark at its rims so that it is seen on any ground."""
    image = Image.fromarray(picture)
    y, x = centre_yx
    for radius, paint_with, width in ((radius_px + 1, (0, 0, 0), 5), (radius_px, colour, 3)):
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), outline=paint_with, width=width)
    return np.asarray(image)


def draw_cross(picture: Picture, centre_yx: tuple[float, float], radius_px: float, colour: Colour) -> Picture:
    """Return the picture with a diagonal cross, dark at its rims so that it is seen on any ground."""
    image = Image.fromarray(picture)
    y, x = centre_yx
    arm = radius_px / math.sqrt(2)
    for paint_with, width, reach in (((0, 0, 0), 6, arm + 1), (colour, 3, arm)):
        for sign in (-1, 1):
            ends = (x - reach, y - sign * reach, x + reach, y + sign * reach)
            ImageDraw.Draw(image).line(ends, fill=paint_with, width=width)
    return np.asarray(image)


def png_bytes(picture: Picture) -> bytes:
    """Write a picture as PNG, with a palette where it has no more than 256 colours: a third of the size."""
    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    if colours.size <= 256:
        image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8)).convert("P")
        image.putpalette(
            np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8).tobytes()
        )
    else:
        image = Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """Bytes of a PNG as a link that holds them."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
