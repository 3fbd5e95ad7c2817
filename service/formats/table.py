"""CSV (RFC 4180, lines end in LF): one row for each object of every plane, for a spreadsheet or statistics.

Positions are those of pixel centres, counted from 0 at the upper left; planes count from 0 in the order of the stack.
``bbox`` is COCO's. Areas and places are summed from horizontal runs, band by band, into tables of objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from model.pixels import BAND_PX, Pixels, row_bands
from service.formats.encoder import Encoder
from service.formats.result import SegmentationResult
from service.formats.runs import flat_nonzero

COLUMNS = (
    "label",
    "plane",
    "y",
    "x",
    "area_px",
    "area_um2",
    "score",
    "bbox_left",
    "bbox_top",
    "bbox_width",
    "bbox_height",
)
_ROWS_AT_ONCE = 4096
_SIDES = np.iinfo(np.int32)


class CsvEncoder(Encoder):
    """Writes the table that the module describes."""

    name = "csv"
    media_type = "text/csv"
    extension = ".csv"
    kinds = frozenset({"labels"})
    refusal = "csv has a row for each numbered object, output={kind} has none; ask for output=labels"
    object_bytes = 160  # at most: its line, and its entries in the tables of the plane that is being written

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write all planes of labels; the receipt has no room in this format.

        Raises
        ------
        UnsupportedOutput
            ``result`` holds no numbered objects.
        """
        self.check_kind(result.kind)
        target.write(",".join(COLUMNS).encode("ascii") + b"\n")
        for plane, labels_yx in enumerate(result.planes):
            table = measure(labels_yx, BAND_PX)
            for rows in row_bands(len(table.area), 1, _ROWS_AT_ONCE):
                target.write("".join(_lines(result, plane, table, rows)).encode("ascii"))


@dataclass(frozen=True, slots=True)
class ObjectTable:
    """What was measured of each label from 1 to n, at index label - 1; of labels that do not occur the area is 0."""

    area: NDArray[np.int64]
    """Pixels."""
    sum_y: NDArray[np.float64]
    """Of the rows of all pixels; ``sum_x`` of the columns. Whole numbers."""
    sum_x: NDArray[np.float64]
    top: NDArray[np.int32]
    """First row, and so on; ``bottom`` and ``right`` belong to the object."""
    bottom: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]


def measure(labels_yx: Pixels, band_px: int) -> ObjectTable:
    """Measure the objects of one plane, about ``band_px`` pixels at a time.

    Parameters
    ----------
    labels_yx
        Unsigned integers (y, x), 0 = background.
    band_px
        Pixels of a band; the result does not depend on it.

    """
    height, width = labels_yx.shape
    bands = list(row_bands(height, width, band_px))
    count = max(int(labels_yx[rows].max()) for rows in bands)
    table = ObjectTable(
        area=np.zeros(count, dtype=np.int64),
        sum_y=np.zeros(count),
        sum_x=np.zeros(count),
        top=np.full(count, _SIDES.max, dtype=np.int32),
        bottom=np.full(count, _SIDES.min, dtype=np.int32),
        left=np.full(count, _SIDES.max, dtype=np.int32),
        right=np.full(count, _SIDES.min, dtype=np.int32),
    )
    for rows in bands:
        _add_band(table, labels_yx[rows], rows.start)
    return table


def _add_band(table: ObjectTable, band: NDArray[np.unsignedinteger], first_row: int) -> None:
    width = band.shape[1]
    begins = np.ones(band.shape, dtype=bool)  # a run ends with its row
    begins[:, 1:] = band[:, 1:] != band[:, :-1]
    starts = flat_nonzero(begins.reshape(-1))
    lengths = np.diff(starts, append=band.size)
    labels = band[starts // width, starts % width]
    objects = labels != 0
    starts, lengths = starts[objects], lengths[objects]
    if not len(starts):
        return
    at = labels[objects].astype(np.int64) - 1
    lowest, highest = int(at.min()), int(at.max())  # labels follow each other in reading order, so these are few
    mine, at = slice(lowest, highest + 1), at - lowest
    y, left = starts // width + first_row, starts % width
    table.area[mine] += np.bincount(at, lengths).astype(np.int64)
    table.sum_y[mine] += np.bincount(at, y * lengths)
    table.sum_x[mine] += np.bincount(at, (2 * left + lengths - 1) * lengths / 2)
    np.minimum.at(table.top[mine], at, y)
    np.maximum.at(table.bottom[mine], at, y)
    np.minimum.at(table.left[mine], at, left)
    np.maximum.at(table.right[mine], at, left + lengths - 1)


def _lines(result: SegmentationResult, plane: int, table: ObjectTable, rows: slice) -> Iterator[str]:
    pixel_um2 = None if result.pixel_size_um is None else result.pixel_size_um[0] * result.pixel_size_um[1]
    columns = (
        column[rows].tolist()
        for column in (table.area, table.sum_y, table.sum_x, table.top, table.bottom, table.left, table.right)
    )
    for index, (area, sum_y, sum_x, top, bottom, left, right) in enumerate(zip(*columns, strict=True), rows.start + 1):
        if not area:
            continue
        area_um2 = "" if pixel_um2 is None else f"{area * pixel_um2:.10g}"
        number, score = result.number(plane, index), result.score(plane, index)
        yield (
            f"{number},{plane},{sum_y / area:.3f},{sum_x / area:.3f},{area},{area_um2},"
            f"{'' if score is None else score},{left},{top},{right - left + 1},{bottom - top + 1}\n"
        )
