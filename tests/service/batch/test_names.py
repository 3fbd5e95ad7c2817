"""Files on the command line: which are taken, what they and their results are called."""

from __future__ import annotations

import io
import re
from pathlib import Path, PurePosixPath

import pytest

from service.batch.images import Image, NoImages, find_images
from service.batch.targets import BadTarget, Work, choose_format, plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tif", "a.png", "a_mask.png", "b_labels.tif", "notes.txt", "C.TIFF"):
        (tmp_path / name).touch()
    return tmp_path


def image(path: str, name: str | None = None) -> Image:
    return Image(Path(path), PurePosixPath(name or Path(path).name))


def test_a_folder_gives_its_images_without_earlier_results(folder: Path) -> None:
    assert [found.path.name for found in find_images([str(folder)])] == ["C.TIFF", "a.png", "b.tif"]


def test_a_file_a_pattern_and_a_folder_together_give_each_image_once(folder: Path) -> None:
    named = [str(folder / "b.tif"), str(folder / "*.png"), str(folder)]
    assert [found.path.name for found in find_images(named)] == ["b.tif", "a.png", "a_mask.png", "C.TIFF"]


def test_a_name_that_leads_nowhere_is_reported(folder: Path) -> None:
    with pytest.raises(NoImages, match="nothing-"):
        find_images([str(folder / "nothing-*.tif")])


def test_a_pattern_names_images_below_its_fixed_part_and_leaves_results_out(tmp_path: Path) -> None:
    for name in ("p1/x.tif", "p2/deep/x.tif", "out/p1/x_mask.tif", "p1/y_mask.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([f"{tmp_path}/**/*.tif"], out=tmp_path / "out")
    assert [item.name.as_posix() for item in found] == ["p1/x.tif", "p1/y_mask.tif", "p2/deep/x.tif"]


def test_a_list_gives_its_lines_named_below_what_they_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text(f"plates/1/a.tif\n\n{tmp_path}/plates/2/a.tif\nplates/1/a.tif\n")
    found = find_images([], str(tmp_path / "list.txt"))
    assert [item.name.as_posix() for item in found] == ["1/a.tif", "2/a.tif"]
    assert found[0].path == tmp_path / "plates" / "1" / "a.tif"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("plates/1/a.tif\n"))
    assert [item.path for item in find_images([], "-")] == [tmp_path / "plates" / "1" / "a.tif"]


@pytest.mark.parametrize(("content", "said"), [("\n", "is empty"), (None, "cannot be read")])
def test_a_list_of_nothing_is_reported(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "list").write_text(content)
    with pytest.raises(NoImages, match=said):
        find_images([], str(tmp_path / "list"))


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
    assert choose_format([image("a.png")], Path(out), output, asked) == expected


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
        choose_format([image("a.png")], Path(out), "mask", asked)


def test_one_image_goes_to_the_named_file_and_several_to_a_folder() -> None:
    one, two = image("x/a.png"), image("y/b.tif")
    assert plan([one], Path("out.tif"), "mask", "tiff") == [Work(one, Path("out.tif"))]
    assert plan([one], Path("out"), "mask", "tiff") == [Work(one, Path("out/a_mask.tif"))]
    names = [item.target.name for item in plan([one, two], Path("out"), "labels", "png")]
    assert names == ["a_labels.png", "b_labels.png"]


def test_images_of_one_stem_and_of_different_folders_do_not_replace_each_other() -> None:
    images = [image("a.png"), image("a.tif"), image("p/a.tif", "p/a.tif")]
    targets = [item.target.as_posix() for item in plan(images, Path("out"), "mask", "png")]
    assert targets == ["out/a_png_mask.png", "out/a_tif_mask.png", "out/p/a_mask.png"]


@pytest.mark.parametrize(
    "images",
    [[image("p/a.tif"), image("q/a.tif")], [image("a.tif"), image("a.png"), image("a_tif.png")]],
    ids=["folders", "suffix"],
)
def test_two_images_of_one_result_are_refused_by_name(images: list[Image]) -> None:
    with pytest.raises(BadTarget, match=r"would both become 'out/a_tif_mask\.png'"):
        plan(images, Path("out"), "mask", "png")


def test_no_result_replaces_an_image(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    images = [image(str(tmp_path / name)) for name in ("a.png", "a_mask.png")]
    with pytest.raises(BadTarget, match="would replace an image"):
        plan(images, tmp_path / "link", "mask", "png")
