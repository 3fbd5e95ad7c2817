"""OME-Zarr in one file: read as the folder is, where it lies, and refused where it is damaged or unpacks to more."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from model.images import FormatError, UndecodableImage, UnsupportedImageFormat
from service.batch.images import find_images
from service.batch.readable import readable
from service.cli import main
from tests.packages import write_tiny_package
from tests.zarr_images import VERSIONS, noise, plate, write


def pack(folder: Path, file: Path, top: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, top + path.relative_to(folder).as_posix())
    return file


def pixels_of(file: Path) -> tuple[str, Any]:
    with readable(file) as copy, copy.path.open("rb") as stream:
        return copy.name, tifffile.imread(stream)


@VERSIONS
@pytest.mark.parametrize(("name", "top"), [("a.ozx", ""), ("a.ome.zarr.zip", "a.ome.zarr/"), ("a.ZARR.ZIP", "")])
def test_every_pixel_is_there_and_nothing_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, name: str, top: str
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    pixels = noise(2, 3, 90, 130)
    folder = write(tmp_path / "folder.zarr", pixels, "tcyx", version)
    (tmp_path / "in").mkdir()
    file = pack(folder, tmp_path / "in" / name, top, zipfile.ZIP_DEFLATED if top else zipfile.ZIP_STORED)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("__MACOSX/._a.zarr/x", b"")
        archive.writestr("../outside", b"")
        archive.writestr("/absolute", b"")
    with readable(file) as copy, copy.path.open("rb") as stream:
        with tifffile.TiffFile(stream) as tiff:
            assert tiff.series[0].axes == "TCYX"
            np.testing.assert_array_equal(tiff.asarray(), pixels)
        assert (copy.name, list(place.iterdir())) == ("a.ome.tif", [])
    assert list((tmp_path / "in").iterdir()) == [file]
    assert not (tmp_path / "outside").exists()


@VERSIONS
def test_its_result_is_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setenv("UNET_MODELS_DIR", str(write_tiny_package(tmp_path / "packages").path))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    folder = write(tmp_path / "in/a.zarr", noise(2, 40, 50), "zyx", version)
    pack(folder, tmp_path / "in/b.ozx")
    assert [image.name.as_posix() for image in find_images([str(tmp_path / "in")]).images] == ["a.zarr", "b.ozx"]
    call = ["segment", f"{tmp_path}/in/*", "-o", str(tmp_path / "out"), "--output", "labels", "--format", "ome-zarr"]
    assert main(call) == 0
    groups = [zarr.open_group(tmp_path / f"out/{name}_labels.ome.zarr", mode="r") for name in "ab"]
    assert [group.metadata.zarr_format for group in groups] == [version] * 2
    found: list[dict[str, Any]] = []
    for group in groups:
        attributes: dict[str, Any] = dict(group.attrs)
        found.append(attributes.get("ome", attributes))
    assert "source" in found[0]["image-label"]
    assert "source" not in found[1]["image-label"]
    a, b = (each["multiscales"][0] for each in found)
    assert {**a, "name": ""} == {**b, "name": ""}
    for level in ("0", "1"):
        np.testing.assert_array_equal(groups[0][level], groups[1][level])


def test_a_series_of_one_is_read_and_several_are_to_be_unpacked(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    root.create_group("OME")
    write(tmp_path / "a.zarr/0", noise(40, 50), "yx", 2)
    _, found = pixels_of(pack(tmp_path / "a.zarr", tmp_path / "a.ozx"))
    np.testing.assert_array_equal(found, noise(40, 50))
    file = pack(plate(tmp_path / "p.zarr", "A/1/0", "B/1/0"), tmp_path / "p.ozx")
    with pytest.raises(UnsupportedImageFormat, match=r"p.ozx' holds 2 groups and no image .* unpack it, and name"):
        pixels_of(file)


def test_shards_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.zarr", noise(100, 130), "yx")
    zarr.open_group(folder, mode="a").create_array(
        "s0", data=noise(100, 130), chunks=(10, 13), shards=(50, 65), overwrite=True
    )
    _, found = pixels_of(pack(folder, tmp_path / "a.ozx"))
    np.testing.assert_array_equal(found, noise(100, 130))


def rewritten(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], None]:
    def rewrite(file: Path) -> None:
        with zipfile.ZipFile(file) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        change(entries)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return rewrite


def moved(entries: dict[str, bytes]) -> None:
    found = json.loads(entries["zarr.json"])
    found["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../s0"
    entries["zarr.json"] = json.dumps(found).encode()


def flipped(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        chunk = archive.getinfo("s0/c/0/0")
    content = bytearray(file.read_bytes())
    content[chunk.header_offset + 30 + len(chunk.filename) + 20] ^= 0xFF
    file.write_bytes(content)


def marked(flag: int, value: int) -> Callable[[Path], None]:
    """Change a field of the directory's entries, of two bytes at this distance."""

    def mark(file: Path) -> None:
        content = bytearray(file.read_bytes())
        at = content.find(b"PK\1\2")
        while at >= 0:
            content[at + flag : at + flag + 2] = value.to_bytes(2, "little")
            at = content.find(b"PK\1\2", at + 4)
        file.write_bytes(content)

    return mark


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b"PK"), "a.ozx' cannot be decoded"),
        (lambda file: file.write_bytes(b""), "is empty, it has 0 bytes"),
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "a.ozx' cannot be decoded"),
        (flipped, "'s0' in .* cannot be decoded"),
        (marked(8, 1), "cannot be decoded .*encrypted"),
        (marked(10, 99), "cannot be decoded .*compression"),
        (rewritten(lambda entries: entries.pop("s0/zarr.json")), "'s0' in .* is not there"),
        (rewritten(lambda entries: entries.update({"zarr.json": b"{"})), "metadata .* damaged, they are no JSON"),
        (rewritten(moved), "outside of it"),
        (
            rewritten(lambda entries: entries.update({"zarr.json": b" " * ((1 << 26) + 1)})),
            "metadata .* are unpacked to 67108865 bytes, the limit is 67108864; write them again",
        ),
        (
            rewritten(lambda entries: entries.update({"s0/c/0/0": bytes(2 << 20)})),
            r"'s0/c/0/0' in .* is unpacked to 2097152 bytes, the limit for a chunk of its pixels is 1056256; write",
        ),
        (rewritten(lambda entries: entries.clear()), "holds 0 groups and no image"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    file = pack(write(tmp_path / "a.zarr", noise(40, 50), "yx"), tmp_path / "a.ozx")
    damage(file)
    with pytest.raises(FormatError, match=said):
        pixels_of(file)


def test_a_directory_that_is_called_so_is_a_directory(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.ozx", noise(40, 50), "yx")
    name, found = pixels_of(folder)
    np.testing.assert_array_equal(found, noise(40, 50))
    assert name.endswith(".tif")
    with pytest.raises(UndecodableImage, match="is a folder, and no image"):
        pixels_of(tmp_path)
