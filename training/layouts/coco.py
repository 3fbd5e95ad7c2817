"""Layout ``coco``: one JSON file of COCO annotations, and the images that it names.

An annotation is an object, given by polygons (corners in pixels from the upper left corner, all of them united;
:mod:`training.layouts.raster`) or by run lengths, plain or compressed. What ``iscrowd`` marks is not annotated, or one
object, as ``data.crowd`` or the file says (:mod:`training.layouts.coco_document`). An image without annotations shows
no object.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

import numpy as np

from model.wording import counted
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.layouts.coco_document import (
    FEWEST_NUMBERS,
    Annotation,
    Document,
    Image,
    RunLengths,
    read_document,
    role_of_crowds,
)
from training.layouts.documents import looks_like_geojson, parse_json
from training.layouts.files import read_image
from training.layouts.raster import Patch, fill_rings, unite
from training.layouts.run_lengths import decode_run_lengths
from training.layouts.shapes import Shape, paint
from training.layouts.source import Labels, Source, choose
from training.names import composed, decomposed, stem_of
from training.options import Data

_log = logging.getLogger(__name__)

EXPECTS = (
    "one NAME.json with COCO's images and annotations, here or in annotations/; its images in images/, in "
    "images/SUBSET/ for NAME_SUBSET.json, or here"
)


@dataclass(frozen=True, slots=True)
class _Annotated:
    """An image of the file, with its annotations, the names of categories, and what crowds count as."""

    file: Path
    image: Image
    annotations: list[Annotation]
    names: dict[str, str]
    crowd: Literal["object", "unknown"]

    def __str__(self) -> str:
        return f"{self.file}, image {self.image.file_name}"


def recognise(folder: Path, data: Data) -> str | None:
    """Name the JSON files that have images and annotations; None where there is none."""
    return _names([path for path in _candidates(folder, data) if _is_coco(path)], folder)


def suspect(folder: Path, data: Data) -> str | None:
    """Name the JSON files that may be meant where no layout fits, for they cannot be read."""
    return _names([path for path in _candidates(folder, data) if _is_damaged(path)], folder)


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List the images that the JSON file names.

    An image's stem is that of its file; images that share one are told apart by their sub-folders, ``day1-cell``.

    Raises
    ------
    MissingFile
        Where there is no such file, or more than one; where an image, a category, or the image of an annotation is
        missing.
    UnreadableFile
        Where the file is no COCO.
    MaskMismatch
        Where two images are one file, or have one id.
    NothingToLearn
        Where all annotations are crowds, and those are to be ignored.

    """
    path = _document(folder, data)
    coco = read_document(path)
    names = _category_names(path, coco, data)
    by_image: dict[str, list[Annotation]] = {image.id: [] for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id not in by_image:
            raise MissingFile(
                f"{path}: annotation {annotation.id} is of image {annotation.image_id}; expected one of the ids of its "
                f"{counted(len(by_image), 'image')}. Add the image or take the annotation away"
            )
        if names and annotation.category_id is not None and annotation.category_id not in names:
            raise MissingFile(
                f"{path}: annotation {annotation.id} is of category {annotation.category_id}; expected one of the "
                f"ids in categories: {', '.join(names)}. Add the category or correct the annotation"
            )
        by_image[annotation.image_id].append(annotation)
    if len(by_image) < len(coco.images):
        raise MaskMismatch(f"{path}: two images share an id; expected each image once, with an id of its own")
    bare = sum(not mine for mine in by_image.values())
    if bare:
        _log.info("%s: %d of %d images have no annotation: taken as without objects", path, bare, len(by_image))
    crowd = role_of_crowds(path, coco, data)
    files = [_find(folder, path, image, data) for image in coco.images]
    sources = []
    for image, file, stem in zip(coco.images, files, _stems(path, coco.images, files), strict=True):
        annotated = _Annotated(path, image, by_image[image.id], names, crowd)
        read = partial(_read_labels, annotated, data)
        sources.append(Source(stem, str(file), str(annotated), partial(read_image, file), read))
    return choose(sources, wanted, folder)


def _candidates(folder: Path, data: Data) -> list[Path]:
    """JSON files that may be COCO: the one that the recipe names, or all but GeoJSON in the folder and annotations/."""
    if data.masks.lower().endswith(".json"):
        return [folder / data.masks] if (folder / data.masks).is_file() else []
    places = [place for place in (folder, folder / "annotations") if place.is_dir()]
    return [
        path
        for place in places
        for path in sorted(place.iterdir())
        if path.suffix.lower() == ".json" and not path.name.startswith(".") and not looks_like_geojson(path)
    ]


def _names(paths: Sequence[Path], folder: Path) -> str | None:
    return ", ".join(str(path.relative_to(folder)) for path in paths) or None


def _is_coco(path: Path) -> bool:
    with suppress(UnreadableFile):
        document = parse_json(path)
        return isinstance(document, dict) and "images" in document and "annotations" in document
    return False


def _is_damaged(path: Path) -> bool:
    try:
        parse_json(path)
    except UnreadableFile:
        return True  # reading it says what is wrong
    return False


def _document(folder: Path, data: Data) -> Path:
    candidates = _candidates(folder, data)
    found = candidates
    if len(candidates) > 1:
        found = [path for path in candidates if _is_coco(path)] or [path for path in candidates if _is_damaged(path)]
    if len(found) != 1:
        listed = ", ".join(str(path) for path in found) or "none"
        raise MissingFile(f"{folder}: expected one COCO file; found {listed}. Name it as data.masks")
    return found[0]


def _category_names(path: Path, coco: Document, data: Data) -> dict[str, str]:
    names = {category.id: category.name for category in coco.categories}
    strange = sorted(set(data.categories or ()) - set(names.values()))
    if strange:
        raise MissingFile(
            f"{path} has no category {strange[0]!r}, which data.categories names; found {sorted(names.values())}"
        )
    return names


def _find(folder: Path, path: Path, image: Image, data: Data) -> Path:
    """File of an image: named as written, in another form of Unicode or percent-encoded, in any of the places."""
    images, named = folder / data.images, str(image.path)
    subset = path.stem.partition("_")[2]  # CVAT's and COCO's instances_SUBSET.json
    forms = (named, composed(named), decomposed(named), unquote(named))
    places: list[Path] = [
        place
        for name in map(PurePosixPath, forms)
        for place in (
            images / name,
            folder / name,
            *((images / subset / name, folder / subset / name) if subset else ()),
            path.parent / name,
            images / name.name,
        )
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise MissingFile(
            f"{path} names the image {image.file_name}; expected {places[0]} or {places[1]}, found neither. Add the "
            "image or take it out of the JSON file"
        )
    return found


def _stems(path: Path, images: Sequence[Image], files: Sequence[Path]) -> list[str]:
    """Stem of each image; those that share one are told apart by the sub-folders that the JSON file names."""
    if len(set(files)) < len(files):
        file, _ = Counter(files).most_common(1)[0]
        raise MaskMismatch(f"{path}: two images are the file {file}; expected a file for each image")
    counts = Counter(map(stem_of, files))
    stems = [
        stem_of(file)
        if counts[stem_of(file)] == 1
        else "-".join([*map(composed, image.path.parent.parts), stem_of(file)])
        for image, file in zip(images, files, strict=True)
    ]
    stem, count = Counter(stems).most_common(1)[0]
    if count > 1:
        raise MaskMismatch(f"{path}: two images share the stem {stem}; expected a name of its own for each. Rename one")
    return stems


def _read_labels(annotated: _Annotated, data: Data, size_yx: tuple[int, int]) -> Labels:
    image, shapes = annotated.image, []
    said_yx = (image.height or size_yx[0], image.width or size_yx[1])
    if said_yx != size_yx:
        raise MaskMismatch(
            f"{annotated.file} says that {image.file_name} is {said_yx[0]} x {said_yx[1]} px; found {size_yx[0]} x "
            f"{size_yx[1]} px. Annotate the image as it is stored"
        )
    for annotation in annotated.annotations:
        category = annotated.names.get(annotation.category_id) if annotation.category_id is not None else None
        try:
            patch = _fill(annotation, size_yx)
        except ValueError as error:
            raise UnreadableFile(f"{annotated}: annotation {annotation.id} cannot be read: {error}") from error
        role = annotated.crowd if annotation.iscrowd else "object"
        shapes.append(Shape(f"annotation {annotation.id}", patch, category, role))
    return paint(shapes, size_yx, str(annotated), data)


def _fill(annotation: Annotation, size_yx: tuple[int, int]) -> Patch:
    segmentation = annotation.segmentation
    if isinstance(segmentation, RunLengths):
        return decode_run_lengths(segmentation.counts, segmentation.size, size_yx)
    parts = [part for part in segmentation if len(part) >= FEWEST_NUMBERS]
    if not parts:
        raise ValueError(
            f"it has polygons of {[len(part) // 2 for part in segmentation]} corners, which enclose nothing; expected "
            "3 or more. Draw its outline, or take the annotation away"
        )
    odd = next((part for part in parts if len(part) % 2), None)
    if odd is not None:
        raise ValueError(f"a polygon has {len(odd)} numbers; expected x, y, x, y, ...")
    return unite([fill_rings([np.array(part).reshape(-1, 2)], size_yx) for part in parts])
