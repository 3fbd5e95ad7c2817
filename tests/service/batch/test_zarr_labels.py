"""Results in OME-Zarr: the pixels of a TIFF, where their source is, at each resolution, and whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from service.batch import zarr_copy, zarr_labels
from service.batch.images import Image, find_images
from service.batch.targets import Work
from service.batch.zarr_labels import as_store
from service.cli import main
from tests.live import live_server
from tests.packages import write_tiny_package
from tests.zarr_images import VERSIONS, noise, plate, write

KILLED = """
import os, signal, sys
from service import cli
from service.batch import zarr_copy, zarr_labels

blocks, left = zarr_labels.blocks, int(sys.argv.pop(1))

def killing(*arguments):
    global left
    for block in blocks(*arguments):
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        yield block

zarr_copy._BLOCK_BYTES, zarr_labels.blocks = 1, killing
sys.exit(cli.main(sys.argv[1:]))
"""
"""Is killed when it would write another block after so many."""
KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from model import swapping
from service import cli

rename, swapping.exchanged = Path.rename, lambda *_: False

def killing(path, target):
    moved = rename(path, target)
    if Path(target).suffix == ".before":
        os.kill(os.getpid(), signal.SIGKILL)
    return moved

Path.rename = killing
sys.exit(cli.main(sys.argv[1:]))
"""
"""Is killed when the former store has made room for the new one, as the two cannot be exchanged."""
NO_ROOM = """
import signal, sys
from pathlib import Path, PurePosixPath
from service.batch.images import Image
from service.batch.targets import Work
from service.batch.zarr_labels import as_store
from tests.disks import small_disk

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
work = Work(Image(Path("a.tif"), PurePosixPath("a.tif")), Path("b"))
receipt = {"input": {"stack_axes": "Z"}, "output": {}}
with small_disk(100_000):
    try:
        as_store(work, Path(sys.argv[1]), receipt, lambda: False)
    except OSError as error:
        print(error.strerror)
"""
"""Writes a store where chunks have no room."""


@pytest.fixture(autouse=True)
def _packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_package(tmp_path / "packages")
    monkeypatch.setenv("UNET_MODELS_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("UNET_BACKEND", "cpu")


def segmented(tmp_path: Path, image: Path, *options: str, output: str = "labels") -> int:
    call = ["segment", str(image), "-o", str(tmp_path / "out"), "--output", output, *options]
    return main([*call, "--format", "ome-zarr"])


def metadata(store: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = dict(zarr.open_group(store, mode="r").attrs)
    return dict(attributes.get("ome", attributes))


def arrays(store: Path) -> list[NDArray[Any]]:
    group = zarr.open_group(store, mode="r")
    found = [group[dataset["path"]] for dataset in metadata(store)["multiscales"][0]["datasets"]]
    return [np.asarray(array[...]) for array in found if isinstance(array, zarr.Array)]


def nearest(pixels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Pixels in the middle of those of a smaller image."""
    picked = [
        np.floor((np.arange(length) + 0.5) * full / length).astype(int)
        for full, length in zip(pixels.shape, shape, strict=True)
    ]
    return pixels[np.ix_(*picked)]


@VERSIONS
@pytest.mark.parametrize(("output", "scaled"), [("labels", 1), ("mask", 255)])
def test_it_has_the_pixels_of_a_tiff_and_the_places_of_its_source(
    tmp_path: Path, version: int, output: str, scaled: int
) -> None:
    source = write(tmp_path / "a.zarr", noise(2, 2, 3, 91, 130), "tczyx", version)
    assert segmented(tmp_path, source, "--channel", "1", output=output) == 0
    call = ["segment", str(source), "-o", str(tmp_path / "out"), "--output", output, "--channel", "1"]
    assert main([*call, "--format", "tiff"]) == 0
    store = tmp_path / f"out/a_{output}.ome.zarr"
    full, half = arrays(store)
    expected = tifffile.imread(tmp_path / f"out/a_{output}.tif")
    np.testing.assert_array_equal(full * full.dtype.type(scaled), expected)
    assert full.max() > (10 if output == "labels" else 0)
    np.testing.assert_array_equal(half, nearest(full, (2, 3, 46, 65)))
    found = metadata(store)
    (multiscale,) = found["multiscales"]
    assert multiscale["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space", "unit": "nanometer"},
    ]
    scales = [dataset["coordinateTransformations"] for dataset in multiscale["datasets"]]
    assert scales[0] == [{"type": "scale", "scale": [5.0, 2.5, 325.0, 325.0]}]
    assert scales[1][0]["scale"] == pytest.approx([5.0, 2.5, 325.0 * 91 / 46, 650.0])
    assert (store / found["image-label"]["source"]["image"]).resolve() == source
    group = zarr.open_group(store, mode="r")
    assert group.metadata.zarr_format == version
    ngff = "0.5" if version == 3 else "0.4"
    assert found["image-label"]["version"] == ngff
    assert (found if version == 3 else multiscale)["version"] == ngff
    assert dict(group.attrs)["unet_receipt"]["output"]["format"] == "ome-zarr"  # type: ignore[index, call-overload]
    first = group["0"]
    assert isinstance(first, zarr.Array)
    assert first.chunks == (1, 1, 91, 130)
    assert "zstd" in str(first.compressors)
    if version == 3:
        assert first.metadata.dimension_names == ("t", "z", "y", "x")  # type: ignore[union-attr]
    else:
        assert (store / "0/0/0/0/0").is_file()


def rewritten(source: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = source / "zarr.json"
    found = json.loads(file.read_bytes())
    change(found["attributes"]["ome"]["multiscales"][0])
    file.write_text(json.dumps(found))


def test_resolutions_are_those_of_the_source_whatever_their_sizes_and_places(tmp_path: Path) -> None:
    source = write(tmp_path / "a.zarr", noise(5, 61, 90), "zyx")
    group = zarr.open_group(source, mode="a")
    group.create_array("s1", shape=(2, 20, 31), dtype="uint16", chunks=(1, 20, 31), overwrite=True)
    group.create_array("larger", shape=(5, 10**9, 10**9), dtype="uint16", chunks=(1, 512, 512))
    shift = {"type": "translation", "translation": [1.0, 2.0, 3.0]}
    scale = {"type": "scale", "scale": [6.0, 975.0, 942.0]}

    def place(multiscale: dict[str, Any]) -> None:
        multiscale["datasets"][0]["coordinateTransformations"].append(shift)
        multiscale["datasets"][1]["coordinateTransformations"] = [scale, shift]
        multiscale["datasets"].append({"path": "gone"})
        multiscale["datasets"].append({"paths": "damaged"})
        multiscale["datasets"].append({"path": "../outside"})
        multiscale["datasets"].append({"path": "larger"})
        nowhere = {"type": "scale", "scale": [1.0, float("inf"), 1.0]}
        multiscale["datasets"].append({"path": "s1", "coordinateTransformations": [nowhere]})
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": [1.0, 2.0, 1.0]}]

    rewritten(source, place)
    assert segmented(tmp_path, source) == 0
    store = tmp_path / "out/a_labels.ome.zarr"
    full, lower = arrays(store)
    assert full.shape == (5, 61, 90)
    np.testing.assert_array_equal(lower, nearest(full, (2, 20, 31)))
    assert [each["coordinateTransformations"] for each in metadata(store)["multiscales"][0]["datasets"]] == [
        [{"type": "scale", "scale": [2.5, 650.0, 325.0]}, {"type": "translation", "translation": [1.0, 4.0, 3.0]}],
        [{"type": "scale", "scale": [6.0, 1950.0, 942.0]}, {"type": "translation", "translation": [1.0, 4.0, 3.0]}],
    ]


def test_labels_of_another_source_are_halved_until_they_are_small(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        noise(1101, 700),
        metadata={"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5},
    )
    assert segmented(tmp_path, tmp_path / "a.ome.tif") == 0
    store = tmp_path / "out/a.ome_labels.ome.zarr"
    full, *lower = arrays(store)
    assert [each.shape for each in (full, *lower)] == [(1101, 700), (551, 350), (276, 175)]
    for each in lower:
        np.testing.assert_array_equal(each, nearest(full, each.shape))
    found = metadata(store)
    assert "source" not in found["image-label"]
    (multiscale,) = found["multiscales"]
    assert multiscale["axes"] == [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale, shift = multiscale["datasets"][1]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([0.5 * 1101 / 551, 0.5])
    assert shift["translation"] == pytest.approx([0.5 * (1101 / 551 - 1) / 2, 0.125])


def test_more_than_65535_objects_are_numbered_in_32_bits_at_each_resolution(tmp_path: Path) -> None:
    dots = np.zeros((520, 530), np.uint16)
    dots[::2, ::2] = 60_000
    source = write(tmp_path / "a.zarr", dots, "yx", chunk=(300, 300))
    assert segmented(tmp_path, source, "--min-area", "0") == 0
    full, half = arrays(tmp_path / "out/a_labels.ome.zarr")
    assert [each.dtype.name for each in (full, half)] == ["uint32", "uint32"]
    assert full.max() == 260 * 265
    assert set(np.unique(half)) <= set(np.unique(full))


@pytest.mark.parametrize(
    ("letters", "axes", "moved"),
    [("ZTYX", "tzyx", (1, 0, 2, 3)), ("IYX", "zyx", (0, 1, 2)), ("ZIYX", "izyx", (1, 0, 2, 3))],
)
def test_axes_stand_in_the_order_that_ngff_wants(
    tmp_path: Path, letters: str, axes: str, moved: tuple[int, ...]
) -> None:
    np.save(tmp_path / "a.npy", noise(2, 3, 40, 50)[(0,) * (4 - len(letters))])
    for form in ("npy", "ome-zarr"):
        call = ["segment", str(tmp_path / "a.npy"), "-o", str(tmp_path / "out"), "--axes", letters]
        assert main([*call, "--output", "labels", "--format", form]) == 0
    store = tmp_path / "out/a_labels.ome.zarr"
    np.testing.assert_array_equal(arrays(store)[0], np.load(tmp_path / "out/a_labels.npy").transpose(moved))
    assert "".join(axis["name"] for axis in metadata(store)["multiscales"][0]["axes"]) == axes


def test_axes_that_are_read_as_others_than_the_source_has_have_places_of_their_own(tmp_path: Path) -> None:
    source = write(tmp_path / "a.zarr", noise(3, 40, 50), "zyx")
    assert segmented(tmp_path, source, "--axes", "TYX") == 0
    (multiscale,) = metadata(tmp_path / "out/a_labels.ome.zarr")["multiscales"]
    assert multiscale["axes"][0] == {"name": "t", "type": "time"}
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 325.0, 325.0]


def test_a_server_and_a_plate_give_the_same(tmp_path: Path) -> None:
    source = plate(tmp_path / "p.ome.zarr", "A/1/0", "B/2/1")
    assert segmented(tmp_path, source) == 0
    with live_server(tmp_path, tmp_path / "packages") as server:
        assert segmented(tmp_path / "there", source, "--url", server.url) == 0
    for field in ("A/1/0", "B/2/1"):
        here, there = (at / f"out/p/{field}_labels.ome.zarr" for at in (tmp_path, tmp_path / "there"))
        assert arrays(here)[0].max() > 1
        np.testing.assert_array_equal(arrays(here)[0], arrays(there)[0])
        assert (here / metadata(here)["image-label"]["source"]["image"]).resolve() == source / field


def test_it_is_read_and_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (3, 1100, 1300)).astype(np.uint32)
    file = tmp_path / "answer"
    with file.open("wb") as into:
        np.save(into, labels)
    monkeypatch.setattr(zarr_copy, "_BLOCK_BYTES", 512 * 512 * 4)
    held: list[int] = []
    read = zarr_labels._Answer.read

    def counted(*arguments: Any) -> NDArray[Any]:
        part = read(*arguments)
        held.append(part.nbytes)
        return part

    monkeypatch.setattr(zarr_labels._Answer, "read", counted)
    receipt = {"input": {"stack_axes": "Z"}, "output": {}}
    store, _ = as_store(work(tmp_path), file, receipt, lambda: False)
    assert max(held) <= 512 * 512 * 4
    assert len(held) >= 3 * (9 + 4)
    for each in arrays(store):
        np.testing.assert_array_equal(each, nearest(labels, each.shape))


def work(tmp_path: Path) -> Work:
    return Work(Image(tmp_path / "a.tif", PurePosixPath("a.tif")), tmp_path / "out/a_labels.ome.zarr")


def test_it_is_broken_off_when_nobody_wants_it_any_more(tmp_path: Path) -> None:
    file = tmp_path / "answer"
    with file.open("wb") as into:
        np.save(into, np.zeros((40, 50), np.uint16))
    with pytest.raises(CancelledError):
        as_store(work(tmp_path), file, {"input": {"stack_axes": ""}, "output": {}}, lambda: True)


def test_a_disk_that_is_full_is_said_once_however_many_chunks_there_are(tmp_path: Path) -> None:
    file = tmp_path / "answer.npy"
    np.save(file, np.random.default_rng(0).integers(0, 60_000, (8, 1100, 1100)).astype(np.uint16))
    call = [sys.executable, "-c", NO_ROOM, str(file)]
    ended = subprocess.run(call, check=True, capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.stderr) == ("File too large\n", "")


def started(program: str, tmp_path: Path, *arguments: str, before: str = "") -> int:
    call = [sys.executable, "-c", program, *([before] if before else []), "segment", *arguments]
    options = ["-o", str(tmp_path / "out"), "--output", "labels", "--format", "ome-zarr"]
    return subprocess.run([*call, *options], check=False, capture_output=True, timeout=120).returncode


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
@pytest.mark.parametrize("blocks", ["1", "4"])
def test_killed_in_the_middle_it_leaves_nothing_and_is_made_by_the_same_command(tmp_path: Path, blocks: str) -> None:
    source = write(tmp_path / "a.zarr", noise(3, 90, 130), "zyx")
    assert started(KILLED, tmp_path, str(source), before=blocks) == -signal.SIGKILL
    out = tmp_path / "out"
    assert list(out.iterdir()) == [out / ".unet"]
    assert [path for path in (out / ".unet/parts").rglob("*.store") if path.is_dir()]
    assert segmented(tmp_path, source) == 0
    assert [each.shape for each in arrays(out / "a_labels.ome.zarr")] == [(3, 90, 130), (3, 45, 65)]
    assert not [path for path in (out / ".unet/parts").rglob("*") if path.name != "0-of-1"]


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_killed_between_the_former_one_and_the_new_one_it_is_made_by_the_same_command(tmp_path: Path) -> None:
    source = write(tmp_path / "a.zarr", noise(40, 50), "yx")
    assert segmented(tmp_path, source) == 0
    assert started(KILLED_BETWEEN, tmp_path, str(source), "--redo") == -signal.SIGKILL
    store = tmp_path / "out/a_labels.ome.zarr"
    assert not store.exists()
    assert segmented(tmp_path, source) == 0
    assert arrays(store)[0].max() > 1


def test_one_that_is_there_is_not_made_again_and_one_that_was_corrected_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.zarr", noise(40, 50), "yx")
    store = tmp_path / "out/a_labels.ome.zarr"
    assert segmented(tmp_path, source) == 0
    assert segmented(tmp_path, source) == 0
    assert "wrote 0 results" in capsys.readouterr().out.splitlines()[-1]
    assert segmented(tmp_path, source, "--redo") == 0
    made = arrays(store)[0]
    zarr.open_array(store / "0", mode="r+")[...] = 7
    assert segmented(tmp_path, source) == 0
    assert "1 of them changed since they were made" in capsys.readouterr().out
    assert segmented(tmp_path, source, "--redo") == 1
    assert "has been changed since it was made" in capsys.readouterr().err
    assert np.all(arrays(store)[0] == 7)
    assert segmented(tmp_path, source, "--overwrite") == 0
    np.testing.assert_array_equal(arrays(store)[0], made)
    zarr.open_array(source / "s0", mode="r+")[...] = 3
    (source / "zarr.json").write_text("{")
    assert segmented(tmp_path, source) == 1
    assert "the result of what was there before has been removed" in capsys.readouterr().err
    assert not store.exists()


@pytest.mark.parametrize("named", ["out", "out/*"])
def test_results_are_no_images(tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in/a.zarr", noise(40, 50), "yx")
    assert main(["segment", "in", "-o", "out", "--output", "labels", "--format", "ome-zarr"]) == 0
    write(tmp_path / "out/b.zarr", noise(40, 50), "yx")
    found = find_images([named], is_made=lambda file: file.name == "a_labels.ome.zarr")
    assert [image.name.as_posix() for image in found.images] == ["b.zarr"]
    assert [path.name for path in found.like_results] == ["a_labels.ome.zarr"]


def test_one_may_be_named_and_is_made_anew_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.zarr", noise(40, 50), "yx")
    target = tmp_path / "cells.ome.zarr"
    for _ in range(2):
        assert main(["segment", str(source), "-o", str(target), "--output", "labels"]) == 0
        assert arrays(target)[0].max() > 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "cells.ome.zarr", "packages"]
    other = write(tmp_path / "b.zarr", noise(40, 50), "yx")
    capsys.readouterr()
    assert main(["segment", str(source), "-o", str(other), "--output", "labels"]) == 2
    assert "is there, and is no label image in OME-Zarr; move it" in capsys.readouterr().err
    np.testing.assert_array_equal(arrays(other)[0], noise(40, 50))
    assert main(["segment", str(source), "-o", str(target), "--format", "tiff"]) == 2
    assert "is a name for ome-zarr, the format asked for is tiff; name it .tif" in capsys.readouterr().err


def test_what_it_does_not_hold_and_what_it_takes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "a.zarr", noise(40, 50), "yx")
    assert segmented(tmp_path, source, output="probabilities") == 2
    assert "format ome-zarr holds label images, not probabilities; ask for" in capsys.readouterr().err
    assert main(["segment", str(source), "-o", str(tmp_path / "out"), "--format", "zarr"]) == 2
    assert "format 'zarr' does not exist; ask for one of coco, csv, geojson, npy, ome-zarr" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert segmented(tmp_path, source) == 2
    assert "format ome-zarr takes a library that is not installed; pip install zarr" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
