"""Random deformation and grey values, sampled by index: a tile is cut out of the whole image without deforming it.

A :class:`Deformation` says, for each pixel of a tile, where in the image it comes from. Image, labels and weights
are all read at these places, so one random field serves all three
(test: ``test_one_field_moves_image_labels_and_weights``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.normalization import FittedNormalization
from model.stitching import reflect_indices
from model.tiling import Span
from training.options import Augmentation


@dataclass(frozen=True, slots=True)
class Deformation:
    """Where the pixels of a square tile come from.

    Parameters
    ----------
    centre_yx
        Place of the tile's centre in the image, in pixels.
    affine
        (2, 2): image pixels (y, x) per tile pixel (y, x).
    displacement_px
        (2, 3, 3) displacement vectors (y, x) on a coarse grid over the tile, in image pixels.

    """

    centre_yx: tuple[float, float]
    affine: NDArray[np.float32]
    displacement_px: NDArray[np.float32]

    def coordinates(self, size: int) -> Tensor:
        """Source coordinates (2, size, size), float32 (y, x) in image pixels; may lie outside of the image.

        The displacement of each pixel is interpolated bicubically from the coarse grid (section 3.1).
        """
        axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        offsets = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        places = torch.einsum("ij,jyx->iyx", torch.from_numpy(self.affine), offsets)
        places += torch.tensor(self.centre_yx, dtype=torch.float32)[:, None, None]
        if self.displacement_px.any():
            coarse = torch.from_numpy(self.displacement_px)[None]
            places += functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[0]
        return places


def draw_deformation(
    rng: np.random.Generator,
    settings: Augmentation,
    size_yx: tuple[int, int],
    output_px: int,
    objects: NDArray[np.int64] | None = None,
) -> Deformation:
    """Draw a tile whose output (``output_px`` pixels) lies within the image (``size_yx``), but for the shift.

    ``objects`` are pixels of objects, as indexes into the flat image: ``settings.foreground_share`` of the tiles show
    one of them, drawn evenly, wherever in their output.
    """
    around = None
    if objects is not None and objects.size and rng.random() < settings.foreground_share:
        around = divmod(int(objects[rng.integers(objects.size)]), size_yx[1])
    deform = rng.random() < settings.probability
    low, high = (math.log(bound) for bound in settings.scale)
    zoom = math.exp(rng.uniform(low, high)) if deform else 1.0
    quarter_turns = int(rng.integers(4)) if settings.rotate else 0
    angle = math.pi / 2 * quarter_turns + (rng.uniform(-math.pi / 4, math.pi / 4) if deform and settings.rotate else 0)
    cosine, sine = (round(value, 7) for value in (math.cos(angle), math.sin(angle)))
    flips = rng.integers(2, size=2) * 2 - 1 if settings.flip else np.ones(2)
    affine = np.array([[cosine, -sine], [sine, cosine]]) * flips / zoom
    displacement = rng.normal(0, settings.elastic_px if deform else 0, (2, 3, 3))
    centre = []
    for axis, size in enumerate(size_yx):
        edge = min((output_px - 1) / 2 / zoom, (size - 1) / 2)
        shift = rng.uniform(-settings.shift_px, settings.shift_px)
        # whole and half pixels, so that an undeformed tile is read without interpolation
        drawn = rng.uniform(edge, size - 1 - edge)
        if around is not None:
            reach = edge / math.sqrt(2)  # within it a pixel stays in the tile, however that is turned
            drawn = min(max(around[axis] + rng.uniform(-reach, reach), edge), size - 1 - edge)
        place = np.round(drawn + shift) + (0.5 if output_px % 2 == 0 else 0)
        centre.append(float(place))
    return Deformation((centre[0], centre[1]), affine.astype(np.float32), displacement.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Patch:
    """Part of an image and where it is to be read: the interpolation can be done later, on another device.

    Parameters
    ----------
    planes_cyx
        The part, mirrored beyond the image's borders, float32.
    places
        (2, y, x) float32 (y, x) coordinates within the part, all of them inside.

    """

    planes_cyx: Tensor
    places: Tensor

    def to(self, device: str) -> Patch:
        """Return the patch on a device."""
        return Patch(self.planes_cyx.to(device, non_blocking=True), self.places.to(device, non_blocking=True))

    def read(self, mode: Literal["bicubic", "bilinear"]) -> Tensor:
        """Planes (c, y, x) float32 at the places."""
        sizes = torch.tensor(self.planes_cyx.shape[1:], dtype=torch.float32, device=self.places.device)[:, None, None]
        grid = (2 * self.places / (sizes - 1) - 1).flip(0).permute(1, 2, 0)  # grid_sample wants (x, y) in [-1, 1]
        return functional.grid_sample(self.planes_cyx[None], grid[None], mode=mode, align_corners=True)[0]


def image_patch(image_yxc: NDArray[Any], normalization: FittedNormalization, coordinates: Tensor) -> Patch:
    """Part of the normalised image that ``coordinates`` (2, y, x) touch."""
    region, local = _region(image_yxc, coordinates)
    return Patch(torch.from_numpy(normalization.apply(region)), local)


def plane_patch(plane_yx: NDArray[Any], coordinates: Tensor) -> Patch:
    """Part of a plane (y, x) that ``coordinates`` (2, y, x) touch."""
    region, local = _region(plane_yx[..., None], coordinates)
    return Patch(torch.from_numpy(np.moveaxis(region, -1, 0).astype(np.float32)), local)


def sample_plane(plane_yx: NDArray[Any], coordinates: Tensor, mode: Literal["nearest", "bilinear"]) -> Tensor:
    """Plane (y, x) at ``coordinates`` (2, y, x), mirrored beyond its borders; float32 unless ``nearest``."""
    if mode == "nearest":
        indices = [
            torch.from_numpy(reflect_indices(Span(low, low + count), size))[places - low]
            for places, size in zip(torch.round(coordinates).long(), plane_yx.shape, strict=True)
            for low, count in [(int(places.min()), int(places.max() - places.min()) + 1)]
        ]
        return torch.from_numpy(plane_yx[indices[0].numpy(), indices[1].numpy()])
    return plane_patch(plane_yx, coordinates).read(mode)[0]


def inside(size_yx: tuple[int, int], coordinates: Tensor) -> Tensor:
    """Whether each of ``coordinates`` (2, y, x) lies on the image itself and not on its mirrored surroundings."""
    limits = torch.tensor(size_yx, dtype=torch.float32)[:, None, None] - 0.5
    return ((coordinates >= -0.5) & (coordinates < limits)).all(dim=0)


@dataclass(frozen=True, slots=True)
class GreyVariation:
    """What happens to the grey values of a tile.

    Parameters
    ----------
    gamma, contrast, brightness
        Exponent of what is above 0, factor, and offset.
    blur_px
        Standard deviation of the blur; none below 0.3.
    noise_cyx
        Added noise (c, y, x) float32; None without.

    """

    gamma: float
    contrast: float
    brightness: float
    blur_px: float
    noise_cyx: Tensor | None

    def apply(self, image_cyx: Tensor) -> Tensor:
        """Vary a normalised image (c, y, x), on its device."""
        if self.gamma != 1:
            image_cyx = torch.where(image_cyx > 0, image_cyx.clamp(min=1e-6) ** self.gamma, image_cyx)
        image_cyx = image_cyx * self.contrast + self.brightness
        if self.blur_px > 0.3:
            image_cyx = _blur(image_cyx, self.blur_px)
        if self.noise_cyx is not None:
            image_cyx = image_cyx + self.noise_cyx.to(image_cyx.device, non_blocking=True)
        return image_cyx


def draw_grey(rng: np.random.Generator, settings: Augmentation, shape_cyx: tuple[int, ...]) -> GreyVariation:
    """Draw the grey values of a tile of shape (c, y, x)."""
    gamma, contrast = (
        math.exp(rng.uniform(math.log(low), math.log(high))) for low, high in (settings.gamma, settings.contrast)
    )
    brightness = rng.uniform(-settings.brightness, settings.brightness)
    blur = rng.uniform(0, settings.blur_px) if rng.random() < 0.25 else 0.0
    noise = rng.uniform(0, settings.noise) * rng.random()
    noise_cyx = noise * torch.from_numpy(rng.standard_normal(shape_cyx, dtype=np.float32)) if noise > 0 else None
    return GreyVariation(gamma, contrast, brightness, blur, noise_cyx)


def _region(image_yxc: NDArray[Any], coordinates: Tensor) -> tuple[NDArray[Any], Tensor]:
    """Copy the mirrored part of the image that ``coordinates`` touch, and the coordinates within it."""
    low = torch.floor(coordinates.amin(dim=(1, 2))).long() - 1  # bicubic reads one pixel before and two behind
    high = torch.floor(coordinates.amax(dim=(1, 2))).long() + 3
    rows, columns = (reflect_indices(Span(int(low[axis]), int(high[axis])), image_yxc.shape[axis]) for axis in range(2))
    return image_yxc[rows[:, None], columns], coordinates - low[:, None, None]


def _blur(image_cyx: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of each channel, borders mirrored."""
    radius = math.ceil(3 * sigma_px)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_px) ** 2)
    taps = (taps / taps.sum()).to(image_cyx)
    padded = functional.pad(image_cyx[:, None], (radius,) * 4, mode="reflect")
    rows = functional.conv2d(padded, taps[None, None, :, None])
    return functional.conv2d(rows, taps[None, None, None, :])[:, 0]
