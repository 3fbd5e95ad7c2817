"""A COCO document, held to its types, and what ``iscrowd`` stands for in it.

COCO marks by ``iscrowd`` what nobody has parted into objects. CVAT (by datumaro, its exporter) marks every ellipse and
every brush mask so, each of which is one object, and the service each class of a mask.
Format: cocodataset.org, "Data format", object detection.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import parse_qs

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter

from model.wording import counted
from training.errors import NothingToLearn
from training.layouts.documents import Entry, hold, parse_json
from training.layouts.source import tell_once
from training.options import Data

FEWEST_NUMBERS = 6
"""Of a polygon: three corners x, y."""

_LOCAL_FILES = "/data/local-files/?"
"""What Label Studio puts before the name of an image in a folder of its own machine."""


def _as_text(number: object) -> object:
    """1, 1.0 and "1" are one id."""
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return str(number) if isinstance(number, int) else number


def _known(size: object) -> object:
    return size or None  # 0 stands for a size that nobody knew


def _outlined(segmentation: object) -> object:
    if segmentation is None or segmentation == []:
        raise ValueError(
            "a box alone does not say which pixels are the object's; expected polygons or run lengths. Annotate "
            "outlines, or take the annotation away"
        )
    return segmentation


Id = Annotated[str, BeforeValidator(_as_text)]
_Side = Annotated[int | None, BeforeValidator(_known)]


class RunLengths(Entry):
    """Lengths of runs, background first, and the (height, width) in pixels that they fill."""

    size: tuple[int, int]
    counts: list[Annotated[int, Field(ge=0)]] | str


class Image(Entry):
    """``height`` and ``width`` in pixels; None where the file does not know them."""

    id: Id
    file_name: Annotated[str, Field(min_length=1)]
    height: _Side = None
    width: _Side = None

    @property
    def path(self) -> PurePosixPath:
        """Path of the image, as the file names it."""
        _, local, query = self.file_name.partition(_LOCAL_FILES)
        named = parse_qs(query).get("d") if local else None
        return PurePosixPath((named or [self.file_name])[0].replace("\\", "/"))


class Annotation(Entry):
    """``segmentation``: run lengths, or polygons x, y, x, y, ... in pixels."""

    id: Id | None = None
    image_id: Id
    category_id: Id | None = None
    segmentation: Annotated[
        Annotated[list[list[float]], Tag("polygons")] | Annotated[RunLengths, Tag("run lengths")],
        Discriminator(lambda value: "polygons" if isinstance(value, list) else "run lengths"),
        BeforeValidator(_outlined),
    ] = Field(default=None, validate_default=True)
    iscrowd: Annotated[bool, BeforeValidator(lambda value: value or False)] = False
    attributes: object = None

    @property
    def stray_parts(self) -> int:
        """Number of polygons beside others that have fewer than three corners, and enclose nothing."""
        parts = self.segmentation if isinstance(self.segmentation, list) else []
        stray = sum(len(corners) < FEWEST_NUMBERS for corners in parts)
        return stray if stray < len(parts) else 0


class Category(Entry):
    """A class of objects."""

    id: Id
    name: str


class Document(Entry):
    """Images, annotations and categories of a file."""

    images: Annotated[list[Image], Field(min_length=1)]
    annotations: list[Annotation]
    categories: tuple[Category, ...] = ()
    info: object = None

    @property
    def is_of_cvat(self) -> bool:
        """Whether all says that CVAT wrote it: it says of each annotation whether it is occluded, of itself nothing."""
        silent = not self.info or (isinstance(self.info, dict) and not any(self.info.values()))
        return silent and all(
            isinstance(annotation.attributes, dict) and "occluded" in annotation.attributes
            for annotation in self.annotations
        )


_DOCUMENT = TypeAdapter(Document)


def read_document(path: Path) -> Document:
    """Read a COCO file; the log counts stray parts of polygons, and names the first annotation that has one.

    Raises
    ------
    UnreadableFile
        Where the file is not JSON, or no COCO.

    """
    document = hold(parse_json(path), _DOCUMENT, path)
    stray = [annotation for annotation in document.annotations if annotation.stray_parts]
    if stray:
        parts = sum(annotation.stray_parts for annotation in stray)
        names = {image.id: image.file_name for image in document.images}
        tell_once(
            logging.WARNING,
            f"{path}: left out, of fewer than 3 corners: {counted(parts, 'polygon')} in "
            f"{counted(len(stray), 'annotation')}; the first is in annotation {stray[0].id} of "
            f"{names.get(stray[0].image_id, 'no image')}",
        )
    return document


def role_of_crowds(path: Path, document: Document, data: Data) -> Literal["object", "unknown"]:
    """What annotations with ``iscrowd`` count as, which the log tells: ``data.crowd``, or what the file shows.

    ``auto`` takes them as objects where all says that CVAT wrote the file, and for classes where there are no others.

    Raises
    ------
    NothingToLearn
        Where all annotations would be ignored.

    """
    crowds, count = sum(annotation.iscrowd for annotation in document.annotations), len(document.annotations)
    if not crowds:
        return "object"
    said = f"{path}: {crowds} of {count} annotations are iscrowd"
    classes_alone = data.kind == "semantic" and crowds == count
    if data.crowd == "object" or (data.crowd == "auto" and classes_alone):
        tell_once(logging.INFO, f"{said}: taken as {'classes' if data.kind == 'semantic' else 'objects'}")
        return "object"
    if data.crowd == "auto" and document.is_of_cvat:
        tell_once(
            logging.WARNING,
            f"{said}: taken as objects, for CVAT wrote the file, and writes ellipses and brush masks so. Where they "
            f"are groups of objects: {_set_crowd('ignore')}",
        )
        return "object"
    if crowds == count:
        raise NothingToLearn(
            f"{said}, groups that nobody has parted into objects: nothing is left to learn. Where each is one object, "
            f"as CVAT writes ellipses and brush masks: {_set_crowd('object')}. Where each is a class, as the service "
            "writes masks, set data.kind to semantic, too"
        )
    if data.crowd == "auto":
        tell_once(
            logging.WARNING,
            f"{said}: taken as not annotated, as COCO has it. CVAT writes ellipses and brush masks so: where each is "
            f"one object, {_set_crowd('object')}",
        )
    else:
        tell_once(logging.INFO, f"{said}: taken as not annotated")
    return "unknown"


def _set_crowd(value: str) -> str:
    return f"set data.crowd (in the recipe, or --set data.crowd={value})"
