"""Files of images and masks: images as the service reads them, masks as stored, whatever their size."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model.images import ReadLimits, open_image
from model.images.png_chunks import IHDR, SIGNATURE, checksum, chunk
from training.data.datasets import load_images
from training.data.survey import survey_folder
from training.errors import UnreadableFile
from training.layouts.files import is_one_page, read_array, read_image, read_planes
from training.options import Data

RNG = np.random.default_rng(0)
GREY: NDArray[np.uint8] = RNG.integers(0, 255, (8, 10), dtype=np.uint8)
COLOURS: NDArray[np.uint16] = RNG.integers(0, 65535, (8, 10, 3), dtype=np.uint16)
MASK: NDArray[np.uint8] = np.where(GREY > 99, np.uint8(7), np.uint8(0))


def png(array: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(array))


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def with_palette(indexes_yx: NDArray[np.uint8]) -> bytes:
    file, picture = io.BytesIO(), Image.fromarray(indexes_yx)
    picture.putpalette([value for index in range(256) for value in (255 - index, index, 9)])
    picture.save(file, format="PNG")
    return file.getvalue()


def save(folder: Path, content: bytes, suffix: str, masks: NDArray[Any] = MASK) -> Path:
    for name in ("images", "labels"):
        (folder / name).mkdir()
    (folder / "labels" / "a.png").write_bytes(png(masks))
    path = folder / "images" / f"a{suffix}"
    path.write_bytes(content)
    return path


EXPANDED = np.stack([255 - GREY, GREY, np.full_like(GREY, 9)], axis=-1)
FILES: dict[str, tuple[str, bytes, NDArray[Any]]] = {
    "16 bit colours": (".png", png(COLOURS), COLOURS),
    "grey with alpha": (".png", png(np.stack([GREY, GREY], axis=-1)), GREY[..., np.newaxis]),
    "colours with alpha": (".png", png(np.concatenate([EXPANDED, EXPANDED[..., :1]], axis=-1)), EXPANDED),
    "a palette": (".png", with_palette(GREY), EXPANDED),
    "white is zero": (".tif", tiff(GREY, photometric="miniswhite"), (255 - GREY)[..., np.newaxis]),
    "one bit": (".tif", tiff(GREY > 99, photometric="minisblack"), ((GREY > 99) * np.uint8(255))[..., np.newaxis]),
    "planes of colours": (
        ".tif",
        tiff(np.moveaxis(COLOURS, -1, 0), photometric="rgb", planarconfig="separate"),
        COLOURS,
    ),
    "ImageJ's channels": (
        ".tif",
        tiff(np.moveaxis(COLOURS[..., :2], -1, 0), imagej=True, metadata={"axes": "CYX"}),
        COLOURS[..., :2],
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_an_image_is_what_the_service_reads(tmp_path: Path, kind: str) -> None:
    suffix, content, expected_yxc = FILES[kind]
    path = save(tmp_path, content, suffix)
    channels = expected_yxc.shape[-1]
    (loaded,) = load_images(tmp_path, Data(), channels, 2)
    assert loaded.image_yxc.dtype == expected_yxc.dtype
    np.testing.assert_array_equal(loaded.image_yxc, expected_yxc)
    with path.open("rb") as file, open_image(file, ReadLimits(1 << 20, 1 << 20)) as reader:
        np.testing.assert_array_equal(loaded.image_yxc, reader.read_plane(0))
    assert survey_folder(tmp_path)[0].channels == channels


def test_a_palette_of_a_mask_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(with_palette(GREY))
    np.testing.assert_array_equal(read_array(path), GREY)


def grey_of_bits(numbers_yx: NDArray[np.uint8], depth: int) -> bytes:
    """PNG of less than 8 bits, which no encoder at hand writes."""
    rows = [
        b"\0" + np.packbits(np.unpackbits(row[:, np.newaxis], axis=1)[:, -depth:].ravel()).tobytes()
        for row in numbers_yx
    ]
    height, width = numbers_yx.shape
    header = chunk(b"IHDR", IHDR.pack(width, height, depth, 0, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits_keeps_its_numbers(tmp_path: Path, depth: int) -> None:
    numbers = (np.arange(33) % 2**depth).astype(np.uint8).reshape(3, 11)
    path = tmp_path / "a.png"
    path.write_bytes(grey_of_bits(numbers, depth))
    np.testing.assert_array_equal(read_array(path), numbers)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("lone", [1, 2])
def test_axes_of_length_1_are_left_out(tmp_path: Path, axis: int, lone: int) -> None:
    path, mask = tmp_path / "a.tif", MASK[:1]
    path.write_bytes(tiff(np.expand_dims(mask, tuple(axis - at if axis else at for at in range(lone)))))
    np.testing.assert_array_equal(read_array(path), mask)


def test_a_mask_of_an_ome_set_is_its_own_pages(tmp_path: Path) -> None:
    names = ["a_t0.ome.tif", "a_t1.ome.tif"]
    parts = "".join(
        f'<TiffData FirstT="{time}" IFD="0" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{time}</UUID></TiffData>'
        for time, name in enumerate(names)
    )
    for time, name in enumerate(names):
        pixels = 'DimensionOrder="XYZCT" Type="uint8" SizeX="10" SizeY="8" SizeZ="1" SizeC="1" SizeT="2"'
        document = f'<OME UUID="urn:uuid:{time}"><Image ID="Image:0"><Pixels {pixels}>{parts}</Pixels></Image></OME>'
        tifffile.imwrite(tmp_path / name, MASK + np.uint8(time), description=document, metadata=None)
    assert tifffile.imread(tmp_path / names[0]).shape == (2, 8, 10)
    for time, name in enumerate(names):
        np.testing.assert_array_equal(read_array(tmp_path / name), MASK + np.uint8(time))
        assert is_one_page(tmp_path / name)


def test_a_mask_of_a_single_ome_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    path.write_bytes(tiff(MASK[np.newaxis, np.newaxis], ome=True, metadata={"axes": "TCYX"}))
    np.testing.assert_array_equal(read_array(path), MASK)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.png", tiff(MASK), ".tif"),
        ("a.tif", png(MASK), ".png"),
        ("a.PNG", b"\xff\xd8\xff\xe0", ".jpg"),
        ("a.png", b"BM", ".bmp"),
    ],
)
def test_a_mask_of_another_kind_than_its_suffix_is_named(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableFile) as caught:
        read_array(path)
    assert str(caught.value) == (
        f"{path} is a file of the kind {kind}, its suffix is {path.suffix}; expected one that fits. Write the mask "
        f"again as {path.suffix.lower()}, or rename it where it is one of .png, .tif, .tiff"
    )


def test_what_the_reader_refuses_is_named_with_its_reason(tmp_path: Path) -> None:
    path = save(tmp_path, tiff(np.zeros((8, 10, 4), dtype=np.uint8), photometric="separated"), ".tif")
    with pytest.raises(UnreadableFile) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path} cannot be read: the colour model SEPARATED is not supported; write the image as grey or RGB"
    )


@pytest.mark.parametrize("masks", [".png", ".tif"])
def test_a_stack_beside_plain_masks_is_named_with_its_axes(tmp_path: Path, masks: str) -> None:
    path = save(tmp_path, tiff(COLOURS[..., :2]), ".tif")  # tifffile takes (y, x, 2) for pages
    if masks == ".tif":
        (tmp_path / "labels" / "a.png").unlink()
        (tmp_path / "labels" / "a.tif").write_bytes(tiff(MASK))
    with pytest.raises(UnreadableFile, match=r"a.tif is a stack with the axes I \(8,\), .*'axes': 'CYX'"):
        load_images(tmp_path, Data(), 2, 2)
    path.write_bytes(tiff(np.moveaxis(COLOURS[..., :2], -1, 0), metadata={"axes": "CYX"}))
    np.testing.assert_array_equal(load_images(tmp_path, Data(), 2, 2)[0].image_yxc, COLOURS[..., :2])


def test_a_camera_s_damaged_exif_is_no_damaged_image(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x0e\x01\x02\0\x40\0\0\0\xff\0\0\0"  # it ends within an entry
    file = io.BytesIO()
    Image.fromarray(np.full((8, 10), 99, dtype=np.uint8)).save(file, format="JPEG", exif=exif)
    save(tmp_path, file.getvalue(), ".jpg")
    (loaded,) = load_images(tmp_path, Data(), 1, 2)
    assert set(loaded.image_yxc.ravel().tolist()) == {99}


def test_a_stack_is_read_into_its_own_memory(tmp_path: Path) -> None:
    pages: NDArray[np.uint16] = RNG.integers(0, 65535, (40, 100, 110), dtype=np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(pages))
    read_planes(tmp_path / "a.tif")  # what is imported on first use does not count
    tracemalloc.start()
    planes = read_planes(tmp_path / "a.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(planes[..., 0], pages)
    assert planes.nbytes <= peak < 1.3 * planes.nbytes


def test_memory_alone_limits_an_image(tmp_path: Path) -> None:
    content = bytearray(png(GREY))
    content[16:24] = (2**31 - 1).to_bytes(4, "big") * 2  # width and height
    content[29:33] = checksum(b"IHDR", bytes(content[16:29]))
    path = tmp_path / "a.png"
    path.write_bytes(bytes(content))
    with pytest.raises(UnreadableFile, match=r"a.png cannot be read: .*damaged"):
        read_image(path)  # a size that only damage explains is no limit that could be raised


def test_an_image_that_memory_does_not_hold_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(GREY))
    monkeypatch.setattr(np, "empty", Mock(side_effect=MemoryError("Unable to allocate 4.00 TiB")))
    with pytest.raises(UnreadableFile, match=r"a.tif needs more memory than there is: .* 4.00 TiB; crop it"):
        read_planes(tmp_path / "a.tif")


def test_large_images_and_masks_are_no_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, png(GREY), ".png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)  # Pillow refuses twice as many, and warns of more than these
    (loaded,) = load_images(tmp_path, Data(), 1, 2)
    np.testing.assert_array_equal(loaded.labels_yx, MASK)
