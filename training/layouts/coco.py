"""Layout ``coco``: one JSON file of COCO annotations, and the images that it names.

An annotation is an object, given by polygons (corners in pixels from the upper left corner, all of them united;
:mod:`training.layouts.raster`) or by run lengths, plain or compressed. ``iscrowd`` marks what nobody has parted into
objects: it counts as not annotated. An image without annotations shows no object.
Format: cocodataset.org, "Data format", object detection.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter

from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.layouts.documents import Entry, hold, parse_json
from training.layouts.files import read_image
from training.layouts.names import composed, decomposed, stem_of
from training.layouts.raster import Patch, fill_rings, unite
from training.layouts.run_lengths import decode_run_lengths
from training.layouts.shapes import Shape, paint
from training.layouts.source import Labels, Source, choose
from training.options import Data

_log = logging.getLogger(__name__)

EXPECTS = "one NAME.json with COCO's images and annotations, here or in annotations/; its images in images/ or here"

_Corners = Annotated[list[float], Field(min_length=6)]


class _RunLengths(Entry):
    size: tuple[int, int]
    counts: list[Annotated[int, Field(ge=0)]] | str


class _Image(Entry):
    id: int | str
    file_name: Annotated[str, Field(min_length=1)]
    height: int
    width: int

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.file_name.replace("\\", "/"))


def _outlined(segmentation: object) -> object:
    if segmentation is None or segmentation == []:
        raise ValueError(
            "a box alone does not say which pixels are the object's; expected polygons or run lengths. Annotate "
            "outlines, or take the annotation away"
        )
    return segmentation


class _Annotation(Entry):
    id: int | str | None = None
    image_id: int | str
    category_id: int | str | None = None
    segmentation: Annotated[
        Annotated[list[_Corners], Field(min_length=1), Tag("polygons")] | Annotated[_RunLengths, Tag("run lengths")],
        Discriminator(lambda value: "polygons" if isinstance(value, list) else "run lengths"),
        BeforeValidator(_outlined),
    ] = Field(default=None, validate_default=True)
    iscrowd: bool = False


class _Category(Entry):
    id: int | str
    name: str


class _Coco(Entry):
    images: Annotated[list[_Image], Field(min_length=1)]
    annotations: list[_Annotation]
    categories: tuple[_Category, ...] = ()


_COCO = TypeAdapter(_Coco)


@dataclass(frozen=True, slots=True)
class _Annotated:
    """An image of the file, with its annotations and the names of categories."""

    file: Path
    image: _Image
    annotations: list[_Annotation]
    names: dict[int | str, str]

    def __str__(self) -> str:
        return f"{self.file}, image {self.image.file_name}"


def recognise(folder: Path, data: Data) -> str | None:
    """Name the JSON files that have images and annotations; None where there is none."""
    found = [path for path in _candidates(folder, data) if _is_coco(path)]
    return ", ".join(str(path.relative_to(folder)) for path in found) or None


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List the images that the JSON file names.

    Raises
    ------
    MissingFile
        Where there is no such file, or more than one; where an image, a category, or the image of an annotation is
        missing.
    UnreadableFile
        Where the file is no COCO.
    MaskMismatch
        Where two images share a stem.

    """
    path = _document(folder, data)
    coco = hold(parse_json(path), _COCO, path)
    names = _category_names(path, coco, data)
    by_image: dict[int | str, list[_Annotation]] = {image.id: [] for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id not in by_image:
            raise MissingFile(
                f"{path}: annotation {annotation.id} is of image {annotation.image_id}; expected one of the ids of its "
                f"{len(by_image)} images. Add the image or take the annotation away"
            )
        if names and annotation.category_id is not None and annotation.category_id not in names:
            raise MissingFile(
                f"{path}: annotation {annotation.id} is of category {annotation.category_id!r}; expected one of the "
                f"ids in categories: {', '.join(map(repr, names))}. Add the category or correct the annotation"
            )
        by_image[annotation.image_id].append(annotation)
    twice = [stem for stem, count in Counter(stem_of(image.path) for image in coco.images).items() if count > 1]
    if twice or len(by_image) < len(coco.images):
        what = f"the stem {twice[0]}" if twice else "an id"
        raise MaskMismatch(f"{path}: two images share {what}; expected each image once, of a stem of its own")
    bare = sum(not mine for mine in by_image.values())
    if bare:
        _log.info("%s: %d of %d images have no annotation: taken as without objects", path, bare, len(by_image))
    sources = []
    for image in coco.images:
        found = _find(folder, path, image, data)
        annotated = _Annotated(path, image, by_image[image.id], names)
        read = partial(_read_labels, annotated, data)
        sources.append(Source(stem_of(image.path), str(found), str(annotated), partial(read_image, found), read))
    return choose(sources, wanted, folder)


def _candidates(folder: Path, data: Data) -> list[Path]:
    """JSON files that may be COCO: the one that the recipe names, or those in the folder and in annotations/."""
    if data.masks.lower().endswith(".json"):
        return [folder / data.masks] if (folder / data.masks).is_file() else []
    places = [place for place in (folder, folder / "annotations") if place.is_dir()]
    return [
        path
        for place in places
        for path in sorted(place.iterdir())
        if path.suffix.lower() == ".json" and not path.name.startswith(".")
    ]


def _is_coco(path: Path) -> bool:
    try:
        document = parse_json(path)
    except UnreadableFile:
        return True  # it may be meant; reading it says what is wrong
    return isinstance(document, dict) and "images" in document and "annotations" in document


def _document(folder: Path, data: Data) -> Path:
    candidates = _candidates(folder, data)
    found = [path for path in candidates if _is_coco(path)] if len(candidates) != 1 else candidates
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found) or "none"
        raise MissingFile(f"{folder}: expected one COCO file; found {listed}. Name it as data.masks")
    return found[0]


def _category_names(path: Path, coco: _Coco, data: Data) -> dict[int | str, str]:
    names = {category.id: category.name for category in coco.categories}
    strange = sorted(set(data.categories or ()) - set(names.values()))
    if strange:
        raise MissingFile(
            f"{path} has no category {strange[0]!r}, which data.categories names; found {sorted(names.values())}"
        )
    return names


def _find(folder: Path, path: Path, image: _Image, data: Data) -> Path:
    images = folder / data.images
    names = [PurePosixPath(form(str(image.path))) for form in (str, composed, decomposed)]
    places = [
        place for name in names for place in (images / name, folder / name, path.parent / name, images / name.name)
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise MissingFile(
            f"{path} names the image {image.file_name}; expected {places[0]} or {places[1]}, found neither. Add the "
            "image or take it out of the JSON file"
        )
    return found


def _read_labels(annotated: _Annotated, data: Data, size_yx: tuple[int, int]) -> Labels:
    image, shapes = annotated.image, []
    if (image.height, image.width) != size_yx:
        raise MaskMismatch(
            f"{annotated.file} says that {image.file_name} is {image.height} x {image.width} px; found {size_yx[0]} x "
            f"{size_yx[1]} px. Annotate the image as it is stored"
        )
    for annotation in annotated.annotations:
        category = annotated.names.get(annotation.category_id) if annotation.category_id is not None else None
        try:
            patch = _fill(annotation.segmentation, size_yx)
        except ValueError as error:
            raise UnreadableFile(f"{annotated}: annotation {annotation.id} cannot be read: {error}") from error
        role: Literal["object", "unknown"] = "unknown" if annotation.iscrowd else "object"
        shapes.append(Shape(f"annotation {annotation.id}", patch, category, role))
    return paint(shapes, size_yx, str(annotated), data)


def _fill(segmentation: list[list[float]] | _RunLengths, size_yx: tuple[int, int]) -> Patch:
    if isinstance(segmentation, _RunLengths):
        return Patch(0, 0, decode_run_lengths(segmentation.counts, segmentation.size, size_yx))
    odd = next((corners for corners in segmentation if len(corners) % 2), None)
    if odd is not None:
        raise ValueError(f"a polygon has {len(odd)} numbers; expected x, y, x, y, ...")
    return unite([fill_rings([np.array(corners).reshape(-1, 2)], size_yx) for corners in segmentation])
