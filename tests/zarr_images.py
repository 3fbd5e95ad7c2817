"""Images in OME-Zarr, as other software writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

UNITS = {"z": "micrometer", "y": "nanometer", "x": "nanometer", "t": "second"}
VERSIONS = pytest.mark.parametrize("version", [2, 3], ids=["zarr2-ngff0.4", "zarr3-ngff0.5"])


def write(
    folder: Path,
    pixels: NDArray[Any],
    axes: str,
    version: int = 3,
    *,
    names: tuple[str, ...] = (),
    chunk: tuple[int, int] = (48, 40),
    units: Mapping[str, str] = UNITS,
    size: float = 325.0,
) -> Path:
    """Write an image with a second level of half its size, as NGFF has it."""
    group = zarr.open_group(folder, mode="w", zarr_format=version)  # type: ignore[arg-type]
    for level in (0, 1):
        at = pixels[..., :: 2**level, :: 2**level]
        array = group.create_array(
            f"s{level}", shape=at.shape, dtype=at.dtype, chunks=(1,) * (at.ndim - 2) + chunk, overwrite=True
        )
        array[...] = at
    scale = [{"t": 5.0, "c": 1.0, "z": 2.5}.get(axis, size) for axis in axes]
    attributes: dict[str, Any] = {
        "multiscales": [
            {
                "axes": [{"name": axis} | ({"unit": units[axis]} if axis in units else {}) for axis in axes],
                "datasets": [
                    {"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
                    for level in (0, 1)
                ],
            }
        ]
    }
    if names:
        attributes["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update({"ome": {"version": "0.5", **attributes}} if version == 3 else attributes)
    return folder


def noise(*shape: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 250, shape).astype(dtype)


def plate(folder: Path, *fields: str) -> Path:
    for field in fields:
        for above in (folder, folder / field.split("/")[0], (folder / field).parent):
            zarr.open_group(above, mode="a", zarr_format=2)
        write(folder / field, noise(1, 60, 70), "cyx", 2)
    return folder
