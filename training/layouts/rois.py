"""Layout ``rois``: for each image the ROIs of ImageJ, ``NAME.zip`` of the ROI Manager or a single ``NAME.roi``.

Areas count: polygons, freehand and traced outlines, rectangles, ovals, and composites with holes. Coordinates are
pixels from the upper left corner (:mod:`training.layouts.raster`), as ``ij.process.PolygonFiller`` fills them.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import roifile
from numpy.typing import NDArray
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE

from training.errors import DatasetError, MaskMismatch, MissingFile, UnreadableFile
from training.layouts.beside import list_beside, recognise_beside, suspect_beside
from training.layouts.files import require_target
from training.layouts.raster import Patch, fill_oval, fill_rings
from training.layouts.shapes import Shape
from training.layouts.source import Source
from training.options import Data

EXPECTS = "images/NAME.tif, with NAME.zip or NAME.roi (ImageJ) in labels/ or beside it"

_SUFFIXES = (".zip", ".roi")
_OUTLINES = {ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED}
_OVERLAYS = {ROI_SUBTYPE.TEXT, ROI_SUBTYPE.ARROW, ROI_SUBTYPE.IMAGE}


def recognise(folder: Path, data: Data) -> str | None:
    """Say how many images and files there are; None where one kind is missing."""
    return recognise_beside(folder, data, _SUFFIXES, _holds_rois)


def suspect(folder: Path, data: Data) -> str | None:
    """Say what may be meant as ROIs where no layout fits."""
    return suspect_beside(folder, data, _SUFFIXES, _holds_rois)


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List images with their files.

    Raises
    ------
    MissingFile
        Where there is no image, an image has no file, or categories are wanted, which ROIs do not have.
    MaskMismatch
        Where two files share a stem.

    """
    if data.categories is not None:
        raise MissingFile(
            f"data.categories names {data.categories[0]!r}, but ROIs of ImageJ have no categories: {folder} has layout "
            "rois. Leave data.categories out, or give the shapes as GeoJSON or COCO"
        )
    return list_beside(folder, data, wanted, _SUFFIXES, reader=lambda _: read_shapes, holds_shapes=_holds_rois)


def read_shapes(path: Path, size_yx: tuple[int, int]) -> list[Shape]:
    """Read the ROIs of a zip in its order, or a single ROI; an empty zip shows no object.

    Raises
    ------
    UnreadableFile
        Where the file is damaged, holds other files alone, or a ROI that is no area.
    MaskMismatch
        Where a ROI belongs to another slice than the first.

    """
    shapes = []
    for name, content in _members(path):
        where = f"{path}: ROI {name}"
        try:
            roi = roifile.ImagejRoi.frombytes(content)
            _require_area(roi, where)
            patch = _fill(roi, size_yx)
        except DatasetError:
            raise
        except Exception as error:  # damaged ROIs fail with every kind of exception
            raise UnreadableFile(f"{where} cannot be read: {error}; save it again with the ROI Manager") from error
        shapes.append(Shape(f"ROI {name}", patch))
    if not shapes and not _is_empty(path):
        raise UnreadableFile(f"{path} holds files, but no ROI; expected .roi files, or an empty zip for no objects")
    return shapes


def _holds_rois(path: Path) -> bool:
    """Whether a file is meant as ROIs: a zip of other files is not, an empty or a damaged one is."""
    if path.suffix.lower() == ".roi":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in _files(archive)]
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile):
        return True  # reading it says what is wrong
    return not names or any(name.lower().endswith(".roi") for name in names)


def _is_empty(path: Path) -> bool:
    """Whether a zip holds nothing, or an empty folder."""
    with zipfile.ZipFile(path) as archive:
        return not _files(archive)


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files in a zip; hidden ones, and those that macOS adds to each file, do not count."""
    files = [(entry, PurePosixPath(entry.filename)) for entry in archive.infolist() if not entry.is_dir()]
    return [entry for entry, name in files if "__MACOSX" not in name.parts and not name.name.startswith(".")]


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each ROI."""
    require_target(path)
    try:
        if path.suffix.lower() == ".roi":
            yield path.stem, path.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for entry in _files(archive):
                if entry.filename.lower().endswith(".roi"):
                    yield entry.filename[:-4], archive.read(entry)
    except Exception as error:  # so do damaged zips
        reason = error or type(error).__name__
        raise UnreadableFile(f"{path} cannot be read as a zip of ROIs: {reason}; save it again") from error


def _require_area(roi: roifile.ImagejRoi, where: str) -> None:
    """Refuse what has no area, what roifile gives knots of instead of outlines, and other slices."""
    is_area = roi.roitype in _OUTLINES | {ROI_TYPE.RECT, ROI_TYPE.OVAL} and roi.subtype not in _OVERLAYS
    if not is_area:
        what = roi.subtype if roi.subtype in _OVERLAYS else roi.roitype
        raise UnreadableFile(
            f"{where} is of type {what.name}; expected an area: polygon, freehand, traced, rectangle, oval or "
            "composite. Take it away, or draw the object's area"
        )
    if roi.options & ROI_OPTIONS.SPLINE_FIT or (roi.roitype == ROI_TYPE.RECT and roi.rounded_rect_arc_size):
        raise UnreadableFile(
            f"{where} is a spline or a rounded rectangle; expected its outline. In ImageJ: Edit > Selection > "
            "Interpolate, then update the ROI"
        )
    positions = (roi.position, roi.z_position, roi.t_position)
    if max(positions) > 1:
        raise MaskMismatch(
            f"{where} lies in slice {max(positions)} of a stack; expected the only slice of an image. Save the ROIs of "
            "each slice with its own image"
        )


def _fill(roi: roifile.ImagejRoi, size_yx: tuple[int, int]) -> Patch:
    if roi.roitype in {ROI_TYPE.RECT, ROI_TYPE.OVAL} and not roi.composite:
        left, top, width, height = (
            (roi.xd, roi.yd, roi.widthd, roi.heightd)
            if roi.subpixelrect
            else (roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top)
        )
        if roi.roitype == ROI_TYPE.OVAL:
            return fill_oval(left, top, width, height, size_yx)
        corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
        return fill_rings([np.array(corners, dtype=np.float64)], size_yx)
    rings: list[NDArray[np.float64]] = [np.asarray(ring, dtype=np.float64) for ring in roi.coordinates(multi=True)]
    if not rings or any(len(ring) < 3 or not np.isfinite(ring).all() for ring in rings):
        raise ValueError(f"it has rings of {[len(ring) for ring in rings]} corners, or corners that are no numbers")
    return fill_rings(rings, size_yx)
