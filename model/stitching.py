"""Tiles out of a mirrored image, outputs back into one plane (Ronneberger et al. 2015, section 2 and figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.errors import InferenceFailed, NonFiniteOutput
from model.normalization import FittedNormalization
from model.pixels import Pixels
from model.tiling import Span, Tile, TilePlan
from model.views import MeanOfViews, ViewPlan

Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""A net: normalised tiles (b, c, y, x) -> outputs (b, c', y - shrink, x - shrink), float32."""

Reduce: TypeAlias = Callable[[NDArray[np.float32]], NDArray[Any]]
"""What is kept of one tile's output (c, y, x): an array (..., y, x), computed from each pixel alone."""


def reflect_indices(span: Span, size: int) -> NDArray[np.intp]:
    """Return indices into an axis of ``size`` pixels for ``span``, mirrored beyond both ends as often as needed.

    The same as ``numpy.pad(mode="reflect")``: the border pixel itself is not repeated (test:
    ``test_mirrored_reading_equals_numpy_pad``).
    """
    if size == 1:
        return np.zeros(len(span), dtype=np.intp)
    period = 2 * (size - 1)
    position = np.arange(span.start, span.stop, dtype=np.intp) % period
    return np.where(position < size, position, period - position)


def read_tile(image_yxc: Pixels, tile: Tile, normalization: FittedNormalization) -> NDArray[np.float32]:
    """Normalised input (c, y, x) of one tile; only the tile is ever copied, never the padded image."""
    indexes = [
        None if 0 <= span.start and span.stop <= size else reflect_indices(span, size)
        for span, size in zip((tile.read.y, tile.read.x), image_yxc.shape[:2], strict=True)
    ]
    # the smallest part of the image that holds the tile; mirroring is then done within it
    rows, columns = (
        span.slice if index is None else slice(int(index.min()), int(index.max()) + 1)
        for span, index in zip((tile.read.y, tile.read.x), indexes, strict=True)
    )
    region = image_yxc[rows, columns]
    for axis, (part, index) in enumerate(zip((rows, columns), indexes, strict=True)):
        if index is not None:
            region = region.take(index - part.start, axis=axis)
    return normalization.apply(region)


class Stitcher:
    """Receives each tile's output once and puts what is kept of its crop where it belongs.

    Parameters
    ----------
    kept
        Planes (..., y, x) of any dtype, each with what goes there of an output (c, y, x).

    """

    def __init__(self, *kept: tuple[Pixels, Reduce]) -> None:
        self._kept = kept

    def write(self, tile: Tile, output_cyx: NDArray[np.float32]) -> None:
        """Write one tile's output (c, y, x).

        Raises
        ------
        InferenceFailed
            Where the output is smaller than the tile promises.
        NonFiniteOutput
            Where it is not finite.

        """
        if output_cyx.shape[-2] < tile.crop.y.stop or output_cyx.shape[-1] < tile.crop.x.stop:
            raise InferenceFailed(
                f"the net returned {output_cyx.shape[-2]} x {output_cyx.shape[-1]} px for a tile that needs at least "
                f"{tile.crop.y.stop} x {tile.crop.x.stop} px; the package declares a wrong output size"
            )
        cropped = output_cyx[(slice(None), *tile.crop.slices)]
        if not np.isfinite(cropped).all():
            raise NonFiniteOutput("the net returned NaN or infinity; try another backend or fp32 weights")
        for plane, reduce in self._kept:
            plane[(..., *tile.write.slices)] = reduce(cropped)

    def repeat(self, done: Tile, tile: Tile) -> bool:
        """Write for a tile what was written for another with the same input; False where that is not enough."""
        height, width = tile.write.shape_yx
        (y, x), (done_y, done_x) = ((each.crop.y.start, each.crop.x.start) for each in (tile, done))
        if (y, x) != (done_y, done_x) or height > len(done.write.y) or width > len(done.write.x):
            return False
        top, left = done.write.y.start, done.write.x.start
        for plane, _ in self._kept:
            plane[(..., *tile.write.slices)] = plane[..., top : top + height, left : left + width]
        return True


def predict_tiled(
    image_yxc: NDArray[Any],
    normalization: FittedNormalization,
    plan: TilePlan | ViewPlan,
    run: Run,
    batch: int = 1,
) -> NDArray[np.float32]:
    """Run a net over one image tile by tile, as the service does, and return its whole output.

    Parameters
    ----------
    image_yxc
        The image (y, x, c), any real dtype.
    normalization
        The package's rule, fitted to this image.
    plan
        How to cut it, for one view or several; every plan for the same views gives the same result.
    run
        The net.
    batch
        Tiles a call.

    Returns
    -------
    NDArray[np.float32]
        (c', y, x), the size of the image.

    """
    cut = plan if isinstance(plan, ViewPlan) else ViewPlan(plan, plan.geometry)
    plane: NDArray[np.float32] | None = None

    def write(tile: Tile, output_cyx: NDArray[np.float32]) -> None:
        nonlocal plane
        if plane is None:
            plane = np.empty((len(output_cyx), *cut.tiles.size_yx), dtype=np.float32)
        Stitcher((plane, lambda output_cyx: output_cyx)).write(tile, output_cyx)

    mean = MeanOfViews(cut.views, write)
    parts = iter(cut)
    while group := list(islice(parts, batch)):
        inputs = np.stack([view.of(read_tile(image_yxc, tile, normalization)) for tile, view in group])
        for part, output_cyx in zip(group, run(inputs), strict=True):
            mean.write(part, output_cyx)
    if plane is None:
        raise InferenceFailed(f"the plan for {cut.tiles.size_yx} has no tiles")
    return plane


def read_tiles(
    image_yxc: NDArray[Any], tiles: Sequence[Tile], normalization: FittedNormalization
) -> NDArray[np.float32]:
    """Normalised inputs (b, c, y, x) of several tiles of one shape."""
    return np.stack([read_tile(image_yxc, tile, normalization) for tile in tiles])
