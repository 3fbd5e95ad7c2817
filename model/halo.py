"""The context that a padded net needs, measured where its package does not declare it.

A padded ("same") net computes the border of its output from zeros instead of image. A package should say how wide that
border is (``halo``); where it says nothing, tiles cut without one would show seams. So the reach of a change is
measured: one block of the pooling grid is changed in the middle of a noise image, and how far the output changes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.errors import UnsupportedPackage
from model.package import Package
from model.session import InferenceSession
from model.tiling import AxisGeometry, Geometry

_SMALLEST_PX, _LARGEST_PX = 192, 1024


def with_measured_halo(session: InferenceSession, package: Package) -> Package:
    """Return the package with a measured halo, or as it is where it declares its context.

    Raises
    ------
    UnsupportedPackage
        Where the net reaches further than tiles of 1024 px can show, or than its fixed size allows.

    """
    geometry = package.spec.geometry
    if any(axis.shrink or axis.halo for axis in (geometry.y, geometry.x)):
        return package
    reach = _measure(session, len(package.spec.channels), geometry)
    halo_y, halo_x = (math.ceil(reach / axis.grid) * axis.grid for axis in (geometry.y, geometry.x))
    measured = Geometry(_with_halo(geometry.y, halo_y), _with_halo(geometry.x, halo_x))
    return Package(package.path, package.spec.model_copy(update={"geometry": measured}))


def _with_halo(axis: AxisGeometry, halo: int) -> AxisGeometry:
    return AxisGeometry(axis.minimum, axis.step, axis.shrink, halo, axis.grid)


def _measure(session: InferenceSession, channels: int, geometry: Geometry) -> int:
    """Pixels beyond a changed block of the grid at which the output still changes, the larger of both axes."""
    size = _SMALLEST_PX
    while True:
        shape_yx = geometry.y.input_for(size), geometry.x.input_for(size)
        changed, block = _changed(session, channels, shape_yx, (geometry.y.grid, geometry.x.grid))
        if not any(edge.any() for edge in (changed[0], changed[-1], changed[:, 0], changed[:, -1])):
            break
        size *= 2
        if size > _LARGEST_PX or geometry.y.step == 0 or geometry.x.step == 0:
            raise UnsupportedPackage(
                f"the net reaches beyond {min(shape_yx) // 2} px and the package declares no halo: it cannot be tiled "
                "without seams; declare the halo of its output"
            )
    rows, columns = np.nonzero(changed)
    if not rows.size:
        return 0
    top, left = block
    grid_y, grid_x = geometry.y.grid, geometry.x.grid
    return int(
        max(
            0,
            top - rows.min(),
            rows.max() - (top + grid_y - 1),
            left - columns.min(),
            columns.max() - left - grid_x + 1,
        )
    )


def _changed(
    session: InferenceSession, channels: int, shape_yx: tuple[int, int], grid_yx: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Where the output (y, x) changes with one block of the input, and the block's first row and column."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, channels, *shape_yx), dtype=np.float32)
    top, left = (size // 2 // grid * grid for size, grid in zip(shape_yx, grid_yx, strict=True))
    other = image.copy()
    block = (..., slice(top, top + grid_yx[0]), slice(left, left + grid_yx[1]))
    # far outside the range of the noise, so that saturated units move too
    other[block] += 10 * rng.standard_normal(other[block].shape, dtype=np.float32)
    difference = np.abs(session.run(other) - session.run(image)).max(axis=(0, 1))
    changed: NDArray[np.bool_] = difference > 0
    return changed, (top, left)
