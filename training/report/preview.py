"""What a run will see, before it sees it: the first tiles as pictures, made by the run's own :class:`TileDataset`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model.stitching import reflect_indices
from model.tiling import Span
from training.data.augmentation import Deformation, sample_plane
from training.data.datasets import IGNORE, AnnotatedImage
from training.data.tiles import PreparedImage, TileDataset, prepare
from training.recipe import Recipe
from training.report.pictures import (
    FOUND,
    GRID,
    Picture,
    class_picture,
    display_size,
    draw_path,
    grey_picture,
    grey_range,
    grid_lines,
    heat_picture,
    outlines,
    paint,
    resize,
    resize_image,
    resize_labels,
)

SIDE_PX = 448
"""Longest side of a picture."""

_STRIP_PX, _TITLE_PX, _SCALE_PX, _GAP_PX = 240, 24, 28, 8
_LINES = 12  # of the deformed grid across a tile


@dataclass(frozen=True, slots=True)
class TileView:
    """One tile as pictures.

    Parameters
    ----------
    number, stem
        Of the tile in the run, and of its image.
    description
        How the tile was cut and deformed.
    image
        The part of the stored image that the tile is read from, with the frames of input and output as they lie in it.
    tile
        What the net reads, normalised, deformed, with grey values varied; the frame is that of the output.
    grid
        The same, darker, under a grid that is square in the image.
    classes, weights, outlines
        Targets, weights (viridis, 0 to the page's highest) and objects of the output.
    values
        Lowest, mean and highest value of the tile, normalised.
    highest_weight
        In this tile.

    """

    number: int
    stem: str
    description: str
    image: Picture
    tile: Picture
    grid: Picture
    classes: Picture
    weights: Picture
    outlines: Picture
    values: tuple[float, float, float]
    highest_weight: float


class OnDemand(Sequence[PreparedImage]):
    """Prepared images, each prepared when it is first asked for: a preview needs few of them."""

    def __init__(self, images: Sequence[AnnotatedImage], recipe: Recipe) -> None:
        self._images, self._recipe = images, recipe
        self._prepared: dict[int, PreparedImage] = {}

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> PreparedImage: ...

    @overload
    def __getitem__(self, index: slice) -> list[PreparedImage]: ...

    def __getitem__(self, index: int | slice) -> PreparedImage | list[PreparedImage]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index not in self._prepared:
            (self._prepared[index],) = prepare([self._images[index]], self._recipe)
        return self._prepared[index]


def view_tiles(
    images: Sequence[AnnotatedImage], recipe: Recipe, wc: NDArray[np.float32], count: int
) -> tuple[list[TileView], float]:
    """Show tiles 0 to ``count - 1`` of a run.

    Parameters
    ----------
    images
        The run's training images, in the run's order.
    recipe, wc
        The run's recipe and class weights.
    count
        How many tiles.

    Returns
    -------
    tuple[list[TileView], float]
        The tiles, and the weight that the brightest colour of their weight maps stands for.

    """
    dataset = TileDataset(OnDemand(images, recipe), recipe, wc)
    highest = max(float(dataset[number][2].max()) for number in range(count))
    return [_view(dataset, recipe, number, highest) for number in range(count)], highest


def strip(tile: TileView, highest_weight: float) -> Picture:
    """Put a tile's pictures side by side under their names, the weights above a scale with numbers."""
    named = {
        "image": tile.image,
        "tile": tile.tile,
        "deformation": tile.grid,
        "objects": tile.outlines,
        "classes": tile.classes,
        f"weights, 0 to {highest_weight:.3g}": tile.weights,
    }
    panels = []
    for name, picture in named.items():
        height, width = picture.shape[:2]
        width = round(width * _STRIP_PX / height)
        panel = Image.new("RGB", (width, _TITLE_PX + _STRIP_PX + _SCALE_PX), "white")
        panel.paste(Image.fromarray(picture).resize((width, _STRIP_PX), Image.Resampling.BOX), (0, _TITLE_PX))
        draw = ImageDraw.Draw(panel)
        draw.text((0, 3), name, fill="black", font=ImageFont.load_default(14))
        if picture is tile.weights:
            top = _TITLE_PX + _STRIP_PX + 4
            ramp = heat_picture(np.tile(np.linspace(0, 1, width), (8, 1)), 1)
            panel.paste(Image.fromarray(ramp), (0, top))
            for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
                value = f"{share * highest_weight:.3g}"
                place = (share * (width - 1), top + 10)
                draw.text(place, value, fill="black", font=ImageFont.load_default(12), anchor=anchor)
        panels += [np.asarray(panel), np.full((panel.height, _GAP_PX, 3), 255, dtype=np.uint8)]
    return np.concatenate(panels[:-1], axis=1)


def _view(dataset: TileDataset, recipe: Recipe, number: int, highest_weight: float) -> TileView:
    prepared, deformation, _ = dataset.draw(number)
    tile, targets, weights = (part.numpy() for part in dataset[number])
    read = deformation.coordinates(recipe.tile_input_px)
    margin = (recipe.tile_input_px - recipe.tile_output_px) // 2
    labels_yx = sample_plane(prepared.image.labels_yx, read[:, margin:-margin, margin:-margin], "nearest").numpy()
    places = read.numpy()

    # black and white as in the undeformed image, so that varied grey values show
    tile_yxc = np.moveaxis(tile, 0, -1)
    shown_yxc = np.moveaxis(prepared.normalization.apply(prepared.image.image_yxc), 0, -1)
    black, white = grey_range(shown_yxc)
    size = display_size((recipe.tile_input_px, recipe.tile_input_px), SIDE_PX)
    output = display_size(targets.shape, SIDE_PX)
    seen = grey_picture(resize_image(tile_yxc, size), black, white)
    inset = margin / recipe.tile_input_px
    inner = grey_picture(resize_image(tile_yxc[margin:-margin, margin:-margin], output), black, white)
    objects = resize_labels(np.where(targets == IGNORE, 0, labels_yx), output)
    lines = grid_lines(np.stack([resize_labels(plane, size) for plane in places]), recipe.tile_input_px / _LINES)
    return TileView(
        number=number,
        stem=prepared.image.stem,
        description=_describe(deformation),
        image=_source(prepared.image, places, margin),
        tile=_frame(seen, inset),
        grid=paint(_frame(seen // 2, inset), lines, GRID),
        classes=resize(class_picture(targets), output),
        weights=resize(heat_picture(np.where(targets == IGNORE, 0, weights), highest_weight), output),
        outlines=paint(inner, outlines(objects), FOUND),
        values=(float(tile.min()), float(tile.mean()), float(tile.max())),
        highest_weight=float(weights.max()),
    )


def _source(image: AnnotatedImage, places_yx: NDArray[np.float32], margin: int) -> Picture:
    """Part of an image that a tile is read from, mirrored where it ends, with the frames of input and output."""
    low = np.floor(places_yx.min(axis=(1, 2))).astype(int)
    high = np.ceil(places_yx.max(axis=(1, 2))).astype(int) + 1
    rows, columns = (
        reflect_indices(Span(int(low[axis]), int(high[axis])), image.image_yxc.shape[axis]) for axis in range(2)
    )
    region = image.image_yxc[rows[:, None], columns]
    size = display_size((region.shape[0], region.shape[1]), SIDE_PX)
    picture = grey_picture(resize_image(region, size), *grey_range(image.image_yxc))
    scale = size[0] / region.shape[0]
    for inset, colour in ((0, GRID), (margin, FOUND)):
        stop = places_yx.shape[1] - inset
        square = places_yx[:, inset:stop, inset:stop]
        edges = [square[:, 0], square[:, :, -1], square[:, -1, ::-1], square[:, ::-1, 0]]
        path = np.concatenate(edges, axis=1).T
        picture = draw_path(picture, (path - low + 0.5) * scale, colour)
    return picture


def _frame(picture: Picture, inset: float) -> Picture:
    """Draw a square, ``inset`` as a share of the picture's side."""
    side = picture.shape[0] - 1
    low, high = inset * side, (1 - inset) * side
    corners = np.array([(low, low), (low, high), (high, high), (high, low), (low, low)])
    return draw_path(picture, corners, FOUND)


def _describe(deformation: Deformation) -> str:
    """Say in words what was drawn."""
    affine = deformation.affine
    determinant = float(np.linalg.det(affine))
    zoom = 1 / math.sqrt(abs(determinant))
    # rows and columns of the tile may both be flipped: that is half a turn
    angle = math.degrees(math.atan2(affine[1, 0], affine[0, 0] * np.sign(determinant))) % 360
    parts = [f"zoomed {zoom:.2f} times", f"turned {angle:.0f} degrees"]
    if determinant < 0:
        parts.append("mirrored")
    longest = float(np.hypot(*deformation.displacement_px).max())
    parts.append(f"displaced by up to {longest:.0f} px" if longest else "not deformed")
    centre = f"centre at row {deformation.centre_yx[0]:.0f}, column {deformation.centre_yx[1]:.0f}"
    return f"{centre}; {', '.join(parts)}"
