"""``unet-service`` in this process: exit status, what is written, what is said."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from model.cost import Measurement
from model.package import read_package
from model.stitching import Run
from service.batch.images import Found, find_images
from service.cli import main
from service.settings import Settings
from tests.app_client import ready_app
from tests.foreign import write_foreign_package
from tests.images import disc, png
from tests.live import live_server, wait_until
from tests.packages import with_variant, write_tiny_package


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packages and two images, and an environment that names the packages."""
    write_tiny_package(tmp_path / "packages")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(png(disc()))
    (images / "b.png").write_bytes(png(disc(50, 70)))
    monkeypatch.setenv("UNET_MODELS_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    return tmp_path


def test_one_image_becomes_one_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = workplace / "mask.png"
    assert main(["segment", str(workplace / "images" / "a.png"), "-o", str(out)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.where(disc() > 110, 255, 0))
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_a_folder_becomes_a_folder_and_a_bad_file_sets_the_status(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "images" / "bad.tif").write_text("text")
    out = workplace / "out"
    arguments = ["segment", str(workplace / "images"), "-o", str(out), "--output", "labels", "--format", "tiff"]
    assert main(arguments) == 1
    assert sorted(path.name for path in out.iterdir()) == [".unet", "a_labels.tif", "b_labels.tif", "failures.json"]
    assert "bad.tif: the file is no known image" in capsys.readouterr().err
    (failure,) = json.loads((out / "failures.json").read_text())
    assert failure["image"] == str(workplace / "images" / "bad.tif")
    assert failure["type"] == "/problems/unsupported-image-format"


def test_what_a_folder_leaves_out_is_said_and_what_cannot_be_looked_into_is_a_failure(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may look into every folder; tests/service/batch/test_names.py meets real ones as another user."""
    out, images = workplace / "out", workplace / "images"
    (images / "c_mask.png").write_bytes(png(disc()))

    def with_a_shut_folder(*given: Any) -> Found:
        shut = OSError(errno.EACCES, "Permission denied", str(images / "shut"))
        return replace(find_images(*given), unreadable=[shut])

    monkeypatch.setattr("service.commands.segment.find_images", with_a_shut_folder)
    assert main(["segment", str(images), "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert f"left out, called as results are: {images}/c_mask.png; name them" in said.err
    assert f"{images}/shut: cannot be looked into: Permission denied; make it readable and start again" in said.err
    assert "1 folder or name leads to no image" in said.err
    assert said.out == f"wrote 2 results to {out}\n"
    (failure,) = json.loads((out / "failures.json").read_text())
    assert failure["image"] == str(images / "shut")
    assert main(["segment", str(images), "-o", str(out / "x.png")]) == 1


def test_a_pattern_takes_no_results_of_earlier_calls_for_images_and_follows_links_once(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = workplace / "images"
    (images / "c_labels.png").write_bytes(png(disc()))
    (images / "latest").symlink_to(images)
    call = ["segment", f"{images}/**/*.png", "-o"]
    assert main([*call, str(images / "labels"), "--output", "labels"]) == 0
    capsys.readouterr()
    assert main([*call, str(images / "masks")]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote 3 results to {images / 'masks'}\n"
    made = ", ".join(f"{images}/labels/{name}_labels.png" for name in ("a", "b", "c_labels"))
    assert f"left out, called as results are: {made}; name them" in said.err
    assert f"left out, links to folders that are looked into otherwise: {images}/latest\n" in said.err


def test_results_beside_their_images_are_known_and_not_spoken_of(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = workplace / "images"
    assert main(["segment", str(images), "-o", str(images)]) == 0
    assert main(["segment", str(images), "-o", str(images)]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote 2 results to {images}\nwrote 0 results to {images}, 2 were there\n"
    assert "left out" not in said.err


def test_a_newcomer_of_the_same_stem_leaves_a_finished_result_alone(workplace: Path) -> None:
    images, out = workplace / "images", workplace / "out"
    assert main(["segment", str(images), "-o", str(out)]) == 0
    before = (out / "a_mask.png").stat()
    np.save(images / "a.npy", disc(30, 30))
    assert main(["segment", str(images), "-o", str(out)]) == 0
    assert sorted(path.name for path in out.glob("*.png")) == ["a_mask.png", "a_npy_mask.png", "b_mask.png"]
    assert (out / "a_mask.png").stat().st_ino == before.st_ino, "it was made again"


def test_masks_that_people_made_or_corrected_stay_and_are_counted(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = workplace / "images"
    call = ["segment", str(images), "-o", str(images)]
    mask = images / "a_mask.png"
    mask.write_bytes(png(disc(9, 9)))
    assert main(call) == 1
    said = capsys.readouterr()
    assert mask.read_bytes() == png(disc(9, 9))
    assert said.out == f"wrote 1 result to {images}\n"
    assert f"'{mask}' was not made here; move it, or give --overwrite" in said.err
    assert "1 of 2 images failed, 1 of them so as not to replace what was changed, " in said.err
    assert main([*call, "--overwrite"]) == 0
    with Image.open(mask) as made:
        assert made.size == disc().shape[::-1]


def test_names_that_lead_nowhere_and_what_is_no_file_fail_beside_the_rest(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = workplace / "images", workplace / "out"
    os.mkfifo(images / "pipe.png")
    (images / "empty").mkdir()
    (workplace / "list").write_text("images/pipe.png\n")
    names = [str(images / name) for name in ("gone.png", "a.png", "empty", "pipe.png")]
    assert main(["segment", *names, "--list", str(workplace / "list"), "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == f"wrote 1 result to {out}\n"
    assert f"{names[0]}: leads to no image; name files" in said.err
    assert f"'{names[3]}' is a pipe, a socket or a device; write the image to a file" in said.err
    assert "1 of 2 images failed and 2 folders or names lead to no image; " in said.err
    assert [entry["image"] for entry in json.loads((out / "failures.json").read_text())] == [
        names[0],
        names[2],
        names[3],
    ]
    assert main(["segment", names[1], names[0], "-o", str(workplace / "x.png")]) == 1
    assert (workplace / "x.png" / "a_mask.png").exists(), "it was taken for one result: two images are named"
    assert main(["segment", names[3], "-o", str(workplace / "y.png")]) == 1
    assert main(["segment", names[0], names[2], "-o", str(workplace / "z")]) == 2


def test_corrected_masks_count_as_there_and_their_copies_are_no_images(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = workplace / "images"
    out = images / "results"
    call = ["segment", f"{images}/**/*.png", "-o", str(out)]
    assert main(call) == 0
    shutil.copy(out / "b_mask.png", out / "b_mask_corrected.png")
    (out / "a_mask.png").write_bytes(png(disc(9, 9)))
    capsys.readouterr()
    assert main(call) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote 0 results to {out}, 2 were there, 1 of them changed since they were made\n"
    assert f"left out, in the folder of results: {out}/b_mask_corrected.png; name" in said.err
    assert (out / "a_mask.png").read_bytes() == png(disc(9, 9))
    (images / "c.png").write_bytes(b"junk")
    assert main([*call, "--threshold", "0.9"]) == 1
    said = capsys.readouterr()
    assert said.err.index("c.png: ") < said.err.index("a_mask.png' has been changed since it was made"), "hidden"


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_image_of_no_bytes_loses_its_result_wherever_it_is_segmented(
    workplace: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    image, out = workplace / "images" / "a.png", workplace / "out"
    with live_server(workplace, workplace / "packages") as server:
        call = ["segment", str(image), "-o", str(out), *(["--url", server.url] if where == "there" else [])]
        assert main(call) == 0
        image.write_bytes(b"")
        assert main(call) == 1
    said = capsys.readouterr().err
    assert f"'{image}' is empty, it has 0 bytes; copy or write it again; the result of what was there before" in said
    assert not list(out.glob("*.png"))


def test_one_more_line_of_a_list_renames_no_result(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed, out = workplace / "list", workplace / "out"
    call = ["segment", "--list", str(listed), "-o", str(out)]
    listed.write_text("images/a.png\n")
    assert main(call) == 0
    (workplace / "more").mkdir()
    shutil.copy(workplace / "images" / "b.png", workplace / "more" / "b.png")
    listed.write_text("images/a.png\nmore/b.png\n")
    capsys.readouterr()
    assert main(call) == 0
    assert capsys.readouterr().out == f"wrote 1 result to {out}, 1 was there\n"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["a_mask.png", "more/b_mask.png"]


def test_integers_are_named_in_the_receipt_and_what_they_have_done_stays_done(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = with_variant(read_package(workplace / "packages" / "tiny"), gain=19.9)
    variant = package.spec.variant("int8")
    assert variant is not None
    call = ["segment", str(workplace / "images" / "a.png"), "-o", str(workplace / "out"), "--precision", "int8"]
    call += ["--format", "rle"]
    assert main(call) == 0
    (result,) = (workplace / "out").glob("*.json")
    receipt = json.loads(result.read_text())["receipt"]
    assert (receipt["precision"], receipt["model"]["variants"]) == ("int8", {"int8": variant.weights.sha256})
    assert receipt["model"]["sha256"] == package.sha256
    assert receipt["agreement"]["largest_difference"] > 0
    capsys.readouterr()
    assert main(call) == 0
    assert capsys.readouterr().out.endswith("1 was there\n")


def test_a_server_segments_a_folder_and_what_it_has_done_stays_done(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["segment", str(workplace / "images"), "-o", str(workplace / "out")]
    with live_server(workplace, workplace / "packages") as server:
        assert main([*arguments, "--url", server.url]) == 0
        assert main([*arguments, "--url", server.url, "--respond-async"]) == 0
        assert main([*arguments[:2], "-o", str(workplace / "jobs"), "--url", server.url, "--respond-async"]) == 0
        wait_until(lambda: sum(event.get("path", "").endswith("/result") for event in server.events()) == 2)
    assert "wrote 0 results" in capsys.readouterr().out.splitlines()[1]
    np.testing.assert_array_equal(
        np.asarray(Image.open(workplace / "out" / "a_mask.png")), np.where(disc() > 110, 255, 0)
    )


@pytest.mark.parametrize("fits", [False, True])
def test_what_failed_before_the_disk_was_full_is_said_and_listed_where_that_has_room(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fits: bool
) -> None:
    images, out = workplace / "images", workplace / "out"
    (images / "0.tif").write_text("text")
    flush = os.fsync
    full = [OSError(errno.ENOSPC, "No space left on device")] * (1 if fits else 9)

    def fsync(descriptor: int) -> None:
        if full:
            raise full.pop()
        flush(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    # nothing else is written: no speeds are kept
    assert main(["segment", str(images), "-o", str(out), "--in-flight", "1", "--cache-dir", "none"]) == 1
    said = capsys.readouterr().err
    assert "0.tif: the file is no known image" in said
    assert "No space left on device; make room and start again" in said
    list_is = f"{out}/failures.json lists them" if fits else "no room is left for a list of them"
    assert f"1 failed, {list_is}\n" in said
    assert (out / "failures.json").exists() == fits


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="names are text there")
def test_names_that_are_no_text_or_hold_commands_of_a_terminal_are_said_escaped(workplace: Path) -> None:
    out = os.fsencode(workplace) + b"/r\xe9s"
    bad = workplace / "images" / "x\x1b[2J\nwrote all.tif"
    bad.write_text("text")
    done = subprocess.run(
        [sys.executable, "-m", "service", "segment", workplace / "images", "-o", out],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.decode() == f"wrote 2 results to {workplace}/r\\udce9s\n"
    assert f"{workplace}/images/x\\x1b[2J\\nwrote all.tif: the file is no known image" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_what_was_asked_for_is_part_of_a_result_here_and_on_a_server(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--output", "labels", "--mirror", "--min-score", "0.25", "--link", "0.5", "--pixel-size", "0.5,0.65"]
    image = workplace / "images" / "a.png"
    with live_server(workplace, workplace / "packages") as server:
        for where in ([], ["--url", server.url]):
            out = workplace / f"out{len(where)}"
            call = ["segment", str(image), "-o", str(out), "--format", "rle", *where]
            said = []
            for more in (asked[:2], asked[:3], asked[:5], asked[:7], asked, asked):
                assert main([*call, *more]) == 0
                said.append(capsys.readouterr().out.splitlines()[-1])
            assert ["1 was there" in line for line in said] == [False, False, False, False, False, True]
            (result,) = out.glob("*.json")
            document = json.loads(result.read_text())
            receipt = document["receipt"]
            assert document["pixel_size_um"] == [0.5, 0.65]
            output = receipt["output"]
            assert (receipt["tiles"]["views"], output["min_score"], output["link"]) == (8, 0.25, 0.5)


def test_a_channel_is_named_and_axes_are_said_here_and_on_a_server(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = np.stack([np.zeros_like(disc()), disc()])
    labels = {"axes": "CYX", "Labels": ["actin", "DAPI"]}
    tifffile.imwrite(workplace / "named.tif", slices, imagej=True, metadata=labels)
    tifffile.imwrite(workplace / "slices.tif", slices, imagej=True, metadata={"axes": "ZYX"})
    with live_server(workplace, workplace / "packages") as server:
        for where in ([], ["--url", server.url]):
            for file, *asked in (
                ("named.tif", "--channel", "dapi"),
                ("slices.tif", "--axes", "CYX", "--channel", "1"),
            ):
                out = workplace / f"out{len(where)}"
                call = ["segment", str(workplace / file), "-o", str(out), *asked, *where]
                assert main(call) == 0
                with Image.open(out / f"{file[:-4]}_mask.png") as mask:
                    np.testing.assert_array_equal(np.asarray(mask), np.where(disc() > 110, 255, 0))
                capsys.readouterr()
                assert main(call) == 0
                assert "1 was there" in capsys.readouterr().out


def test_where_a_region_lies_is_part_of_its_result_here_and_on_a_server(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["segment", str(workplace / "images" / "a.png"), "--format", "geojson", "--output", "labels"]
    found = []
    with live_server(workplace, workplace / "packages") as server:
        for where in ([], ["--url", server.url]):
            out = workplace / f"out{len(where)}"
            for place in ("100.5,2000", "7,2000", "7,2000"):
                assert main([*call, "-o", str(out), "--origin", place, "--downsample", "4", *where]) == 0
            said = capsys.readouterr().out.splitlines()
            assert ["1 was there" in line for line in said] == [False, False, True]
            (result,) = out.glob("*.geojson")
            document = json.loads(result.read_text())
            assert document["receipt"]["output"]["origin_yx"] == [7, 2000]
            found.append(document["features"])
    assert found[0] == found[1]
    assert min(x for x, _ in found[0][0]["geometry"]["coordinates"][0]) > 2000


def test_coco_names_the_image_here_and_on_a_server(workplace: Path) -> None:
    image = (workplace / "images" / "a.png").rename(workplace / "images" / "zelle ü.png")
    with live_server(workplace, workplace / "packages") as server:
        for where in ([], ["--url", server.url]):
            out = workplace / f"out{len(where)}.json"
            assert main(["segment", str(image), "-o", str(out), "--format", "coco", "--output", "labels", *where]) == 0
            assert [entry["file_name"] for entry in json.loads(out.read_text())["images"]] == ["zelle ü.png"]


def test_objects_become_a_table(workplace: Path) -> None:
    out = workplace / "a.csv"
    call = ["segment", str(workplace / "images" / "a.png"), "-o", str(out), "--output", "labels"]
    assert main([*call, "--pixel-size", "0.5"]) == 0
    header, line = out.read_text().splitlines()
    row = dict(zip(header.split(","), line.split(","), strict=True))
    area = int((disc() > 110).sum())
    assert (row["label"], row["plane"], row["area_px"], row["area_um2"]) == ("1", "0", str(area), f"{area / 4:g}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is nothing to segment"),
        (["IMAGES", "--origin", "1,2"], "format png takes neither; ask for format=geojson"),
        (["IMAGES", "--output", "mask", "--format", "csv"], "output=mask has none; ask for output=labels"),
        (["IMAGES", "--output", "probabilities", "--format", "rois"], "ask for output=mask or labels"),
        (["IMAGES", "--output", "probabilities", "--format", "png"], "PNG has no floating point samples"),
        (["IMAGES", "--pixel-size", "0"], "give the size of one pixel, such as 0.65"),
        (["IMAGES", "--in-flight", "0"], "--in-flight is 0"),
        (["IMAGES", "--respond-async"], "--respond-async is for a server"),
        (["IMAGES", "--shard", "3/3"], "count from 0 to 2"),
        (["IMAGES", "--shard", "auto"], "write --shard I/N"),
    ],
)
def test_a_batch_that_cannot_be_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    given = [str(workplace / "images") if text == "IMAGES" else text for text in arguments]
    assert main(["segment", *given, "-o", str(workplace / "out")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "2"], "threshold is '2'"),
        (["--format", "gif"], "format 'gif' does not exist"),
        (["--backend", "gpu"], "UNET_BACKEND (--backend) is 'gpu'"),
    ],
)
def test_a_wrong_call_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["segment", str(workplace / "images"), "-o", str(workplace / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (workplace / "out").exists()


def test_a_result_file_that_does_not_go_with_the_format_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options, said = workplace / "q.png", ["--format", "tiff"], "a name for png, the format asked for is tiff"
    assert main(["segment", str(workplace / "images" / "a.png"), "-o", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_port_that_is_taken_is_named_with_status_1(workplace: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"unet-service: cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_setting_ends_serve_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNET_PORT", "seventy")
    assert main(["serve"]) == 2
    assert "UNET_PORT (--port) is 'seventy'" in capsys.readouterr().err


def test_models_prints_a_table_and_what_is_not_served(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].split()[:3] == ["tiny@1.0.0", "grey", "background,object"]
    assert "no net was run: unet-service check PACKAGE runs" in shown.err, "its golden pair may still refuse it"
    (workplace / "packages" / "broken.zip").write_bytes(b"")
    assert main(["models"]) == 1
    assert "broken.zip is not served" in capsys.readouterr().err


def test_models_names_packages_that_serve_would_refuse(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = workplace / "packages"
    for copy in ("tiny-again", "tiny-half"):
        shutil.copytree(packages / "tiny", packages / copy)
    (packages / "tiny-half" / "weights.onnx").write_bytes(b"half")
    assert main(["models"]) == 1
    shown = capsys.readouterr()
    assert shown.out.count("tiny@1.0.0") == 1
    assert "tiny-again is not served: tiny@1.0.0 is served from tiny already" in shown.err
    assert "tiny-half is not served: " in shown.err


@pytest.mark.parametrize(("name", "said"), [("nope", "is no folder"), ("images", "holds none; point UNET_MODELS_DIR")])
def test_models_of_what_holds_none_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert main(["models", "--models-dir", str(workplace / name)]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert not shown.out


def test_models_lists_own_packages_beside_those_that_ship(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages, nowhere, impossible = (str(workplace / name) for name in ("packages", "nowhere", "x" * 300))
    folders = os.pathsep.join([packages, "zoo", nowhere, impossible])
    assert main(["models", "--models-dir", folders]) == 1
    shown = capsys.readouterr()
    assert [line.split("@")[0] for line in shown.out.splitlines()[1:]] == ["tiny", "nuclei", "phase-t98g"]
    assert shown.err.startswith(f"{nowhere} is not served: it is no folder")
    assert "xxx is not served: it cannot be looked into: [Errno " in shown.err


def test_a_model_that_ships_beside_own_packages_segments(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", str(workplace / "images" / "a.png"), "-o", str(workplace / "m.png"), "--model", "nuclei"]
    assert main(command) == 1
    assert "nuclei ships with the software: add zoo to UNET_MODELS_DIR" in capsys.readouterr().err
    folders = os.pathsep.join([str(workplace / "packages"), "zoo"])
    assert main([*command, "--models-dir", folders]) == 0
    assert np.asarray(Image.open(workplace / "m.png")).shape == disc().shape


def test_check_says_the_label_rule_and_whose_it_is(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(workplace / "packages" / "tiny")]) == 0
    words = "objects are the connected areas where 'object' is above 0.5"
    assert f"labels     {words} (rule of the package)" in capsys.readouterr().out
    assert main(["check", str(write_foreign_package(workplace / "foreign"))]) == 0
    assert "'foreground' - 'boundary' is above 0.5" in (shown := capsys.readouterr().out)
    assert "(rule of the channels' names; the package has none)" in shown
    assert main(["check", str(write_foreign_package(workplace / "mute", classes=("channel0", "channel1")))]) == 1
    assert "add a rule to its description, such as config: {unet_service: {labels: " in capsys.readouterr().err


def test_check_says_what_a_package_serves(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(workplace / "packages" / "tiny")]) == 0
    shown = capsys.readouterr().out
    assert "tiny@1.0.0" in shown
    assert "CPUExecutionProvider" in shown


def test_check_refuses_a_package_whose_weights_were_changed(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "packages" / "tiny" / "weights.onnx").write_bytes(b"")
    assert main(["check", str(workplace / "packages" / "tiny")]) == 1
    assert "refused" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_a_failure_per_image(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", str(workplace / "images" / "a.png"), "-o", str(workplace / "m.png")]
    assert main([*arguments, "--url", "http://127.0.0.1:9"]) == 1
    assert "is the service running?" in capsys.readouterr().err


def test_plan_prints_tiles_time_and_memory(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "300x2000"]) == 0
    shown = capsys.readouterr().out
    assert "tiny@1.0.0 on CPUExecutionProvider in fp32" in shown
    assert "300 rows x 2000 columns" in shown
    assert "chosen" in shown


def test_plan_as_json_agrees_with_itself_and_with_what_is_served(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "900x1300", "--json", "--memory-budget-mb", "128", "--model", "tiny"]) == 0
    report = json.loads(capsys.readouterr().out)
    plan = report["plan"]
    assert plan["tiles"] == math.prod(
        math.ceil(size / stride) for size, stride in zip((900, 1300), plan["stride_yx"], strict=True)
    )
    assert plan["memory_bytes"] == plan["batch"] * math.prod(plan["input_yx"]) * 16
    assert plan["notes"][0] == "chosen"
    assert report["machine"]["cpus"] >= 1
    assert plan["stride_yx"] not in [other["stride_yx"] for other in report["alternatives"]]
    (workplace / "wide.png").write_bytes(png(disc(900, 1300)))
    out = workplace / "wide.json"
    assert main(["segment", str(workplace / "wide.png"), "-o", str(out), "--format", "rle"]) == 0
    receipt = json.loads(out.read_text())["receipt"]
    assert (receipt["precision"], "agreement" in receipt) == ("fp32", False)


@pytest.mark.parametrize(("size", "on_disk"), [("300x700", False), ("9000x9000", True)])
@pytest.mark.parametrize("mirror", [False, True])
def test_plan_is_what_the_service_says(
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    size: str,
    *,
    on_disk: bool,
    mirror: bool,
) -> None:
    def measure(_run: Run, _channels: int, shapes: Sequence[tuple[int, int]], *_: object) -> tuple[Measurement, ...]:
        """Equal speeds for both; what this machine takes differs from one moment to the next."""
        return tuple(Measurement(shape, 1e-8 * math.prod(shape) ** 1.1) for shape in shapes)

    monkeypatch.setattr("service.engine.packages.planning.measure", measure)
    monkeypatch.setenv("UNET_CACHE_DIR", "none")  # nor are they those of other tests, or theirs
    arguments = ["plan", size, "--output", "labels", "--memory-budget-mb", "256", *["--mirror"] * mirror]
    assert main(arguments) == 0
    assert (", 8 views of it" in capsys.readouterr().out) == mirror
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    plan, image = report["plan"], report["image"]
    assert (image["views"], image["output"]) == (8 if mirror else 1, "labels")
    assert plan["tiles"] == image["views"] * math.prod(
        math.ceil(length / stride) for length, stride in zip(image["size_yx"], plan["stride_yx"], strict=True)
    )
    assert (image["disk_bytes"] > 0) == on_disk
    served_with = Settings(
        memory_budget_mb=256,
        models_dir=workplace / "packages",
        backend="cpu",
        default_model="tiny",
    )
    with ready_app(served_with) as client:
        asked = {"size": size, "output": "labels", "mirror": mirror, "timeout": 300}
        served = client.get("/plan", params=asked).json()
    assert served["tiles"] == plan["tiles"]
    assert (served["memory_bytes"], served["disk_bytes"]) == (image["memory_bytes"], image["disk_bytes"])
    assert served["finishing_seconds"] == round(image["finishing_seconds"], 3) > 0


def test_plan_is_for_the_scale_that_is_asked_for_and_counts_the_search_of_one(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_run: Run, _channels: int, shapes: Sequence[tuple[int, int]], *_: object) -> tuple[Measurement, ...]:
        return tuple(Measurement(shape, 1e-8 * math.prod(shape)) for shape in shapes)

    def planned(size: str, *options: str) -> dict[str, Any]:
        assert main(["plan", size, "--json", *options]) == 0
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    monkeypatch.setattr("service.engine.packages.planning.measure", measure)
    monkeypatch.setenv("UNET_CACHE_DIR", "none")
    own, half, auto = planned("300x700"), *(planned("300x700", "--scale", scale) for scale in ("0.5", "auto"))
    assert half["plan"] == planned("150x350")["plan"]
    assert (own["image"]["scale"], half["image"]["scale"], auto["image"]["scale"]) == (1, 0.5, 1)
    assert auto["plan"] == own["plan"]
    assert own["search"] is half["search"] is None
    # crops of 300 x 700 px at six scales: at 1/16 it is too small; at 4 the net sees 420 x 420 px of them
    seen = sum(min(300 * scale, 420) * min(700 * scale, 420) for scale in (0.125, 0.25, 0.5, 1, 2, 4))
    assert auto["search"]["tiles"] >= 6
    assert 1e-8 * seen < auto["search"]["seconds"] < 3e-8 * seen
    assert main(["plan", "300x700", "--scale", "auto"]) == 0
    assert f"search    {auto['search']['tiles']} tiles before it" in capsys.readouterr().out


def test_plan_marks_what_the_budget_forbids(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "9000x9000", "--json", "--memory-budget-mb", "128"]) == 0
    notes = [other["notes"] for other in json.loads(capsys.readouterr().out)["alternatives"]]
    assert ["the whole image at once", "beyond the memory budget"] in [note[:2] for note in notes]


@pytest.mark.parametrize("size", ["4096", "0x9", "-3x5", "4096x4096x3", "axb", ""])
def test_plan_of_what_is_no_size_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", f"--json={size}" if size.startswith("-") else size])
    assert ended.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["plan", "100000x100000"], 2, "UNET_MAX_PIXELS"),
        (["plan", "64x64", "--model", "cells"], 1, "there are tiny@1.0.0"),
        (["plan", "64x64", "--scale", "half"], 2, "it should be a number from 0.0625 to 16, or auto"),
        (["plan", "5x5", "--scale", "auto"], 1, "the image is too small to look for objects"),
        (["plan", "64x64", "--precision", "bf16"], 1, "backend cpu has none"),
        (["bench", "--seconds", "0"], 2, "--seconds is 0"),
        (["bench", "--seconds", "inf"], 2, "--seconds is inf"),
        (["bench", "--model", "cells"], 1, "there are tiny@1.0.0"),
        (["bench", "--precision", "bf16"], 1, "backend cpu has none"),
    ],
)
def test_what_cannot_be_planned_or_measured_is_explained(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert main(arguments) == status
    assert said in capsys.readouterr().err


def test_bench_prints_the_machine_and_a_line_for_each_engine(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNET_BACKEND", "auto")
    assert main(["bench", "--seconds", "0.2", "--clients", "2", "--size", "64", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["runtimes"]["onnxruntime"]
    assert {("cpu", "fp32"), ("openvino", "fp32")} <= {(r["backend"], r["precision"]) for r in report["results"]}
    for result in report["results"]:
        assert result["requests"] >= 4
        assert result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
        assert result["pixels_per_second"] > 0
        assert (result["agreement"] is None) == (result["precision"] == "fp32")


def test_bench_prints_a_table_of_one_engine(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seconds", "0.2", "--clients", "1", "--size", "64", "--cache-dir", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine  ")
    assert lines[-1].split()[:2] == ["cpu", "fp32"]


@pytest.mark.parametrize(("option", "value"), [("size", "300000"), ("clients", "1000000"), ("size", "0")])
def test_bench_refuses_what_no_machine_does(
    workplace: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    assert main(["bench", f"--{option}", value]) == 2
    assert f"--{option} is {value}" in capsys.readouterr().err
