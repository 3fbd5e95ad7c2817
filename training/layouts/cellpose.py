"""Masks in Cellpose's own files, ``NAME_seg.npy``: a pickled dict of arrays, of which ``masks`` is read.

A pickle can run any code, and a forged array can point anywhere in memory. So nothing that the file names is looked up
or handed to numpy: plain classes stand in for the array and its dtype, and keep what the pickle says of them. Numbers
are made of the bytes of ``masks`` alone, where its dtype is one of whole numbers.
Format: cellpose.readthedocs.io, "Outputs".
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from training.errors import UnreadableFile
from training.layouts.files import named_when_damaged

_WHOLE = re.compile("b1|[iu][1248]")
_ORDERS = ("<", ">", "|", "=")
_REMEDY = "Open the image in Cellpose, save its masks by File, Save masks as PNG/tif, and take this file away"


class _Inert:
    """Takes whatever a pickle gives, and keeps nothing."""

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None: ...


class _Dtype(_Inert):
    order = ""

    def __init__(self, code: str = "", *_flags: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array(_Inert):
    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, self.shape, self.dtype, self.by_columns, self.content = state


_STAND_INS: dict[str, type[_Inert]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _Inert,
    "numpy._core.multiarray.scalar": _Inert,
    "pathlib.PosixPath": _Inert,  # of the image, where Cellpose was called with one
    "pathlib.WindowsPath": _Inert,
    "pathlib._local.PosixPath": _Inert,  # Python 3.13
    "pathlib._local.WindowsPath": _Inert,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        stand_in = _STAND_INS.get(f"{module}.{name}")
        if stand_in is None:
            raise ValueError(f"it asks for {module}.{name}, which is no part of an array and was not run")
        return stand_in


def read_masks(path: Path) -> NDArray[Any]:
    """Read ``masks``, whole numbers of the file's dtype: (y, x), or (z, y, x) of a volume.

    Raises
    ------
    UnreadableFile
        Where the file is damaged, holds something else, or asks for anything but arrays.

    """
    with named_when_damaged(path), path.open("rb") as file:
        try:
            npy.read_magic(file)
            npy.read_array_header_1_0(file)
            masks = _Unpickler(file).load().content[0]["masks"]
            if not (_WHOLE.fullmatch(masks.dtype.code) and masks.dtype.order in _ORDERS):
                raise ValueError(f"masks are of type {masks.dtype.code!r}; expected whole numbers")
            flat = np.frombuffer(masks.content, np.dtype(masks.dtype.code).newbyteorder(masks.dtype.order))
            return flat.reshape(masks.shape, order="F" if masks.by_columns else "C")
        except Exception as error:  # a pickle may hold anything anywhere
            raise UnreadableFile(
                f"{path} cannot be read as Cellpose's: {error or type(error).__name__}. {_REMEDY}"
            ) from error
