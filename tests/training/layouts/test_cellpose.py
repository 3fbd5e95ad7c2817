"""Cellpose's own files: their masks are read, and nothing that a pickle asks for is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.lib import format as npy
from numpy.typing import NDArray

from training.data.datasets import load_images
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.layouts.cellpose import read_masks
from training.options import Data

MASKS: NDArray[np.uint16] = np.repeat(np.arange(4, dtype=np.uint16), 30).reshape(10, 12)


def written(masks: object, **more: object) -> dict[str, object]:
    """What Cellpose writes."""
    return {
        "filename": Path("a.tif"),
        "masks": masks,
        "outlines": MASKS,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(3, dtype=bool),
        "flows": [np.zeros((10, 12, 3), dtype=np.uint8), np.ones((10, 12), dtype=np.float32), [], None],
        "est_diam": np.float64(17),
        **more,
    }


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(content, dtype=object))
    return path


def save_pickle(path: Path, pickled: bytes) -> Path:
    """Put any pickle where numpy puts that of an array of objects."""
    with path.open("wb") as file:
        npy.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64", ">u2", ">i4", "bool"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray, lambda masks: masks[::-1, ::2]])
def test_masks_come_back_value_by_value(
    tmp_path: Path, dtype: str, layout: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    masks = layout(MASKS.astype(dtype))
    read = read_masks(save(tmp_path / "a_seg.npy", written(masks)))
    assert read.dtype == masks.dtype
    np.testing.assert_array_equal(read, masks)


def test_files_of_numpy_1_are_read(tmp_path: Path) -> None:
    """It wrote protocol 3, and the same functions had another name."""
    pickled = pickle.dumps(np.array(written(MASKS), dtype=object), 3)
    older = pickled.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert b"numpy.core.multiarray\n_reconstruct\n" in older
    np.testing.assert_array_equal(read_masks(save_pickle(tmp_path / "a_seg.npy", older)), MASKS)


class Reduced:
    """Pickled as a call, and a state for what it returns."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


CALLS: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
    "posix.mkdir": (os.mkdir, ("ran",)),
    "builtins.eval": (eval, ("open('ran', 'w')",)),
    "builtins.getattr": (getattr, ("ran", "upper")),
    "numpy.load": (np.load, ("ran",)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("place", ["masks", "flows", "further"])
def test_nothing_that_a_pickle_calls_is_run(
    tmp_path: Path, name: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a_seg.npy", written(MASKS) | {place: Reduced(*CALLS[name])})
    with pytest.raises(UnreadableFile, match=rf"it asks for {name}, which .* not run. Open the image in Cellpose"):
        read_masks(path)
    assert [found.name for found in tmp_path.iterdir()] == ["a_seg.npy"]


def forged() -> Reduced:
    """Eight bytes that numpy would take for the address of an object: the dtype's state denies that it holds any."""
    dtype = Reduced(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    make = MASKS.__reduce__()[0]
    return Reduced(make, (np.ndarray, (0,), b"b"), (1, (1,), dtype, False, b"\x41" * 8))


def test_arrays_that_are_forged_to_hold_addresses_are_never_made(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="masks are of type 'O8'; expected whole numbers"):
        read_masks(save(tmp_path / "a_seg.npy", written(forged())))
    read = read_masks(save(tmp_path / "b_seg.npy", written(MASKS, flows=[forged(), forged()])))
    np.testing.assert_array_equal(read, MASKS)


def test_a_pickle_that_changes_the_stand_ins_changes_nothing(tmp_path: Path) -> None:
    """BUILD on a class would set its attributes, and later files be read by them."""
    pickled = b"cnumpy.core.multiarray\nscalar\n(N}X\x08\x00\x00\x00__init__K\x01stb."
    path = save_pickle(tmp_path / "a_seg.npy", pickled)
    with pytest.raises(UnreadableFile, match="cannot be read as Cellpose's"):
        read_masks(path)
    np.testing.assert_array_equal(read_masks(save(path, written(MASKS))), MASKS)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (written(MASKS.astype(np.float32)), "masks are of type 'f4'; expected whole numbers"),
        ({"outlines": MASKS}, "'masks'"),
        (written(None), "'NoneType' object has no attribute 'dtype'"),
        ([1, 2], ""),
    ],
)
def test_files_of_something_else_are_named_with_the_way_out(tmp_path: Path, content: object, said: str) -> None:
    path = save(tmp_path / "a_seg.npy", content)
    expected = f"{path} cannot be read as Cellpose's: .*{said}.*. Open the image in Cellpose, save its masks by File, "
    with pytest.raises(UnreadableFile, match=expected):
        read_masks(path)


@pytest.mark.parametrize("keep", [4, 40, 200, 700])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path / "a_seg.npy", written(MASKS))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UnreadableFile, match=r"a_seg.npy cannot be read as Cellpose's"):
        read_masks(path)


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.npy"
    path.touch()
    with pytest.raises(UnreadableFile, match=r"a_seg.npy is empty \(0 bytes\)"):
        read_masks(path)


def write_image(folder: Path, stem: str = "a") -> None:
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / f"{stem}.tif", np.zeros((10, 12), dtype=np.uint8))


@pytest.mark.parametrize("stem", ["a", "a_img"])
@pytest.mark.parametrize("place", ["images", "."])
def test_a_folder_as_cellpose_leaves_it_is_read(tmp_path: Path, place: str, stem: str) -> None:
    write_image(tmp_path / place, stem)
    save(tmp_path / place / f"{stem}_seg.npy", written(MASKS))
    (image,) = load_images(tmp_path, Data(), 1, 2)
    assert image.stem == "a"
    np.testing.assert_array_equal(image.labels_yx, MASKS)


def test_a_picture_beside_it_has_to_show_the_same(tmp_path: Path) -> None:
    """Cellpose's command line writes both, its window what is corrected to one of them."""
    write_image(tmp_path)
    tifffile.imwrite(tmp_path / "a_cp_masks.tif", MASKS)
    path = save(tmp_path / "a_seg.npy", written(MASKS.astype(np.uint32)))
    (image,) = load_images(tmp_path, Data(), 1, 2)
    np.testing.assert_array_equal(image.labels_yx, MASKS)
    corrected = MASKS.copy()
    corrected[0, 0] = 9
    save(path, written(corrected))
    with pytest.raises(
        MaskMismatch,
        match=r"a_cp_masks.tif and .*a_seg.npy are of .* different masks; .* unless a_cp_masks.tif was .*, remove it",
    ):
        load_images(tmp_path, Data(), 1, 2)


def test_a_file_without_its_image_is_named(tmp_path: Path) -> None:
    for stem in ("a", "b"):
        write_image(tmp_path, stem)
        save(tmp_path / f"{stem}_seg.npy", written(MASKS))
    (tmp_path / "b.tif").unlink()
    with pytest.raises(MissingFile, match=r"1 of 2 masks have no image, .*b_seg.npy is the first"):
        load_images(tmp_path, Data(), 1, 2)


def test_other_npy_files_are_no_masks(tmp_path: Path) -> None:
    write_image(tmp_path)
    tifffile.imwrite(tmp_path / "a_masks.tif", MASKS)
    np.save(tmp_path / "a_flows.npy", MASKS)
    np.save(tmp_path / "a.npy", MASKS)
    assert len(load_images(tmp_path, Data(), 1, 2)) == 1
