"""Files of Zeiss' microscopes, written by Zeiss' own library: what is read of them, and what comes out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
from numpy.typing import NDArray

from model.images import FormatError, ImageHeader, ImageTooLarge, ReadLimits, open_image
from service.batch import czi, czi_process
from service.batch.czi import scenes_in
from service.batch.files import stamp
from service.batch.images import find_images
from service.batch.readable import readable
from service.cli import main
from tests.images import disc
from tests.packages import write_tiny_package

pyczi = pytest.importorskip("pylibCZIrw.czi")

GREY = (np.indices((60, 80)).sum(axis=0) * 450).astype(np.uint16)
COLOURS = np.dstack([disc(60, 80), disc(60, 80)[::-1], disc(60, 80)[:, ::-1]])


class Written:
    """A file that is being written."""

    def __init__(self, path: Path, compression: str = "uncompressed:") -> None:
        self.path = path
        self._opened = pyczi.create_czi(str(path), exist_ok=True, compression_options=compression)

    def __enter__(self) -> Written:
        self._file = self._opened.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(None, None, None)

    def put(self, plane: NDArray[Any], at_xy: tuple[int, int] = (0, 0), scene: int = 0, **index: int) -> None:
        """Write a plane (y, x), or in colours (y, x, red green blue)."""
        data = plane[..., ::-1].copy() if plane.ndim == 3 else plane[..., np.newaxis]
        self._file.write(data=data, plane=index, scene=scene, location=at_xy)

    def describe(self, **metadata: Any) -> None:
        self._file.write_metadata(**metadata)


def stack(path: Path, planes: Mapping[tuple[int, int, int], NDArray[Any]]) -> Path:
    """Planes by their t, c and z."""
    with Written(path) as file:
        for (t, c, z), plane in planes.items():
            file.put(plane, T=t, C=c, Z=z)
        file.describe(channel_names={0: "DAPI", 1: "GFP"}, scale_x=3.25e-7, scale_y=6.5e-7, scale_z=2e-6)
    return path


def two_scenes(path: Path) -> Path:
    with Written(path) as file:
        file.put(GREY, (0, 7), scene=0)
        file.put(GREY[:40, ::-1], (500, 0), scene=1)
        file.describe()
    return path


def read(image: Path) -> tuple[ImageHeader, NDArray[Any], str]:
    """Header, planes (n, y, x, c) and the name in results."""
    with readable(image) as found, found.path.open("rb") as file, open_image(file, ReadLimits(1 << 26, 1 << 30)) as it:
        return it.header, np.stack([it.read_plane(i) for i in range(it.header.planes)]), found.name


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNET_MODELS_DIR", str(write_tiny_package(tmp_path / "packages" / "tiny").path))
    monkeypatch.setenv("UNET_BACKEND", "cpu")


@pytest.mark.parametrize("compression", ["uncompressed:", "zstd0:", "zstd1:ExplicitLevel=3;PreProcess=HiLoByteUnpack"])
@pytest.mark.parametrize("plane", [GREY, GREY.astype(np.uint8), GREY.astype(np.float32) / 7, COLOURS])
def test_every_pixel_is_there(
    tmp_path: Path, plane: NDArray[Any], compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(czi, "_PART_BYTES", 10_000)  # some rows at a time, as of a large image
    with Written(tmp_path / "a b.czi", compression) as file:
        file.put(plane, (-30, 11))
        file.describe()
    header, planes, name = read(tmp_path / "a b.czi")
    assert (header.dtype, name) == (plane.dtype, "a b.ome.tif")
    np.testing.assert_array_equal(planes[0], plane if plane.ndim == 3 else plane[..., np.newaxis])


def test_deep_colours_are_there_unless_the_library_reads_them_wrongly(tmp_path: Path) -> None:
    deep = COLOURS.astype(np.uint16) * 200
    for compression in ("uncompressed:", "zstd0:", "zstd1:ExplicitLevel=3;PreProcess=HiLoByteUnpack"):
        with Written(tmp_path / "a.czi", compression) as file:
            file.put(deep)
            file.describe()
        if compression.startswith("zstd1"):
            with pytest.raises(FormatError, match=r"compressed by zstd1, which Zeiss' library reads wrongly; save it"):
                read(tmp_path / "a.czi")
        else:
            np.testing.assert_array_equal(read(tmp_path / "a.czi")[1][0], deep)


def test_a_stack_has_its_axes_names_and_sizes(tmp_path: Path) -> None:
    planes = {(t, c, z): GREY + 100 * t + 10 * c + z for t in range(2) for c in range(2) for z in range(3)}
    header, found, _ = read(stack(tmp_path / "a.czi", planes))
    assert (header.stack_axes, header.stack_shape, header.channels) == ("TZ", (2, 3), 2)
    assert header.channel_names == ("DAPI", "GFP")
    assert (header.pixel_size_um, header.spacing_um) == ((0.65, 0.325), 2.0)
    expected = np.stack([np.dstack([planes[t, c, z] for c in range(2)]) for t in range(2) for z in range(3)])
    np.testing.assert_array_equal(found, expected)


def test_indices_of_a_file_that_was_cut_out_need_not_begin_at_0(tmp_path: Path) -> None:
    planes = {(2, 1, z): GREY + z for z in (5, 6, 7)}
    header, found, _ = read(stack(tmp_path / "a.czi", planes))
    assert (header.stack_axes, header.channels) == ("Z", 1)
    np.testing.assert_array_equal(found[..., 0], np.stack([GREY + z for z in (5, 6, 7)]))


def test_a_mosaic_is_one_image_whose_gaps_are_dark(tmp_path: Path) -> None:
    with Written(tmp_path / "a.czi") as file:
        file.put(GREY, (0, 0), M=0)
        file.put(GREY, (100, 40), M=1)
        file.describe()
    expected = np.zeros((100, 180), dtype=np.uint16)
    expected[:60, :80] = GREY
    expected[40:, 100:] = GREY
    np.testing.assert_array_equal(read(tmp_path / "a.czi")[1][0, ..., 0], expected)


@pytest.mark.parametrize("named", ["day", "day/*", "day/*.czi", "day/slide.czi"])
def test_scenes_are_images_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "day").mkdir()
    two_scenes(tmp_path / "day" / "slide.czi")
    found = find_images([named]).images
    assert [image.name.as_posix() for image in found] == ["slide/scene-1", "slide/scene-2"]
    for image, expected in zip(found, (GREY, GREY[:40, ::-1]), strict=True):
        _, planes, name = read(image.path)
        assert name == f"slide_{image.path.name}.ome.tif"
        np.testing.assert_array_equal(planes[0, ..., 0], expected)
        assert stamp(image.path) == stamp(tmp_path / "day" / "slide.czi")


@pytest.mark.usefixtures("packages")
def test_results_are_those_of_the_same_pixels_in_a_tiff_and_are_not_made_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slide = two_scenes(tmp_path / "slide.czi")
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    asked = ["-o", str(tmp_path / "out"), "--output", "labels", "--format", "tiff"]
    assert main(["segment", str(slide), str(tmp_path / "a.tif"), *asked]) == 0
    labels = [tifffile.imread(tmp_path / "out" / f"{name}_labels.tif") for name in ("slide/scene-1", "a")]
    assert labels[0].max() > 0
    np.testing.assert_array_equal(*labels)
    assert (tmp_path / "out" / "slide" / "scene-2_labels.tif").exists()
    capfd.readouterr()
    assert main(["segment", str(slide), *asked]) == 0
    assert "wrote 0 results" in capfd.readouterr().out
    alone = ["segment", str(slide / "scene-2"), "-o", str(tmp_path / "alone.tif"), "--output", "labels"]
    assert main(alone) == 0
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "alone.tif"), tifffile.imread(tmp_path / "out" / "slide" / "scene-2_labels.tif")
    )


def test_a_scene_has_to_be_named_where_there_are_several(tmp_path: Path) -> None:
    slide = two_scenes(tmp_path / "slide.czi")
    with pytest.raises(FormatError, match=r"slide.czi' has 2 scenes, an image is one; name .*slide.czi/scene-1'"):
        read(slide)
    with pytest.raises(FormatError, match=r"scene-3' is none of the scenes of the file, which are 1, 2"):
        read(slide / "scene-3")


def test_more_than_is_read_is_refused(tmp_path: Path) -> None:
    with Written(tmp_path / "a.czi") as file:
        file.put(GREY, C=0)
        file.put(GREY.astype(np.uint8), C=1)
        file.describe()
    with pytest.raises(FormatError, match="pixels of the types Gray16, Gray8; what can be read is one of Gray8"):
        read(tmp_path / "a.czi")
    with Written(tmp_path / "b.czi") as file:
        file.put(COLOURS, C=0)
        file.put(COLOURS, C=1)
        file.describe()
    with pytest.raises(FormatError, match="has 2 channels of colours, 1 is read; split it in ZEN"):
        read(tmp_path / "b.czi")
    whole = stack(tmp_path / "c.czi", {(0, 0, z): GREY for z in range(3)})
    with pytest.raises(ImageTooLarge, match=r"declares 3 x 60 x 80 \(z, y, x\), 14400 pixels .* limit is 14399; crop"):
        readable(whole, most_pixels=14399).__enter__()


def test_other_dimensions_are_refused(tmp_path: Path) -> None:
    written = stack(tmp_path / "a.czi", {(0, 0, z): GREY for z in range(3)}).read_bytes()
    assert b"Z\0\0\0" in written
    (tmp_path / "phases.czi").write_bytes(written.replace(b"Z\0\0\0", b"H\0\0\0"))  # which the library does not write
    with pytest.raises(FormatError, match=r"has the dimensions H of 3, T, C, Z, Y and X are read; split it by these"):
        read(tmp_path / "phases.czi")


def test_nobody_waits_for_a_copy_that_is_not_wanted(tmp_path: Path) -> None:
    whole = stack(tmp_path / "c.czi", {(0, 0, z): GREY for z in range(3)})
    closed = iter([False, False, True])
    with pytest.raises(CancelledError):
        readable(whole, closed=lambda: next(closed)).__enter__()
    assert not list(closed)


def test_damage_is_one_image_and_is_told_when_it_is_read(tmp_path: Path) -> None:
    whole = two_scenes(tmp_path / "a.czi").read_bytes()
    for length in range(10, len(whole), len(whole) // 8):
        cut = tmp_path / f"{length}.czi"
        cut.write_bytes(whole[:length])
        for image in scenes_in(cut):
            with pytest.raises(FormatError, match=r"the CZI file .* cannot be decoded"):
                read(image)


def test_altered_bytes_are_read_or_refused(tmp_path: Path) -> None:
    whole = np.frombuffer(two_scenes(tmp_path / "a.czi").read_bytes(), dtype=np.uint8)
    refused, draw = 0, np.random.default_rng(0)
    for begin in (at for at in range(0, whole.size - 512, 32) if whole[at : at + 6].tobytes() == b"ZISRAW"):
        for _ in range(2):
            altered, at = whole.copy(), begin + 16 + draw.integers(0, 240, 3)
            altered[at] ^= draw.integers(1, 256, 3, dtype=np.uint8)
            (tmp_path / "altered.czi").write_bytes(altered.tobytes())
            for image in scenes_in(tmp_path / "altered.czi"):
                try:
                    read(image)
                except FormatError:
                    refused += 1
    assert refused


def workers() -> list[psutil.Process]:
    """Processes in which the library runs."""
    alive = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "service.batch.czi_worker" in child.cmdline()]


@pytest.mark.parametrize("ends", [psutil.Process.kill, psutil.Process.suspend], ids=["crashed", "hung"])
def test_a_library_that_does_not_come_back_costs_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: Callable[[psutil.Process], object]
) -> None:
    whole = stack(tmp_path / "c.czi", {(0, 0, z): GREY for z in range(3)})

    def closed() -> bool:
        monkeypatch.setattr(czi_process, "_MOST_SILENCE_S", 0.2)
        (worker,) = workers()
        ends(worker)
        return False

    with pytest.raises(FormatError, match="Zeiss' library crashed on it, or did not come to an end"):
        readable(whole, closed=closed).__enter__()
    assert not workers()


def test_without_the_library_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = two_scenes(tmp_path / "slide.czi")
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    assert scenes_in(slide) == [slide]
    with pytest.raises(FormatError, match="takes a library that is not installed; pip install pylibCZIrw, or export"):
        read(slide)
