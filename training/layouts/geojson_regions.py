"""Which of QuPath's annotations are no objects but regions: what cells were looked for in.

QuPath detects cells within an annotation. It has no class, its image may hold no cell or one, and to its file alone it
looks like an object as large as the image. So all files of a folder tell together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.measure import points_in_poly

from training.errors import DatasetError
from training.layouts.geojson_document import Outline
from training.layouts.geojson_files import Files

_FOUND = ("cell", "detection", "tile")
_FEWEST_FOUND = 2
_FAR_LARGER = 10  # in area than the largest cell: an annotation without any in it that is smaller may be a cell itself


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Areas in square pixels over a folder: of the largest found object, and of the smallest sure region far larger."""

    largest_found: float
    smallest_region: float


class Regions:
    """Tells the regions among the annotations of a folder, once all of its files have been seen.

    Parameters
    ----------
    files
        Reads them.
    paths
        All GeoJSON files of the folder that belong to an image.

    """

    def __init__(self, files: Files, paths: Sequence[Path]) -> None:
        self._files, self._paths = files, paths
        self._largest: dict[Path, float] = {}
        self._sure: dict[Path, list[float]] = {}

    @cached_property
    def _sizes(self) -> _Sizes:
        for path in self._paths:
            if path not in self._largest:
                with suppress(DatasetError):  # reading its shapes says what is wrong
                    outlines = self._files.look(path).outlines
                    self._note(path, outlines, count_found(outlines))
        largest = max(self._largest.values())
        sure = (area for areas in self._sure.values() for area in areas if area > _FAR_LARGER * largest)
        return _Sizes(largest, min(sure, default=math.inf))

    def _note(self, path: Path, outlines: Sequence[Outline], counts: Sequence[int]) -> None:
        """Note the areas of a file's largest found object (0 without any), and of its sure regions."""
        self._largest[path] = max((_area(outline) for outline in outlines if _is_found(outline)), default=0.0)
        self._sure[path] = [
            _area(outline)
            for outline, count in zip(outlines, counts, strict=True)
            if _may_be_region(outline) and count >= _FEWEST_FOUND
        ]

    def among(
        self, path: Path, outlines: Sequence[Outline], found: Sequence[int], shares: Sequence[float]
    ) -> list[bool]:
        """Tell which outlines of a file are regions.

        An annotation without a class is one where it lies around two cells or detections, or more. Where a file of the
        folder has some, one is that fills most of its image, or is far larger than the largest cell and in size nearer
        to the smallest of those regions.

        Parameters
        ----------
        path, outlines, found
            The file, and its outlines with what :func:`count_found` says of them.
        shares
            Share of the image that each of them covers.

        """
        self._note(path, outlines, found)
        return [
            _may_be_region(outline) and (count >= _FEWEST_FOUND or self._looks_like_one(outline, share))
            for outline, count, share in zip(outlines, found, shares, strict=True)
        ]

    def _looks_like_one(self, outline: Outline, share: float) -> bool:
        sizes = self._sizes
        if not sizes.largest_found:
            return False
        area = _area(outline)
        like_them = area**2 > sizes.largest_found * sizes.smallest_region
        return fills(share) or (area > _FAR_LARGER * sizes.largest_found and like_them)


def count_found(outlines: Sequence[Outline]) -> list[int]:
    """Count for each outline the cells, detections and tiles whose centre lies in it; those themselves have none."""
    centres = np.array([_centre(outline) for outline in outlines if _is_found(outline)]).reshape(-1, 2)
    return [0 if outline.kind in _FOUND else _count_inside(centres, outline) for outline in outlines]


def fills(share: float) -> bool:
    """Whether a share of an image is most of it."""
    return share > 1 / 2


def _is_found(outline: Outline) -> bool:
    return outline.kind in _FOUND and outline.role == "object"


def _may_be_region(outline: Outline) -> bool:
    return outline.kind == "annotation" and outline.category is None


def _count_inside(centres_xy: NDArray[np.float64], outline: Outline) -> int:
    corners = np.concatenate([rings[0] for rings in outline.polygons])
    near = centres_xy[((centres_xy >= corners.min(axis=0)) & (centres_xy <= corners.max(axis=0))).all(axis=1)]
    inside = np.zeros(len(near), dtype=bool)
    for rings in outline.polygons if len(near) else ():
        crossings = np.sum([points_in_poly(near, ring) for ring in rings], axis=0)
        inside |= crossings % 2 == 1
    return int(np.count_nonzero(inside))


def _area(outline: Outline) -> float:
    """Square pixels, holes left out."""
    areas = [[abs(_moments(ring)[0]) for ring in rings] for rings in outline.polygons]
    return sum(outer - sum(holes) for outer, *holes in areas)


def _centre(outline: Outline) -> NDArray[np.float64]:
    """Centre x, y of the largest outer ring."""
    ring = max((rings[0] for rings in outline.polygons), key=lambda ring: abs(_moments(ring)[0]))
    area, moment = _moments(ring)
    return moment / area if area else ring.mean(axis=0)


def _moments(ring_xy: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Signed area that a ring encloses, and its first moments x, y; about its first corner they lose no digits."""
    start = ring_xy[0]
    corners = ring_xy - start
    following = np.roll(corners, -1, axis=0)
    crossed = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    area = float(crossed.sum()) / 2
    return area, ((corners + following) * crossed[:, None]).sum(axis=0) / 6 + area * start
