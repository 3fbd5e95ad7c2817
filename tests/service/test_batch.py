"""Files on the command line: which are taken, what results are called, what a failure does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.batch import BadTarget, NoImages, Work, choose_format, find_images, plan, run, write_atomically
from service.formats import UndecodableImage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tif", "a.png", "a_mask.png", "b_labels.tif", "notes.txt", "C.TIFF"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_gives_its_images_without_earlier_results(folder: Path) -> None:
    assert [path.name for path in find_images([str(folder)])] == ["C.TIFF", "a.png", "b.tif"]


def test_a_file_a_pattern_and_a_folder_together_give_each_image_once(folder: Path) -> None:
    named = [str(folder / "b.tif"), str(folder / "*.png"), str(folder)]
    assert [path.name for path in find_images(named)] == ["b.tif", "a.png", "a_mask.png", "C.TIFF"]


def test_a_name_that_leads_nowhere_is_reported(folder: Path) -> None:
    with pytest.raises(NoImages, match="nothing-"):
        find_images([str(folder / "nothing-*.tif")])


@pytest.mark.parametrize(
    ("out", "output", "asked", "expected"),
    [
        ("m.tif", "mask", None, "tiff"),
        ("m.tiff", "mask", None, "tiff"),
        ("m.json", "mask", None, "rle"),
        ("m.npy", "mask", None, "npy"),
        ("m.TIFF", "mask", "tiff", "tiff"),
        ("m.json", "mask", "coco", "coco"),
        ("m.mask", "mask", "png", "png"),
        ("folder", "mask", "npy", "npy"),
        ("folder", "labels", None, "png"),
        ("folder", "probabilities", None, "tiff"),
    ],
)
def test_the_format_follows_the_option_then_the_suffix_then_the_output(
    out: str, output: str, asked: str | None, expected: str
) -> None:
    assert choose_format([Path("a.png")], Path(out), output, asked) == expected


@pytest.mark.parametrize(
    ("out", "asked", "said"),
    [
        ("m.xyz", None, "no suffix of a format; use one of .geojson, .json, .npy, .png, .tif, .tiff, .zip"),
        ("m.png", "tiff", "a name for png, the format asked for is tiff; name it .tif"),
        ("m.tif", "png", "a name for tiff, the format asked for is png; name it .png"),
        ("m.geojson", "coco", "a name for geojson, the format asked for is coco; name it .json"),
    ],
)
def test_a_result_file_that_does_not_go_with_the_format_is_refused(out: str, asked: str | None, said: str) -> None:
    with pytest.raises(BadTarget, match=re.escape(said)):
        choose_format([Path("a.png")], Path(out), "mask", asked)


def test_one_image_goes_to_the_named_file_and_several_to_a_folder() -> None:
    one, two = Path("x/a.png"), Path("y/b.tif")
    assert plan([one], Path("out.tif"), "mask", "tiff") == [Work(one, Path("out.tif"))]
    assert plan([one], Path("out"), "mask", "tiff") == [Work(one, Path("out/a_mask.tif"))]
    assert [item.target.name for item in plan([one, two], Path("out"), "labels", "png")] == [
        "a_labels.png",
        "b_labels.png",
    ]


def test_images_of_one_stem_do_not_replace_each_other() -> None:
    images = [Path("a.png"), Path("a.tif")]
    assert len({item.target for item in plan(images, Path("out"), "mask", "png")}) == 2


def test_a_bad_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    def segment(image: Path) -> bytes:
        if image.name == "bad":
            raise UndecodableImage("broken")
        return b"mask"

    work = [Work(tmp_path / name, tmp_path / "out" / name) for name in ("one", "bad", "two")]
    assert run(work, segment) == {tmp_path / "bad": "broken"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"precious")
    failures = run([Work(image, tmp_path / "x" / ".." / "a.png")], lambda _: b"mask")
    assert "would replace an input" in failures[image]
    assert image.read_bytes() == b"precious"


def test_a_result_that_cannot_be_written_leaves_no_debris(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"mask")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
