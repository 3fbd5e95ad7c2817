"""Files of Zeiss' microscopes (CZI): their scenes as images, and what a copy of one can be made of.

Zeiss' own library reads them, in a process of its own. A scene of a file that has several is called
``slide.czi/scene-2``, as if it lay in a folder; a file with one scene, or without any, is one image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.images import FormatError, UnsupportedImageFormat
from service.batch.copies import Source
from service.batch.czi_process import CziProcess

SUFFIX = ".czi"
_MAGIC = b"ZISRAWFILE"
_SCENE = re.compile(r"scene-([1-9][0-9]{0,8})")
_IN_OME_TIFF = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32", "Bgr24": "uint8", "Bgr48": "uint16"}
"""What types of pixels are copied as; those of colours begin with Bgr."""
_ZSTD1 = "Zstd1"
_COPIED = "tczyx"
_PART_BYTES = 1 << 26
"""Of pixels that are held at once."""
_MOST_SAMPLE_BYTES = 4


def is_czi(image: Path) -> bool:
    """Whether an image is a CZI file by its first bytes, or a scene of one; what cannot be read is none.

    To open a pipe would take until somebody writes to it.
    """
    path = file_of(image)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def file_of(image: Path) -> Path:
    """File that an image is read from: itself, or the one whose scene it is."""
    is_scene = _SCENE.fullmatch(image.name) and image.parent.suffix.lower() == SUFFIX and not image.parent.is_dir()
    return image.parent if is_scene else image


def scenes_in(image: Path) -> list[Path]:
    """Images of a CZI file: its scenes where it has several, else itself.

    It is itself as well where it cannot be read: that shows when it is.
    """
    try:
        with _opened(image) as file:
            scenes = [scene for scene, _ in file.told["scenes"]]
    except (FormatError, OSError):
        scenes = []
    return [image / f"scene-{scene + 1}" for scene in scenes] if len(scenes) > 1 else [image]


def czi_title(image: Path) -> str:
    """Name of an image without suffix: slide_scene-2."""
    file = file_of(image)
    return file.stem if file == image else f"{file.stem}_{image.name}"


@contextmanager
def czi_source(image: Path) -> Iterator[Source]:
    """Open an image as what a copy can be made of; pixels that no part of a mosaic covers are 0.

    Raises
    ------
    UndecodableImage
        Where it is damaged.
    UnsupportedImageFormat
        Where it has other axes or pixels than OME-TIFF has, there is no such scene, or none is named and there are
        several, or ``pylibCZIrw`` is not installed.

    """
    what = _called(file_of(image))
    with _opened(file_of(image)) as file:
        told = file.told
        scene, (left, top, width, height) = _scene(told, image)
        sizes = {name.lower(): length for name, length in told["sizes"].items()}
        others = {name: length for name, length in sizes.items() if name not in _COPIED and length > 1}
        if others:
            found = ", ".join(f"{name.upper()} of {length}" for name, length in others.items())
            raise UnsupportedImageFormat(
                f"{what} has the dimensions {found}, T, C, Z, Y and X are read; split it by these in ZEN"
            )
        if len(told["types"]) != 1 or told["types"][0] not in _IN_OME_TIFF:
            raise UnsupportedImageFormat(
                f"{what} has pixels of the types {', '.join(told['types'])}; what can be read is one of "
                f"{', '.join(_IN_OME_TIFF)} in all channels"
            )
        (kind,) = told["types"]
        if kind == "Bgr48" and _ZSTD1 in told["compressions"]:
            raise UnsupportedImageFormat(
                f"{what} has colours of 16 bits compressed by zstd1, which Zeiss' library reads wrongly; save it "
                "in ZEN without compression, or as OME-TIFF"
            )
        colours = kind.startswith("Bgr")
        if colours and sizes.get("c", 1) > 1:
            raise UnsupportedImageFormat(f"{what} has {sizes['c']} channels of colours, 1 is read; split it in ZEN")
        lengths = sizes | {"y": height, "x": width}
        axes = "".join(axis for axis in _COPIED if axis in "yx" or lengths.get(axis, 1) > 1) + "s" * colours
        shape = tuple({**lengths, "s": 3}[axis] for axis in axes)
        starts = {axis: told["starts"].get(axis, 0) for axis in axes.upper().partition("Y")[0]}
        described = _described(told["metadata"], lengths["c"] if "c" in axes else 0)
        pixels = _Pixels(file, axes, shape, kind, scene, left, top, starts)
        yield Source(what, axes, shape, np.dtype(_IN_OME_TIFF[kind]), described, pixels.parts())


def _called(file: Path) -> str:
    return f"the CZI file {str(file)!r}"


def _opened(file: Path) -> CziProcess:
    if find_spec("pylibCZIrw") is None:
        raise UnsupportedImageFormat(
            f"{_called(file)} takes a library that is not installed; pip install pylibCZIrw, or export it as OME-TIFF "
            "from ZEN"
        )
    return CziProcess(file, _called(file))


def _scene(told: Mapping[str, Any], image: Path) -> tuple[int | None, Sequence[int]]:
    """Number and place of the scene that an image is, or of all that there is where nothing is said of scenes."""
    scenes: dict[int, Sequence[int]] = dict(told["scenes"])
    named = _SCENE.fullmatch(image.name) if file_of(image) != image else None
    wanted = int(named[1]) - 1 if named else next(iter(scenes), None)
    if not named and len(scenes) > 1:
        raise UnsupportedImageFormat(
            f"{str(image)!r} has {len(scenes)} scenes, an image is one; name the file by itself, or a scene as in "
            f"{str(image / 'scene-1')!r}"
        )
    if wanted is None:
        return None, told["place"]
    if wanted not in scenes:
        raise UnsupportedImageFormat(
            f"{str(image)!r} is none of the scenes of the file, which are {', '.join(str(s + 1) for s in scenes)}"
        )
    return wanted, scenes[wanted]


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Of one image."""

    file: CziProcess
    axes: str
    shape: tuple[int, ...]
    kind: str
    scene: int | None
    left: int
    top: int
    """Where the image begins, among all that lie on the stage."""
    starts: Mapping[str, int]
    """Least index along each axis of the stack."""

    def parts(self) -> Iterator[tuple[Sequence[int], Callable[[], NDArray[Any]]]]:
        """Some rows of each plane."""
        y = self.axes.index("y")
        height, *row = self.shape[y:]
        step = max(1, _PART_BYTES // (_MOST_SAMPLE_BYTES * math.prod(row)))
        for index in np.ndindex(*self.shape[:y]):
            for top in range(0, height, step):
                rows = min(step, height - top)
                yield (*index, top, *(0 for _ in row)), partial(self._read, index, top, rows)

    def _read(self, index: tuple[int, ...], top: int, rows: int) -> NDArray[Any]:
        y = self.axes.index("y")
        plane = {axis: start + at for (axis, start), at in zip(self.starts.items(), index, strict=True)}
        roi = (self.left, self.top + top, self.shape[y + 1], rows)
        pixels = np.empty((rows, self.shape[y + 1], 3 if self.axes.endswith("s") else 1), _IN_OME_TIFF[self.kind])
        self.file.read_into(pixels, roi=roi, plane=plane, scene=self.scene, pixel_type=self.kind)
        colours = pixels[..., ::-1] if self.axes.endswith("s") else pixels[..., 0]
        return np.expand_dims(colours, tuple(range(y)))


def _described(metadata: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Size of pixels, time between frames and names of channels, as far as the file tells them."""
    found: dict[str, Any] = {}
    told = _below(metadata, "ImageDocument", "Metadata")
    for distance in _all(_below(told, "Scaling", "Items", "Distance")):
        axis, metres = _below(distance, "@Id"), _number(_below(distance, "Value"))
        if axis in {"X", "Y", "Z"} and metres:
            found |= {f"PhysicalSize{axis}": float(f"{metres * 1e6:.12g}"), f"PhysicalSize{axis}Unit": "µm"}
    dimensions = _below(told, "Information", "Image", "Dimensions")
    if seconds := _number(_below(dimensions, "T", "Positions", "Interval", "Increment")):
        found |= {"TimeIncrement": seconds, "TimeIncrementUnit": "s"}
    names = [_below(channel, "@Name") for channel in _all(_below(dimensions, "Channels", "Channel"))]
    named = [name if isinstance(name, str) else "" for name in [*names, *[""] * channels][:channels]]
    if any(named):
        found["Channel"] = {"Name": named}
    return found


def _below(told: object, *names: str) -> object:
    """What stands in the metadata below these names; None where nothing does."""
    for name in names:
        told = told.get(name) if isinstance(told, Mapping) else None
    return told


def _all(told: object) -> list[object]:
    """Elements of one name: one is no list of its own."""
    return told if isinstance(told, list) else [told]


def _number(told: object) -> float | None:
    try:
        number = float(str(told))
    except ValueError:
        return None
    return number if 0 < number < math.inf else None
