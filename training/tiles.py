"""Training tiles by number: tile ``n`` of a run is the same whenever, wherever and by whichever process it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from model.normalization import FittedNormalization, fit
from training.augmentation import (
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
from training.datasets import IGNORE, AnnotatedImage
from training.errors import RecipeError
from training.recipe import Recipe
from training.weight_map import border_term, class_targets, separating_ridge

_MOST_IMAGES = 4  # beyond that a tile is mirrored pixels, which count for nothing
_MOST_TILE_PX = 16_384


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image with what is computed once: its normalisation and the border term (y, x) of its weight map."""

    image: AnnotatedImage
    normalization: FittedNormalization
    border_yx: NDArray[np.float16]


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
        prepared.append(PreparedImage(image, fit(recipe.normalization, image.image_yxc), border.astype(np.float16)))
    return prepared


def require_tile(images: Sequence[AnnotatedImage], recipe: Recipe) -> None:
    """Make sure that a tile is no larger than what the images can fill, or a computer hold.

    Raises
    ------
    RecipeError
        Where its output is more than :data:`_MOST_IMAGES` times as long as the longest image (1,024 px are always
        taken), or its input longer than :data:`_MOST_TILE_PX`.

    """
    longest = max(max(image.labels_yx.shape) for image in images)
    most = max(_MOST_IMAGES * longest, 1024)
    if recipe.tile_output_px > most or recipe.tile_input_px > _MOST_TILE_PX:
        raise RecipeError(
            f"tile_output_px = {recipe.tile_output_px} makes tiles that read {recipe.tile_input_px} px of images of at "
            f"most {longest} px; expected an output of {most} px or less, and an input of {_MOST_TILE_PX} px or less. "
            "Choose a smaller tile"
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
        margin = (recipe.tile_input_px - recipe.tile_output_px) // 2
        written = read[:, margin:-margin, margin:-margin]
        image = image_patch(prepared.image.image_yxc, prepared.normalization, read)
        grey = draw_grey(rng, recipe.augmentation, (recipe.net.in_channels, recipe.tile_input_px, recipe.tile_input_px))
        labels_yx = sample_plane(prepared.image.labels_yx, written, "nearest").numpy()
        targets = torch.from_numpy(class_targets(labels_yx, recipe.targets.scheme, recipe.targets.boundary_px))
        border = plane_patch(prepared.border_yx, written)
        outside = ~inside((size_yx[0], size_yx[1]), written)
        return TileParts(image, grey, border, targets, self._wc[targets.clamp(min=0)], outside)

    def draw(self, number: int) -> tuple[PreparedImage, Deformation, np.random.Generator]:
        """Image and deformation of tile ``number``, and the generator that goes on to draw its grey values."""
        recipe, seed = self._recipe, self._recipe.schedule.seed
        turn, place = divmod(number, len(self._images))
        order = np.random.default_rng([seed, 1, turn]).permutation(len(self._images))
        rng = np.random.default_rng([seed, 2, number])
        prepared = self._images[order[place]]
        size_yx = prepared.image.labels_yx.shape
        deformation = draw_deformation(rng, recipe.augmentation, (size_yx[0], size_yx[1]), recipe.tile_output_px)
        return prepared, deformation, rng
