"""What the images of a folder are: the facts from which :mod:`training.choosing.choose` composes a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.wording import counted
from training.data.datasets import IGNORE, AnnotatedImage, load_images
from training.data.splits import says_validation
from training.data.survey_images import Grey, grey_values, likeness
from training.data.survey_objects import MOST_CLASSES, Guess, Objects, guess_kind, measure_objects, some_masks
from training.errors import MaskMismatch
from training.layouts import coco, ctc, geojson, rois, volumes
from training.layouts.choice import layout_of
from training.layouts.ctc import has_silver_alone
from training.layouts.parts import data_folders, find_parts
from training.layouts.source import Layout
from training.options import Data

_DRAWN: tuple[Layout, ...] = (coco, rois, geojson)
"""Layouts whose shapes are objects by definition."""

_SEQUENCES: tuple[Layout, ...] = (volumes, ctc)
"""Layouts whose images are slices of stacks or frames of sequences."""

_MOST_PIXELS = 24_000_000  # masks are measured on so many pixels: seconds, however large the folder


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
    sequences
        Whether the images are slices of stacks or frames of sequences, by their layout.
    pixels
        :meth:`training.data.datasets.AnnotatedImage.pixels_digest` of each image by its stem.
    shows
        Classes but background that each image shows, by its stem; 1 for objects.
    training_only
        Stems of the images that never validate.
    masks_yx
        Some of the masks, to try on them what a scheme leaves of objects; none where they are semantic.

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
    sequences: bool = False
    pixels: dict[str, str] = field(default_factory=dict)
    shows: dict[str, frozenset[int]] = field(default_factory=dict)
    training_only: frozenset[str] = frozenset()
    masks_yx: tuple[NDArray[np.int32], ...] = field(default=(), compare=False, repr=False)

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
        As :func:`.load_images`; :class:`training.errors.MaskMismatch` where masks that are said to
        hold classes hold more values than :data:`training.data.survey_objects.MOST_CLASSES`.

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
    sequences = any(layout_of(place, data)[0] in _SEQUENCES for _, place in data_folders(folder, data))
    return _survey(images, guess, sequences=sequences), _reading(data, guess), images


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
    return Guess("semantic", values, f"{counted(len(values), 'value')}, as data.kind says")


def _reading(data: Data, guess: Guess) -> Data:
    return data.model_copy(update={"kind": guess.kind, "class_values": guess.class_values})


def _survey(images: Sequence[AnnotatedImage], guess: Guess, *, sequences: bool) -> Survey:
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
    measured = [image.labels_yx for image in _sample(images)]
    images_yxc = [image.image_yxc for image in images]
    alike, chance = likeness(images_yxc)
    return Survey(
        images=len(images),
        empty=sum(not classes for classes in shows.values()),
        smallest_yx=(int(smallest[0]), int(smallest[1])),
        median_yx=(int(median[0]), int(median[1])),
        largest_yx=(int(largest[0]), int(largest[1])),
        channels=images[0].image_yxc.shape[-1],
        grey=grey_values(images_yxc),
        guess=guess,
        class_shares=tuple((counts / max(1, counts.sum())).tolist()),
        annotated=float(counts.sum() / sizes_yx.prod(axis=1).sum()),
        objects=measure_objects(measured, guess.kind),
        likeness=alike,
        chance=chance,
        sequences=sequences,
        pixels={image.stem: image.pixels_digest() for image in images},
        shows=shows,
        training_only=frozenset(image.stem for image in images if image.training_only),
        masks_yx=some_masks(measured) if guess.kind == "instances" else (),
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
