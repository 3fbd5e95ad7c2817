"""ImageJ's ROI zip: one ``.roi`` per object, as the ROI Manager opens it.

An object of one ring is a polygon; one with holes or several parts is a composite (``ij.gui.ShapeRoi``), its path kept
as floats. Integer coordinates in the file are signed 16 bit, so outlines that go beyond 32,767 are written with
sub-pixel (float) coordinates, exact up to 2**24.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np
import roifile
from numpy.typing import NDArray

from service.formats.encoder import NO_PROBABILITIES, Encoder
from service.formats.geojson import grouped
from service.formats.outlines import Region
from service.formats.result import SegmentationResult

MAX_INTEGER_COORDINATE = 32_767
MOVE_TO, LINE_TO, CLOSE = 0.0, 1.0, 4.0  # java.awt.geom.PathIterator


class RoiZipEncoder(Encoder):
    """Writes the zip that the module describes."""

    name = "rois"
    media_type = "application/zip"
    extension = ".zip"
    kinds = frozenset({"mask", "labels"})
    refusal = f"rois {NO_PROBABILITIES}"
    outlined = of_edges = True

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write all planes of a mask or of labels; names tell class, number and plane.

        Raises
        ------
        UnsupportedOutput
            ``result`` holds probabilities.
        """
        self.check_kind(result.kind)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, roi in _rois(result):
                # ZipInfo without a date: the same result gives the same bytes.
                archive.writestr(zipfile.ZipInfo(f"{name}.roi"), roi.tobytes(), zipfile.ZIP_DEFLATED)


def _rois(result: SegmentationResult) -> Iterator[tuple[str, roifile.ImagejRoi]]:
    for plane in range(len(result.planes)):
        where = dict(zip(result.stack_axes, result.plane_index(plane), strict=True))
        prefix = "".join(f"{axis.lower()}{index + 1:04d}-" for axis, index in where.items())
        for number, (label, parts) in enumerate(grouped(result, plane), start=1):
            class_index, number_in_name = (label, number) if result.kind == "mask" else (1, result.number(plane, label))
            class_name = result.classes[class_index] if class_index < len(result.classes) else f"class{class_index}"
            # Slashes would make folders.
            name = f"{prefix}{class_name.replace('/', '_')}-{number_in_name:05d}"
            roi = _roi(parts)
            roi.name = name
            roi.z_position = where.get("Z", -1) + 1
            roi.t_position = where.get("T", -1) + 1
            if where and not set(where) <= {"T", "Z"}:
                roi.position = plane + 1
            yield name, roi


def _roi(parts: list[Region]) -> roifile.ImagejRoi:
    rings = [ring for part in parts for ring in part.rings_xy]
    everything = np.concatenate(rings)
    left, top = everything.min(axis=0).tolist()
    right, bottom = everything.max(axis=0).tolist()
    if len(rings) == 1:
        large = int(everything.max()) > MAX_INTEGER_COORDINATE
        roi = roifile.ImagejRoi.frompoints(everything.astype(np.float32) if large else everything)
        roi.roitype = roifile.ROI_TYPE.POLYGON
        roi.right, roi.bottom = right, bottom  # roifile adds a pixel to what ImageJ writes
        return roi
    path = np.concatenate([_path(ring) for ring in rings])
    return roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.RECT,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        shape_roi_size=len(path),
        multi_coordinates=path,
    )


def _path(ring_xy: NDArray[np.int64]) -> NDArray[np.float32]:
    """One closed ring as a path: operation, x, y for each corner, and the operation that closes it."""
    steps = np.empty((len(ring_xy), 3), dtype=np.float32)
    steps[:, 0] = LINE_TO
    steps[0, 0] = MOVE_TO
    steps[:, 1:] = ring_xy
    return np.concatenate((steps.reshape(-1), np.array([CLOSE], dtype=np.float32)))
