"""Training tiles by number: tile ``n`` of a run is the same whenever, wherever and by whichever process it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from model.normalization import FittedNormalization, fit
from training.data.augmentation import (
    Deformation,
    GreyVariation,
    Patch,
    draw_deformation,
    draw_grey,
    image_patch,
    inside,
    plane_patch,
    sample_plane,
)
from training.data.datasets import IGNORE, AnnotatedImage
from training.data.weight_map import border_term, class_targets, separating_ridge
from training.errors import NothingToLearn, RecipeError
from training.recipe import Recipe

_MOST_IMAGES = 4  # beyond that a tile is mirrored pixels, which count for nothing
_MOST_TILE_PX = 16_384
_ALWAYS_PX = 64.0  # as far as a recipe's defaults go, however small tile and images are
_MOST_PLACES = 65_536  # of an image, to draw tiles around
_LOOKED_AT, _FEWEST_LOOKED_AT = 100, 20
_LOOKED_AT_PX = 40_000_000  # that tiles read: seconds
_BLANK_TILES = 1000
"""After so many tiles without an annotated pixel none is expected; of images annotated in part few may show one."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image with what is computed once.

    Parameters
    ----------
    image, normalization
        The image, and its normalisation.
    border_yx
        Border term of its weight map.
    objects
        :func:`object_pixels`; None where tiles lie anywhere.

    """

    image: AnnotatedImage
    normalization: FittedNormalization
    border_yx: NDArray[np.float16]
    objects: NDArray[np.int64] | None


def prepare(images: Sequence[AnnotatedImage], recipe: Recipe) -> list[PreparedImage]:
    """Fit the normalisation and compute the border term of every image."""
    prepared = []
    for image in tqdm(images, desc="weight maps", unit="image", leave=False, disable=None):
        cells = image.labels_yx
        if recipe.data.kind == "semantic":
            # without object numbers the cells are the connected components of the first class after background
            cells = ndimage.label(cells == 1)[0].astype(np.int32)
        elif recipe.targets.scheme == "foreground":
            cells = np.where(separating_ridge(cells), 0, cells)  # the net is to learn that, too
        border = border_term(cells, recipe.weights.w0, recipe.weights.sigma_px)
        normalization = fit(recipe.normalization, image.image_yxc)
        prepared.append(PreparedImage(image, normalization, border.astype(np.float16), object_pixels(image, recipe)))
    return prepared


def object_pixels(image: AnnotatedImage, recipe: Recipe) -> NDArray[np.int64] | None:
    """Pixels of objects, to draw tiles around: indexes into the flat image, at most :data:`_MOST_PLACES` of them.

    None where the recipe draws no tile around objects.
    """
    if not recipe.augmentation.foreground_share:
        return None
    places = np.flatnonzero(image.labels_yx > 0)
    return places if places.size <= _MOST_PLACES else places[np.linspace(0, places.size - 1, _MOST_PLACES).astype(int)]


def share_with_objects(images: Sequence[AnnotatedImage], recipe: Recipe) -> float:
    """Share of the first 100 tiles of a run, of fewer that are large, whose output shows a pixel of an object."""
    written = _Outputs(images, recipe)
    looked = max(_FEWEST_LOOKED_AT, min(_LOOKED_AT, _LOOKED_AT_PX // recipe.tile_input_px**2))
    return float(np.mean([bool((written.labels(number) > 0).any()) for number in range(looked)]))


def require_tile(images: Sequence[AnnotatedImage], recipe: Recipe) -> None:
    """Make sure that a tile is no larger than what the images can fill, or a computer hold, deformed as it may be.

    Raises
    ------
    RecipeError
        Where its output is more than :data:`_MOST_IMAGES` times as long as the longest image (1,024 px are always
        taken), its input longer than :data:`_MOST_TILE_PX`, or its augmentation beyond what such a tile and these
        images allow.

    """
    longest = max(max(image.labels_yx.shape) for image in images)
    most = max(_MOST_IMAGES * longest, 1024)
    if recipe.tile_output_px > most or recipe.tile_input_px > _MOST_TILE_PX:
        raise RecipeError(
            f"tile_output_px = {recipe.tile_output_px} makes tiles that read {recipe.tile_input_px} px of images of at "
            f"most {longest} px; expected an output of {most} px or less, and an input of {_MOST_TILE_PX} px or less. "
            "Choose a smaller tile"
        )
    settings, read = recipe.augmentation, recipe.tile_input_px
    limits = {
        "elastic_px": (max(read / 2, _ALWAYS_PX), f"tiles read {read} px"),
        "blur_px": ((read - 1) / 3, f"tiles read {read} px"),
        "shift_px": (max(float(longest), _ALWAYS_PX), f"the longest image has {longest} px"),
    }
    for name, (limit, reason) in limits.items():
        if getattr(settings, name) > limit:
            raise RecipeError(
                f"augmentation.{name} = {getattr(settings, name):g} is too much here: {reason}; expected "
                f"{limit:g} or less. Lower it"
            )
    if read / settings.scale[0] > 2 * _MOST_TILE_PX:
        raise RecipeError(
            f"augmentation.scale = {list(settings.scale)} makes a tile of {read} px read "
            f"{read / settings.scale[0]:.0f} px of an image; expected {2 * _MOST_TILE_PX} px or less. Raise its lower "
            "end, or choose a smaller tile"
        )


def require_annotated(images: Sequence[AnnotatedImage], recipe: Recipe, count: int) -> None:
    """Make sure that a run of ``count`` tiles has something to learn: with an annotated pixel in one of the first.

    The first tile that shows one ends the search, in most runs the first of all.

    Parameters
    ----------
    images
        Training images.
    recipe
        The run's recipe.
    count
        Tiles of the run; :data:`_BLANK_TILES` are looked at at most.

    Raises
    ------
    NothingToLearn
        Where there is none.

    """
    looked = min(count, _BLANK_TILES)
    outputs = _Outputs(images, recipe)
    if any((outputs.labels(number) != IGNORE).any() for number in range(looked)):
        return
    smallest = min(min(image.labels_yx.shape) for image in images)
    raise NothingToLearn(
        f"the first {looked} tiles of the run hold not one pixel that somebody has annotated; expected some in most: "
        f"augmentation.shift_px = {recipe.augmentation.shift_px:g} may move them beyond the images, the smallest of "
        f"which is {smallest} px long, or next to nothing is annotated. Lower shift_px, or annotate more"
    )


def class_weights(images: Sequence[AnnotatedImage], recipe: Recipe) -> NDArray[np.float32]:
    """Weight wc of each class: inverse frequency to the power ``class_balance``, mean 1 over all annotated pixels."""
    counts = np.zeros(len(recipe.targets.classes), dtype=np.int64)
    for image in images:
        targets = class_targets(image.labels_yx, recipe.targets.scheme, recipe.targets.boundary_px)
        counts += np.bincount(targets[targets != IGNORE], minlength=counts.size)
    frequency = np.maximum(counts, 1) / max(1, counts.sum())
    weights = frequency**-recipe.weights.class_balance
    balanced: NDArray[np.float32] = (weights / (weights * frequency).sum()).astype(np.float32)
    return balanced


@dataclass(frozen=True, slots=True)
class TileParts:
    """A tile before its interpolation: what is drawn and looked up is done, what costs most is still to do.

    Parameters
    ----------
    image, grey
        Part of the normalised image to read at (i, i) places, and what happens to its grey values.
    border
        Part of the weight map's border term to read at (o, o) places.
    targets, class_weights
        (o, o) int64 classes at these places, and float32 weight wc of each.
    outside
        (o, o) bool, what lies on the mirrored surroundings of the image.

    """

    image: Patch
    grey: GreyVariation
    border: Patch
    targets: Tensor
    class_weights: Tensor
    outside: Tensor

    def finish(self, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Image, targets and weights of the tile, computed on a device."""
        targets, wc, outside = (
            part.to(device, non_blocking=True) for part in (self.targets, self.class_weights, self.outside)
        )
        image = self.grey.apply(self.image.to(device).read("bicubic"))
        # the term parts neighbours: inside of an object (class 1) there is nothing to part
        weights = wc + self.border.to(device).read("bilinear")[0] * (targets != 1)
        return image, targets.masked_fill(outside, IGNORE), weights


class TileDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Tiles of a run, by number.

    Item ``n`` is (image (c, i, i) float32, targets (o, o) int64, weights (o, o) float32) with i and o the
    recipe's input and output sizes. Every image comes once in each round of ``len(images)`` tiles, in an order drawn
    anew; everything random about tile ``n`` follows from the seed and ``n``.

    Parameters
    ----------
    images
        Training images.
    recipe
        The run's recipe.
    wc
        Weight of each class.

    """

    def __init__(self, images: Sequence[PreparedImage], recipe: Recipe, wc: NDArray[np.float32]) -> None:
        self._images, self._recipe, self._wc = images, recipe, torch.from_numpy(wc)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.parts(number).finish("cpu")

    def parts(self, number: int) -> TileParts:
        """Tile ``number`` before its interpolation."""
        recipe = self._recipe
        prepared, deformation, rng = self.draw(number)
        size_yx = prepared.image.labels_yx.shape
        read = deformation.coordinates(recipe.tile_input_px)
        written = _written(read, recipe)
        image = image_patch(prepared.image.image_yxc, prepared.normalization, read)
        grey = draw_grey(rng, recipe.augmentation, (recipe.net.in_channels, recipe.tile_input_px, recipe.tile_input_px))
        labels_yx = sample_plane(prepared.image.labels_yx, written, "nearest").numpy()
        targets = torch.from_numpy(class_targets(labels_yx, recipe.targets.scheme, recipe.targets.boundary_px))
        border = plane_patch(prepared.border_yx, written)
        outside = ~inside((size_yx[0], size_yx[1]), written)
        return TileParts(image, grey, border, targets, self._wc[targets.clamp(min=0)], outside)

    def draw(self, number: int) -> tuple[PreparedImage, Deformation, np.random.Generator]:
        """Image and deformation of tile ``number``, and the generator that goes on to draw its grey values."""
        index, rng = _draw(number, len(self._images), self._recipe.schedule.seed)
        prepared = self._images[index]
        return prepared, _deform(rng, prepared.image, self._recipe, prepared.objects), rng


def _draw(number: int, images: int, seed: int) -> tuple[int, np.random.Generator]:
    """Which of so many images tile ``number`` is of, and the tile's generator."""
    turn, place = divmod(number, images)
    index = int(np.random.default_rng([seed, 1, turn]).permutation(images)[place])
    return index, np.random.default_rng([seed, 2, number])


def _deform(
    rng: np.random.Generator, image: AnnotatedImage, recipe: Recipe, objects: NDArray[np.int64] | None
) -> Deformation:
    """Draw the deformation of a tile of an image."""
    height, width = image.labels_yx.shape
    return draw_deformation(rng, recipe.augmentation, (height, width), recipe.tile_output_px, objects)


class _Outputs:
    """What a run's tiles show of the labels, before anything else is computed of the images."""

    def __init__(self, images: Sequence[AnnotatedImage], recipe: Recipe) -> None:
        self._images, self._recipe = images, recipe
        self._objects = cache(lambda index: object_pixels(images[index], recipe))

    def labels(self, number: int) -> Tensor:
        """Labels (o, o) of the output of tile ``number``, :data:`IGNORE` on the image's mirrored surroundings."""
        index, rng = _draw(number, len(self._images), self._recipe.schedule.seed)
        image, recipe = self._images[index], self._recipe
        read = _deform(rng, image, recipe, self._objects(index)).coordinates(recipe.tile_input_px)
        written, labels_yx = _written(read, recipe), image.labels_yx
        outside = ~inside((labels_yx.shape[0], labels_yx.shape[1]), written)
        return sample_plane(labels_yx, written, "nearest").masked_fill(outside, IGNORE)


def _written(read: Tensor, recipe: Recipe) -> Tensor:
    """Of the places (2, i, i) that a tile reads those (2, o, o) of its output."""
    margin = (recipe.tile_input_px - recipe.tile_output_px) // 2
    return read[:, margin:-margin, margin:-margin]
