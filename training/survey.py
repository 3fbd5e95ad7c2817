"""What the images of a folder are: the facts from which :mod:`training.choose` composes a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import downscale_local_mean

from training.datasets import IGNORE, AnnotatedImage, load_images
from training.errors import MaskMismatch
from training.layouts import coco, geojson, rois
from training.layouts.choice import layout_of
from training.layouts.ctc import has_silver_alone
from training.layouts.parts import data_folders, find_parts
from training.layouts.source import Layout
from training.options import Data
from training.splits import says_validation
from training.survey_objects import MOST_CLASSES, Guess, Objects, guess_kind, measure_objects

LOW_PERCENTILE = 1.0
HIGH_PERCENTILES = (99.0, 99.8, 99.98, 100.0)
"""Where the grey range of an image may end."""

_DRAWN: tuple[Layout, ...] = (coco, rois, geojson)
"""Layouts whose shapes are objects by definition."""

_MOST_PIXELS = 24_000_000  # masks are measured on so many pixels: seconds, however large the folder
_LIKENESS_SIDE = 32  # images are compared at this size
_FEWEST_FOR_LIKENESS = 8
_MOST_FOR_LIKENESS = 64


@dataclass(frozen=True, slots=True)
class Grey:
    """Grey values over all images.

    Parameters
    ----------
    dtype
        As stored; the widest where they differ.
    lowest, highest
        Over all pixels.
    at_highest
        Share of the pixels that have the highest value: saturated, where it is more than a few.
    hot
        Median over images: how far the brightest pixel lies above the 1st percentile, in units of the distance of the
        99.8th; 1 where both are the same.
    flat
        Number of images whose 1st percentile equals that of :data:`HIGH_PERCENTILES`, one number each.

    """

    dtype: str
    lowest: float
    highest: float
    at_highest: float
    hot: float
    flat: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Survey:
    """Facts of a folder of annotated images.

    Parameters
    ----------
    images, empty
        Number of images, and of those without any object.
    smallest_yx, median_yx, largest_yx
        Sizes in pixels, each axis by itself.
    channels, grey
        Of the images.
    guess
        What the masks' values mean.
    class_shares
        Share of the annotated pixels of each class, background first; for instances background and object.
    annotated
        Share of the pixels that somebody has annotated.
    objects
        Of the measured images: sizes, distances, touching.
    likeness, chance
        Correlation of an image with the next by name, and with any other; both 0 where it cannot be told.
    pixels
        :meth:`training.datasets.AnnotatedImage.pixels_digest` of each image by its stem.
    shows
        Classes but background that each image shows, by its stem; 1 for objects.
    training_only
        Stems of the images that never validate.

    """

    images: int
    empty: int
    smallest_yx: tuple[int, int]
    median_yx: tuple[int, int]
    largest_yx: tuple[int, int]
    channels: int
    grey: Grey
    guess: Guess
    class_shares: tuple[float, ...]
    annotated: float
    objects: Objects
    likeness: float = 0.0
    chance: float = 0.0
    pixels: dict[str, str] = field(default_factory=dict)
    shows: dict[str, frozenset[int]] = field(default_factory=dict)
    training_only: frozenset[str] = frozenset()

    @property
    def foreground(self) -> float:
        """Share of the annotated pixels that are not background."""
        return 1 - self.class_shares[0]


def survey_folder(folder: Path, data: Data | None = None) -> tuple[Survey, Data, list[AnnotatedImage]]:
    """Read a whole folder and say what it holds.

    Shapes that are drawn around objects are objects; what the values of masks mean is guessed.

    Parameters
    ----------
    folder
        The data folder.
    data
        How to read it. What it does not set is as the folder shows: ``kind`` and ``class_values``, silver truth where
        no sequence of layout ``ctc`` has gold truth, and ``parts`` where nothing else is said of validation.

    Returns
    -------
    tuple[Survey, Data, list[AnnotatedImage]]
        The facts, ``data`` with what was seen in it, and the images, read by it.

    Raises
    ------
    DatasetError
        As :func:`training.datasets.load_images`; :class:`training.errors.MaskMismatch` where masks that are said to
        hold classes hold more values than :data:`training.survey_objects.MOST_CLASSES`.

    """
    data = data or Data()
    if not says_validation(data) and (parts := find_parts(folder, data)) is not None:
        data = data.model_copy(update={"parts": parts})
    if "truth" not in data.model_fields_set and has_silver_alone(folder):
        data = data.model_copy(update={"truth": "silver"})
    said = _as_said(folder, data)
    if said is not None and said.kind == "semantic":
        images, guess = load_images(folder, _reading(data, said), None, len(said.class_values or ())), said
    else:
        images = load_images(folder, _reading(data, Guess("instances", None, "")), None, 2)
        guess = said or _guess(images, folder, data)
        if guess.kind == "semantic":
            images = [replace(image, labels_yx=_as_classes(image.labels_yx, guess)) for image in images]
    return _survey(images, _sample(images), guess), _reading(data, guess), images


def _as_said(folder: Path, data: Data) -> Guess | None:
    """What the labels are by ``data`` or by their layout; None where their values have to tell."""
    drawn = all(layout_of(place, data)[0] in _DRAWN for _, place in data_folders(folder, data))
    kind_said = "kind" in data.model_fields_set
    if data.class_values is not None:
        return Guess("semantic", data.class_values, "as data.class_values says")
    if data.kind == "semantic" and drawn:
        classes = tuple(range(1 + len(data.categories or ("all of them",))))
        return Guess("semantic", classes, "shapes of categories, as data.kind says")
    if data.kind == "instances" and (drawn or kind_said):
        return Guess("instances", None, "as data.kind says" if kind_said else "shapes are objects")
    return None


def _guess(images: Sequence[AnnotatedImage], folder: Path, data: Data) -> Guess:
    """What the values of masks mean."""
    values = _all_values(images)
    if data.kind == "instances":
        return guess_kind([image.labels_yx for image in _sample(images)], values)
    if len(values) > MOST_CLASSES:
        raise MaskMismatch(
            f"the masks of {folder} hold {len(values)} values or more, which data.kind = 'semantic' makes classes; "
            f"expected {MOST_CLASSES} at most. Name them all (data.class_values), or leave data.kind out where they "
            "number objects"
        )
    return Guess("semantic", values, f"{len(values)} values, as data.kind says")


def _reading(data: Data, guess: Guess) -> Data:
    return data.model_copy(update={"kind": guess.kind, "class_values": guess.class_values})


def _survey(images: Sequence[AnnotatedImage], measured: Sequence[AnnotatedImage], guess: Guess) -> Survey:
    sizes_yx = np.array([image.labels_yx.shape for image in images])
    smallest, median, largest = (statistic(sizes_yx, axis=0).astype(int) for statistic in (np.min, np.median, np.max))
    counts = np.zeros(len(guess.class_values or (0, 1)), dtype=np.int64)
    shows = {}
    for image in images:
        labels = image.labels_yx[image.labels_yx != IGNORE]
        classes = labels if guess.kind == "semantic" else (labels > 0).astype(np.int64)
        there = np.bincount(classes, minlength=counts.size)
        counts += there
        shows[image.stem] = frozenset((np.flatnonzero(there[1:]) + 1).tolist())
    likeness, chance = _likeness(images)
    return Survey(
        images=len(images),
        empty=sum(not classes for classes in shows.values()),
        smallest_yx=(int(smallest[0]), int(smallest[1])),
        median_yx=(int(median[0]), int(median[1])),
        largest_yx=(int(largest[0]), int(largest[1])),
        channels=images[0].image_yxc.shape[-1],
        grey=_grey([image.image_yxc for image in images]),
        guess=guess,
        class_shares=tuple((counts / max(1, counts.sum())).tolist()),
        annotated=float(counts.sum() / sizes_yx.prod(axis=1).sum()),
        objects=measure_objects([image.labels_yx for image in measured], guess.kind),
        likeness=likeness,
        chance=chance,
        pixels={image.stem: image.pixels_digest() for image in images},
        shows=shows,
        training_only=frozenset(image.stem for image in images if image.training_only),
    )


def _sample(images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
    """Images at equal steps through the folder, as many as :data:`_MOST_PIXELS` allow, and at least one."""
    pixels = sum(image.labels_yx.size for image in images)
    count = max(1, min(len(images), len(images) * _MOST_PIXELS // max(1, pixels)))
    return [images[index] for index in np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))]


def _all_values(images: Sequence[AnnotatedImage]) -> tuple[int, ...]:
    """Every value of the masks, ascending; at most a thousand (more are objects' numbers in any case)."""
    values: set[int] = set()
    for image in images:
        values.update(np.unique(image.labels_yx).tolist())
        if len(values) > 1000:
            break
    return tuple(sorted(values - {IGNORE}))


def _as_classes(values_yx: NDArray[np.int32], guess: Guess) -> NDArray[np.int32]:
    classes = np.searchsorted(np.array(guess.class_values), values_yx).astype(np.int32)
    classes[values_yx == IGNORE] = IGNORE
    return classes


def _grey(images_yxc: Sequence[NDArray[Any]]) -> Grey:
    highest = max(float(image.max()) for image in images_yxc)
    percentiles = np.array([np.percentile(image, (LOW_PERCENTILE, *HIGH_PERCENTILES)) for image in images_yxc])
    ranges = percentiles[:, 1:] - percentiles[:, :1]
    wide = ranges[ranges[:, 1] > 0]
    flat = np.count_nonzero(ranges <= 0, axis=0)
    return Grey(
        dtype=str(np.result_type(*{image.dtype for image in images_yxc})),
        lowest=min(float(image.min()) for image in images_yxc),
        highest=highest,
        at_highest=sum(int(np.count_nonzero(image == highest)) for image in images_yxc)
        / sum(image.size for image in images_yxc),
        hot=float(np.median(wide[:, -1] / wide[:, 1])) if len(wide) else 1.0,
        flat=(int(flat[0]), int(flat[1]), int(flat[2]), int(flat[3])),
    )


def _likeness(images: Sequence[AnnotatedImage]) -> tuple[float, float]:
    """Mean correlation of neighbours by name, and of all others: frames of one sequence resemble their neighbours."""
    first = images[:_MOST_FOR_LIKENESS]
    same_size = len({image.labels_yx.shape for image in first}) == 1
    if len(first) < _FEWEST_FOR_LIKENESS or not same_size or min(first[0].labels_yx.shape) < _LIKENESS_SIDE:
        return 0.0, 0.0
    factors = tuple(size // _LIKENESS_SIDE for size in first[0].labels_yx.shape)
    small = np.array(
        [downscale_local_mean(image.image_yxc[..., 0].astype(np.float64), factors).ravel() for image in first]
    )
    small -= small.mean(axis=0)  # what all share, such as uneven light, tells nothing
    small -= small.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(small, axis=1, keepdims=True)
    small /= np.where(norms > 0, norms, 1)
    correlation = small @ small.T
    apart = np.abs(np.subtract.outer(np.arange(len(first)), np.arange(len(first))))
    return float(correlation[apart == 1].mean()), float(correlation[apart > 1].mean())
