"""Results in OME-Zarr: label images of NGFF 0.4 and 0.5, written a few chunks at a time from the answer's ``.npy``.

Each is a store of its own, of the format and the resolutions of its source. Lower resolutions are the nearest pixels of
the full one: numbers of objects have no mean.

Source: https://ngff.openmicroscopy.org/0.5 and 0.4, section "labels".
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from model.atomic import put, remove
from service.batch.ome_zarr import stem_of
from service.batch.targets import OME_ZARR, BadTarget, Work
from service.batch.zarr_copy import ONE_AT_A_TIME, blocks, letting_go
from service.batch.zarr_grids import Grids, grids_of, nearest, source_in
from service.batch.zarr_metadata import attributes_if_readable
from service.formats import UnsupportedOutput

ANSWER_FORMAT = "npy"
"""In which the engine, or a server, answers what is written here."""
_CHUNK_PX = 512
"""Height and width of a chunk, which has one plane."""
_COMPRESSORS: Mapping[int, Any] = {
    2: {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1, "blocksize": 0},
    3: {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 5, "shuffle": "shuffle", "blocksize": 0}},
}
"""By version of Zarr, as its metadata have it."""


def check_writable(output: str) -> None:
    """Refuse what can never be written.

    Raises
    ------
    UnsupportedOutput
        Where it is no label image, or ``zarr`` is not installed.

    """
    if output == "probabilities":
        raise UnsupportedOutput(
            f"format {OME_ZARR} holds label images, not probabilities; ask for output=mask or labels, or for "
            "format=tiff or npy"
        )
    try:
        import zarr  # noqa: F401 - whether it is there
    except ImportError as error:
        raise UnsupportedOutput(
            f"format {OME_ZARR} takes a library that is not installed; pip install zarr, or ask for format=tiff"
        ) from error


def as_store(
    work: Work, answer: Path, receipt: Mapping[str, Any], closed: Callable[[], bool]
) -> tuple[Path, Mapping[str, Any]]:
    """Write the store of a result beside its answer, in ``.npy``; gives where it is, and the receipt of the store.

    Raises
    ------
    OSError
        Where it cannot be written.
    CancelledError
        Where nobody wants it any more.

    """
    store = answer.with_name(f"{answer.name}.store")
    with answer.open("rb") as file:
        return store, _write(file, store, work, receipt, closed)


def write_alone(work: Work, answer: IO[bytes], receipt: Mapping[str, Any]) -> None:
    """Write a store without a ledger so that it is there whole or not at all; missing folders are made.

    Raises
    ------
    OSError
        Where it cannot be written.

    """
    part = work.target.with_name(f".{work.target.name}.{secrets.token_hex(4)}")
    try:
        _write(answer, part, work, receipt, closed=lambda: False)
        put(work.target, part)
    finally:
        remove(part)


def check_alone(target: Path) -> None:
    """Refuse to replace what is no label image: stores may take days to make, and hold what nobody made here.

    Raises
    ------
    BadTarget
        Where it is none.

    """
    if os.path.lexists(target) and "image-label" not in (attributes_if_readable(target) or {}):
        raise BadTarget(f"{str(target)!r} is there, and is no label image in OME-Zarr; move it, or choose another -o")


def _write(
    answer: IO[bytes], store: Path, work: Work, receipt: Mapping[str, Any], closed: Callable[[], bool]
) -> Mapping[str, Any]:
    import zarr

    pixels = _Answer(answer)
    grids = grids_of(work.source, receipt, pixels.shape)
    receipt = {**receipt, "output": {**receipt["output"], "format": OME_ZARR}}
    version = grids.zarr_format
    with ONE_AT_A_TIME:
        group = zarr.open_group(store, mode="w", zarr_format=version)
        group.attrs.update(_attributes(grids, work) | {"unet_receipt": receipt})
    for number, grid in enumerate(grids.levels):
        with ONE_AT_A_TIME:
            array = group.create_array(
                str(number),
                shape=grid.shape,
                dtype=pixels.dtype,
                chunks=(1,) * (len(grid.shape) - 2) + tuple(min(length, _CHUNK_PX) for length in grid.shape[-2:]),
                compressors=_COMPRESSORS[version],
                fill_value=0,
                chunk_key_encoding={"name": "v2" if version == 2 else "default", "separator": "/"},
                dimension_names=list(grids.axes) if version == 3 else None,
            )
        along = [nearest(full, length) for full, length in zip(grids.levels[0].shape, grid.shape, strict=True)]
        for block in blocks(grid.shape, array.chunks, pixels.dtype.itemsize):
            if closed():
                raise CancelledError
            part = pixels.read([indexes[at] for indexes, at in zip(along, block, strict=True)], grids.order)
            with ONE_AT_A_TIME, letting_go():
                array[block] = part
    return receipt


def _attributes(grids: Grids, work: Work) -> dict[str, Any]:
    version, ngff = grids.zarr_format, "0.5" if grids.zarr_format == 3 else "0.4"
    datasets = []
    for number, grid in enumerate(grids.levels):
        transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(grid.scale)}]
        if any(grid.translation):
            transforms.append({"type": "translation", "translation": list(grid.translation)})
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    multiscale = {
        "name": stem_of(work.target),
        "type": "nearest",
        "axes": grids.described(),
        "datasets": datasets,
        **({"version": ngff} if version == 2 else {}),
    }
    label = {"version": ngff, **source_in(work.target, work.source)}
    found = {"multiscales": [multiscale], "image-label": label}
    return {"ome": {"version": ngff, **found}} if version == 3 else found


class _Answer:
    """Pixels of an ``.npy`` file, read as they are asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        np.lib.format.read_magic(file)
        self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
        self._file, self._start = file, file.tell()

    def read(self, along: Sequence[NDArray[np.intp]], order: Sequence[int]) -> NDArray[Any]:
        """Pixels at indexes along each axis, which is the axis of the file that ``order`` says; x is last in both."""
        *above, x = along
        first, after = int(x[0]), int(x[-1]) + 1
        steps = [math.prod(self.shape[axis + 1 :]) for axis in order]
        pixels = np.empty([len(indexes) for indexes in along], self.dtype)
        for at in np.ndindex(pixels.shape[:-1]):
            offset = sum(int(indexes[i]) * step for indexes, i, step in zip(above, at, steps[:-1], strict=True))
            self._file.seek(self._start + (offset + first) * self.dtype.itemsize)
            row = np.frombuffer(self._file.read((after - first) * self.dtype.itemsize), self.dtype)
            pixels[at] = row[x - first]
        return pixels
