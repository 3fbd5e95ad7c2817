"""Folders that are images: OME-Zarr of either version of Zarr, alone, in plates and in series."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.codecs import GzipCodec
from zarr.storage import LocalStore

from model.images import FormatError, ImageTooLarge, ReadLimits, open_image
from service.batch import zarr_copy
from service.batch.files import stamp
from service.batch.images import find_images
from service.batch.readable import readable
from service.cli import main
from tests.disks import small_disk
from tests.live import live_server
from tests.packages import write_tiny_package
from tests.permissions import open_to_all, shut
from tests.zarr_images import VERSIONS, noise, plate, write


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_tiny_package(tmp_path / "packages" / "tiny").path
    monkeypatch.setenv("UNET_MODELS_DIR", str(folder))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    return folder


@VERSIONS
@pytest.mark.parametrize(
    ("pixels", "axes", "chunk"),
    [
        (noise(130, 90, dtype="uint16"), "yx", (48, 40)),
        (noise(2, 3, 2, 40, 50, dtype="uint8"), "tczyx", (40, 50)),
        (noise(2, 1100, 530, dtype=">u2"), "zyx", (1025, 100)),
        (noise(2, 520, 33, dtype="float32"), "cyx", (7, 33)),
        (noise(1, 1, dtype="int16"), "yx", (1, 1)),
        (noise(20, 30, dtype="float16"), "yx", (20, 30)),
        (noise(20, 30, dtype="bool"), "yx", (20, 30)),
    ],
)
def test_every_pixel_is_there(
    tmp_path: Path, version: int, pixels: NDArray[Any], axes: str, chunk: tuple[int, int]
) -> None:
    with readable(write(tmp_path / "a.zarr", pixels, axes, version, chunk=chunk)) as copy:
        with copy.path.open("rb") as file, tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
            found = series.asarray()
        assert (series.axes, found.shape) == (axes.upper(), pixels.shape)
        np.testing.assert_array_equal(found, pixels.astype(found.dtype))
    assert not copy.path.exists()


@VERSIONS
def test_axes_names_and_sizes_are_there(tmp_path: Path, version: int) -> None:
    folder = write(tmp_path / "x.ome.zarr", noise(2, 3, 2, 40, 50), "tczyx", version, names=("DAPI", "β", "c"))
    with readable(folder) as copy, copy.path.open("rb") as file, open_image(file, ReadLimits(10**9, 10**9)) as image:
        header = image.header
    assert copy.name == "x.ome.tif"
    assert header.channel_names == ("DAPI", "β", "c")
    assert header.pixel_size_um == pytest.approx((0.325, 0.325))
    assert header.spacing_um == pytest.approx(2.5)
    assert header.interval_s == pytest.approx(5)


@VERSIONS
def test_the_result_is_that_of_the_same_pixels_in_a_tiff(packages: Path, tmp_path: Path, version: int) -> None:
    pixels = noise(2, 2, 90, 130)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", pixels, metadata={"axes": "ZCYX", "PhysicalSizeX": 0.325, "PhysicalSizeY": 0.325}
    )
    folder = write(tmp_path / "b.ome.zarr", pixels, "zcyx", version)
    options = ["--channel", "1", "--output", "labels", "--format", "tiff"]
    for image in (tmp_path / "a.ome.tif", folder):
        assert main(["segment", str(image), "-o", str(tmp_path / "out"), *options]) == 0
    a, b = (tifffile.imread(tmp_path / "out" / f"{name}.ome_labels.tif") for name in "ab")
    assert a.max() > 10
    np.testing.assert_array_equal(a, b)


def test_a_server_gets_the_same(packages: Path, tmp_path: Path) -> None:
    folder = plate(tmp_path / "p.zarr", "A/1/0")
    assert main(["segment", str(folder), "-o", str(tmp_path / "here"), "--format", "coco"]) == 0
    with live_server(tmp_path, packages) as server:
        options = ["--format", "coco", "--url", server.url]
        assert main(["segment", str(folder), "-o", str(tmp_path / "there"), *options]) == 0
    here, there = (json.loads((tmp_path / at / "p/A/1/0_mask.coco.json").read_bytes()) for at in ("here", "there"))
    assert here["images"][0]["file_name"] == "p_A_1_0.ome.tif"
    assert (here["images"], here["annotations"]) == (there["images"], there["annotations"])


@pytest.mark.parametrize("named", ["plates", "plates/*", "plates/**", "plates/**/*.zarr", "plates/p.ome.zarr"])
def test_a_plate_stands_for_its_fields_in_order_and_its_files_for_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    plate(tmp_path / "plates/p.ome.zarr", "B/1/0", "A/10/0", "A/9/10", "A/9/2")
    write(tmp_path / "plates/p.ome.zarr/A/9/2/labels/cells", noise(60, 70), "yx", 2)
    found = [image.name.as_posix() for image in find_images([named]).images]
    assert found == ["p/A/9/2", "p/A/9/10", "p/A/10/0", "p/B/1/0"]
    assert [image.name.as_posix() for image in find_images(["plates/p.ome.zarr/A/*"]).images] == [
        "10/0",
        "9/2",
        "9/10",
    ]


def test_one_without_images_is_said_and_not_passed_by(packages: Path, tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "in/empty.zarr", mode="w")
    write(tmp_path / "in/without suffix", noise(40, 50), "yx")
    assert main(["segment", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    (failure,) = json.loads((tmp_path / "out/failures.json").read_bytes())
    assert (failure["image"], failure["type"]) == (str(tmp_path / "in/empty.zarr"), "/problems/undecodable-image")
    assert (tmp_path / "out/without suffix_mask.png").exists()


def test_fields_whose_chunks_change_are_done_again_and_segmentations_beside_them_change_nothing(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plate(tmp_path / "p.zarr", "A/1/0", "A/1/1")
    call = ["segment", str(folder), "-o", str(tmp_path / "out")]
    assert main(call) == 0
    write(folder / "A/1/1/labels/cells", noise(60, 70), "yx", 2)
    assert main(call) == 0
    assert "wrote 0 results" in capsys.readouterr().out.splitlines()[-1]
    before = stamp(folder / "A/1/1")
    zarr.open_array(folder / "A/1/1/s0", mode="r+")[...] = 7
    assert stamp(folder / "A/1/1") != before
    assert main(call) == 0
    assert "wrote 1 result " in capsys.readouterr().out.splitlines()[-1]


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "zarr.json"
        found = json.loads(file.read_bytes())
        change(found["attributes"]["ome"])
        file.write_text(json.dumps(found))

    return edit


def garbage_in_a_chunk(folder: Path) -> None:
    next(path for path in (folder / "s0/c").rglob("*") if path.is_file()).write_bytes(b"garbage")


def chunks_of(*chunk: int) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "s0/zarr.json"
        found = json.loads(file.read_bytes())
        found["chunk_grid"]["configuration"]["chunk_shape"] = chunk
        file.write_text(json.dumps(found))

    return edit


def garbage_in_gzip(folder: Path) -> None:
    zarr.open_group(folder, mode="a").create_array(
        "s0", data=noise(2, 40, 50), chunks=(1, 40, 50), compressors=GzipCodec(), overwrite=True
    )
    garbage_in_a_chunk(folder)


def unknown_codec(folder: Path) -> None:
    file = folder / "s0/zarr.json"
    found = json.loads(file.read_bytes())
    found["codecs"][-1]["name"] = "imagecodecs_jpegxl"
    file.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edited(lambda ome: ome.clear()), "no image in OME-Zarr"),
        (edited(lambda ome: ome["multiscales"].clear()), "metadata .* damaged"),
        (edited(lambda ome: ome["multiscales"][0]["datasets"][0].pop("path")), "metadata .* damaged"),
        (edited(lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../../s0")), "outside of it"),
        (edited(lambda ome: ome["multiscales"][0]["axes"].pop(0)), "metadata .* damaged"),
        (
            edited(lambda ome: ome.update(multiscales=[{"axes": list("yx"), "datasets": [{"path": "s0"}]}])),
            "3 dimensions",
        ),
        (edited(lambda ome: ome["multiscales"][0]["axes"][0].update(name="angle")), "axes angle, y, x; what can be"),
        (edited(lambda ome: ome["multiscales"][0]["datasets"][0].update(path="s\0")), "outside of it"),
        (lambda folder: (folder / "zarr.json").write_text('{"attri'), "metadata .* damaged, they are no JSON"),
        (lambda folder: (folder / "zarr.json").write_text("[" * 200_000), "metadata .* damaged, they are no JSON"),
        (lambda folder: shutil.rmtree(folder / "s0"), "'s0' in .* is not there"),
        (unknown_codec, "'s0' in .* is compressed as zarr cannot read here"),
        (garbage_in_a_chunk, "'s0' in .* cannot be decoded"),
        (garbage_in_gzip, "'s0' in .* cannot be decoded"),
        (chunks_of(1, 0, 9), "chunks of 1 x 0 x 9 pixels, none"),
        (chunks_of(1, 10**6, 10**6), "a chunk of 's0' in .* takes 2000000000000 bytes, the limit is 2147483648; write"),
        (lambda folder: (folder / "s0/zarr.json").write_bytes(b"\xff"), "'s0' in .* cannot be decoded"),
        (lambda folder: write(folder, noise(2, 40, 50, dtype="uint64"), "cyx"), "type uint64; what can be read are"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    folder = write(tmp_path / "a.zarr", noise(2, 40, 50), "cyx")
    damage(folder)
    with pytest.raises(FormatError, match=said), readable(folder):
        pass
    stamp(folder)  # no reason to end the run


def test_a_damaged_field_keeps_no_other_from_its_result(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plate(tmp_path / "p.zarr", "A/1/0", "A/1/1")
    shutil.rmtree(folder / "A/1/0/s0")
    assert main(["segment", str(folder), "-o", str(tmp_path / "out")]) == 1
    (failure,) = json.loads((tmp_path / "out/failures.json").read_bytes())
    assert (failure["image"], failure["type"]) == (str(folder / "A/1/0"), "/problems/undecodable-image")
    assert (tmp_path / "out/p/A/1/1_mask.png").exists()


def test_damage_is_said_once_however_many_chunks_there_are(packages: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "a.zarr", noise(400, 500), "yx", chunk=(20, 20))
    for file in (folder / "s0/c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"garbage")
    command = [sys.executable, "-m", "service", "segment", str(folder), "-o", str(tmp_path / "out")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    failure, summary = ended.stderr.splitlines()
    assert "'s0' in" in failure
    assert "1 of 1 image failed" in summary


def test_without_the_library_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a.zarr", noise(40, 50), "yx")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(FormatError, match="pip install zarr"), readable(folder):
        pass


def test_a_link_to_a_plate_is_one(tmp_path: Path) -> None:
    (tmp_path / "here.zarr").symlink_to(plate(tmp_path / "far/p.zarr", "A/1/0"))
    assert [image.name.as_posix() for image in find_images([str(tmp_path / "here.zarr")]).images] == ["here/A/1/0"]


@pytest.mark.parametrize("named", ["plates", "plates/*", "plates/**"])
def test_one_that_may_not_be_looked_into_is_said(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    with open_to_all() as place:
        monkeypatch.chdir(place)
        write(place / "plates/a.zarr", noise(40, 50), "yx")
        with shut(write(place / "plates/b.zarr", noise(40, 50), "yx")):
            found = find_images([named])
        monkeypatch.undo()
    assert [image.name.as_posix() for image in found.images] == ["a.zarr"]
    assert [error.filename for error in found.unreadable] == ["plates/b.zarr"]


@pytest.mark.parametrize("named", [".", "A/1/0"])
def test_it_may_be_named_from_inside(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(plate(tmp_path / "p.zarr", "A/1/0"))
    assert main(["segment", named, "-o", str(tmp_path / "out"), "--format", "coco"]) == 0
    (result,) = (path for path in (tmp_path / "out").rglob("*.coco.json"))
    assert json.loads(result.read_bytes())["images"][0]["file_name"] == "p_A_1_0.ome.tif"


def test_a_chunk_that_may_not_be_read_is_no_damage() -> None:
    with open_to_all() as place:
        folder = write(place / "a.zarr", noise(40, 50), "yx", 2)
        with shut(folder / "s0/0.0"), pytest.raises(PermissionError), readable(folder):
            pass


@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_a_field_whose_metadata_are_damaged_fails_and_others_do_not(
    packages: Path, tmp_path: Path, damage: str
) -> None:
    folder = plate(tmp_path / "p.zarr", "A/1/0", "A/1/1")
    file = folder / "A/1/0/.zattrs"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:50])
    else:
        file.unlink()
    assert main(["segment", str(folder), "-o", str(tmp_path / "out")]) == 1
    (failure,) = json.loads((tmp_path / "out/failures.json").read_bytes())
    assert (failure["image"], failure["type"]) == (str(folder / "A/1/0"), "/problems/undecodable-image")
    assert (tmp_path / "out/p/A/1/1_mask.png").exists()


def test_links_among_groups_give_no_image_twice(tmp_path: Path) -> None:
    folder = plate(tmp_path / "p.zarr", "A/1/0")
    (folder / "A/1/up").symlink_to("..")
    (folder / "A/1/again").symlink_to("../..")
    (folder / "A/1/same").symlink_to("0")
    assert [image.name.as_posix() for image in find_images([str(folder)]).images] == ["p/A/1/0"]


def test_more_than_may_be_and_more_than_there_is_room_for_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a.zarr", noise(3, 40, 50), "cyx")
    with pytest.raises(ImageTooLarge, match=r"2000 pixels of each channel, the limit is 1999"):  # noqa: SIM117
        with readable(folder, 1999):
            pass
    zarr.open_group(tmp_path / "a.zarr", mode="a").create_array(
        "s0", shape=(3, 10**7, 10**7), dtype="uint16", chunks=(1, 512, 512), overwrite=True
    )
    with pytest.raises(OSError, match=r"takes 600000000000000 bytes, the temporary folder '.*' has \d+; .* TMPDIR"):  # noqa: SIM117
        with readable(folder):
            pass


def test_one_that_has_no_room_in_the_temporary_folder_keeps_no_other_from_its_result(
    packages: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in/a.zarr", noise(400, 500), "yx", chunk=(100, 100))
    write(tmp_path / "in/b.zarr", noise(40, 50), "yx")
    with small_disk(100_000):
        assert main(["segment", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    (failure,) = json.loads((tmp_path / "out/failures.json").read_bytes())
    assert (failure["image"], failure["type"]) == (str(tmp_path / "in/a.zarr"), "file-error")
    assert "takes 400000 bytes, the temporary folder" in failure["message"]
    assert (tmp_path / "out/b_mask.png").exists()


def test_the_copy_is_broken_off_when_nobody_wants_it_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_copy, "_BLOCK_BYTES", 1)
    asked = iter([False, False, True])
    folder = write(tmp_path / "a.zarr", noise(3, 40, 50), "cyx")
    with pytest.raises(CancelledError), readable(folder, closed=lambda: next(asked)):
        pass


@pytest.mark.parametrize("block_bytes", [1, 20_000, 60_000, 1 << 26])
@pytest.mark.parametrize("chunks", [(1, 2, 64, 64), (3, 5, 20, 90), (2, 1, 70, 41), (9, 9, 99, 99)])
def test_each_chunk_is_read_once_and_every_pixel_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, chunks: tuple[int, ...]
) -> None:
    monkeypatch.setattr(zarr_copy, "_BLOCK_BYTES", block_bytes)
    pixels = noise(4, 5, 70, 90)
    folder = write(tmp_path / "a.zarr", pixels, "tzyx")
    group = zarr.open_group(folder, mode="a")
    group.create_array("s0", shape=pixels.shape, dtype="uint16", chunks=chunks, overwrite=True)[...] = pixels
    reads: list[str] = []
    read = LocalStore.get

    async def counted(store: LocalStore, key: str, *others: Any, **named: Any) -> Any:
        reads.append(key)
        return await read(store, key, *others, **named)

    monkeypatch.setattr(LocalStore, "get", counted)
    with readable(folder) as copy, copy.path.open("rb") as file:
        np.testing.assert_array_equal(tifffile.imread(file), pixels)
    found = sorted(key for key in reads if "c/" in key)
    assert len(found) == math.prod(math.ceil(size / chunk) for size, chunk in zip(pixels.shape, chunks, strict=True))
    assert found == sorted(set(found))


def test_a_copy_has_no_name_that_a_killed_process_could_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with readable(write(tmp_path / f"{'n' * 240}.ome.zarr", noise(40, 50), "yx")) as copy:
        assert list(place.iterdir()) == []
        assert copy.name == f"{'n' * 240}.ome.tif"


@VERSIONS
def test_axes_may_have_names_of_their_own_where_their_types_tell(tmp_path: Path, version: int) -> None:
    folder = write(tmp_path / "a.zarr", noise(2, 3, 4, 20, 30), "tczyx", version)
    file = folder / ("zarr.json" if version == 3 else ".zattrs")
    found = json.loads(file.read_bytes())
    above = found["attributes"]["ome"] if version == 3 else found
    above["multiscales"][0]["axes"] = [
        {"name": "frame", "type": "time"},
        {"name": "channel", "type": "channel"},
        *({"name": name, "type": "space"} for name in "ZYX"),
    ]
    file.write_text(json.dumps(found))
    with readable(folder) as copy, copy.path.open("rb") as stack, tifffile.TiffFile(stack) as tiff:
        assert (tiff.series[0].axes, tiff.series[0].shape) == ("TCZYX", (2, 3, 4, 20, 30))


@pytest.mark.parametrize(
    ("unit", "size"),
    [("um", 0.325), ("µm", 0.325), ("Micrometer", 0.325), ("micron", 0.325), ("nm", 325), ("meter", 3.25e-7)],
)
def test_units_have_the_names_that_writers_give_them(tmp_path: Path, unit: str, size: float) -> None:
    folder = write(tmp_path / "a.zarr", noise(20, 30), "yx", units={"y": unit, "x": unit}, size=size)
    with readable(folder) as copy, copy.path.open("rb") as file, open_image(file, ReadLimits(10**9, 10**9)) as image:
        assert image.header.pixel_size_um == pytest.approx((0.325, 0.325))


def test_names_of_channels_may_be_missing_or_hold_what_no_xml_does(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.zarr", noise(3, 20, 30), "cyx", names=("a\0b\ud800<", "", "c"))
    edited(lambda ome: ome["omero"]["channels"][1].update(label=None))(folder)
    with readable(folder) as copy, copy.path.open("rb") as file, open_image(file, ReadLimits(10**9, 10**9)) as image:
        assert image.header.channel_names == ("a b <", "", "c")
        assert image.header.pixel_size_um == pytest.approx((0.325, 0.325))


@pytest.mark.parametrize("server", [(), ("--url", "http://127.0.0.1:9")])
def test_a_stack_is_refused_for_a_format_of_one_plane_before_a_pixel_of_it_is_read(
    packages: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Sequence[str],
) -> None:
    def read(*_: object) -> NoReturn:
        raise AssertionError

    folder, mask = write(tmp_path / "a.zarr", noise(3, 40, 50), "zyx"), tmp_path / "mask.png"
    with monkeypatch.context() as patched:
        patched.setattr(zarr_copy, "_read", read)
        assert main(["segment", str(folder), "-o", str(mask), *server]) == 1
    assert "PNG holds one plane, the result is a stack; ask for format=tiff" in capsys.readouterr().err
    assert not mask.exists()
    if not server:
        assert main(["segment", str(folder), "-o", str(mask.with_suffix(".tif"))]) == 0
        assert main(["segment", str(folder), "-o", str(mask), "--axes", "CYX", "--channel", "1"]) == 0


def test_tables_beside_images_are_none_and_no_failures(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "sample.zarr", mode="w")
    table = root.create_group("tables/cells", attributes={"encoding-type": "anndata"})
    table.create_array("X", shape=(3, 4), dtype="float32")
    root.create_group("images")
    write(tmp_path / "sample.zarr/images/field", noise(20, 30), "yx")
    found = find_images([str(tmp_path / "sample.zarr")])
    assert [image.name.as_posix() for image in found.images] == ["sample/images/field"]


def test_an_array_that_is_named_says_what_it_is(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "a.zarr", noise(20, 30), "yx")
    assert main(["segment", str(folder / "s0"), "-o", str(tmp_path / "out")]) == 1
    assert "is an array of Zarr, not an image in OME-Zarr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((257, 1, 1, 1), "257 channels, the limit is 256; write fewer"),
        ((1, 32_769, 1, 1), "32769 planes, the limit is 32768; split it"),
    ],
)
def test_planes_and_channels_that_nobody_would_read_are_not_copied(
    tmp_path: Path, shape: tuple[int, ...], said: str
) -> None:
    folder = write(tmp_path / "a.zarr", noise(1, 1, 1, 1), "czyx")
    zarr.open_group(folder, mode="a").create_array(
        "s0", shape=shape, dtype="uint8", chunks=(256, 4096, 1, 1), overwrite=True
    )
    with pytest.raises(ImageTooLarge, match=said), readable(folder):
        pass


def test_metadata_that_may_not_be_read_are_no_damage() -> None:
    with open_to_all() as place:
        folder = write(place / "a.zarr", noise(40, 50), "yx")
        with shut(folder / "zarr.json"):
            assert [image.path for image in find_images([str(folder)]).images] == [folder]
            with pytest.raises(PermissionError), readable(folder):
                pass


def test_a_copy_of_a_store_that_lies_elsewhere_counts_as_the_same_images(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, here = (tmp_path / at / "a.zarr" for at in ("there", "here"))
    shutil.copytree(write(there, noise(40, 50), "yx"), here)
    call = ["segment", "-o", str(tmp_path / "out")]
    assert main([*call, str(there)]) == 0
    assert main([*call, str(here)]) == 0
    assert "1 was there" in capsys.readouterr().out
    zarr.open_array(here / "s0", mode="r+")[0, 0] = 9
    assert main([*call, str(here)]) == 1
    assert "which is still there; use another -o" in capsys.readouterr().err


def test_a_file_that_its_writer_takes_away_meanwhile_changes_no_stamp(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.zarr", noise(40, 50), "yx", 2)
    before = stamp(folder)
    (folder / "s0/0.0.partial").symlink_to(tmp_path / "gone")
    assert stamp(folder) == before
