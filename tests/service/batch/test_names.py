"""Files on the command line: which are taken, what they and their results are called."""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest

from service.batch.images import Found, Image, NoImages, find_images
from service.batch.patterns import matches
from service.batch.targets import BadTarget, EarlierResults, Work, check_case, choose_format, is_file_name, plan
from tests.permissions import unprivileged


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tif", "a.png", "a_mask.png", "b_labels.tif", "notes.txt", "C.TIFF"):
        (tmp_path / name).touch()
    return tmp_path


def image(path: str, name: str | None = None) -> Image:
    return Image(Path(path), PurePosixPath(name or Path(path).name))


class Made(EarlierResults):
    """Results that were made: formats by names of images and results, and the files that results were made from."""

    def __init__(
        self, formats: Mapping[tuple[str, str], str] | None = None, sources: Mapping[str, str] | None = None
    ) -> None:
        self.formats = formats or {}
        self.sources = sources or {}

    def made_as(self, image: Image, target: Path) -> str | None:
        return self.formats.get((image.path.name, target.name))

    def made_from(self, image: Path, target: Path) -> bool:
        return self.sources.get(target.as_posix()) == str(image)


def test_a_folder_gives_its_images_without_earlier_results(folder: Path) -> None:
    assert [found.path.name for found in find_images([str(folder)]).images] == ["C.TIFF", "a.png", "b.tif"]


def test_hidden_files_are_taken_where_they_are_named_alone(folder: Path) -> None:
    for name in ("._a.png", ".b.tif", ".c_mask.png"):
        (folder / name).touch()
    for named in (str(folder), f"{folder}/*"):
        found = find_images([named])
        assert [path.name for path in found.like_results if path.name.startswith(".")] == []
        assert [image.path.name for image in found.images if image.path.name.startswith(".")] == []
    for named in (str(folder / ".b.tif"), f"{folder}/.b*"):
        assert [image.path.name for image in find_images([named]).images] == [".b.tif"]


def test_a_file_a_pattern_and_a_folder_together_give_each_image_once(folder: Path) -> None:
    named = [str(folder / "b.tif"), str(folder / "*.png"), str(folder)]
    assert [found.path.name for found in find_images(named).images] == ["b.tif", "a.png", "a_mask.png", "C.TIFF"]


def test_names_that_lead_nowhere_are_reported_and_end_it_where_no_other_is_left(folder: Path) -> None:
    (folder / "empty").mkdir()
    nowhere = [str(folder / name) for name in ("nothing-*.tif", "gone.png", "empty")]
    with pytest.raises(NoImages, match=r"nothing-\*.tif' leads to no image; name files.*; and 2 more lead nowhere"):
        find_images(nowhere)
    found = find_images([nowhere[0], str(folder / "b.tif"), *nowhere[1:]])
    assert [image.path.name for image in found.images] == ["b.tif"]
    assert [none.named for none in found.nowhere] == nowhere
    assert not is_file_name(found, Path("mask.png"))


@pytest.mark.parametrize(
    ("named", "out", "one"),
    [
        ("only.png", "mask.png", True),
        ("only.*", "mask.TIF", True),
        ("only.png", "results.v2", False),
        ("only.png", "results", False),
        (".", "mask.png", False),
        ("list", "mask.png", False),
        ("only.png", "folder.png", False),
    ],
)
def test_what_results_go_to_depends_on_its_name_and_on_what_is_named_not_on_how_many_there_are_today(
    tmp_path: Path, named: str, out: str, one: bool
) -> None:
    (tmp_path / "only.png").touch()
    (tmp_path / "list").write_text("only.png\n")
    (tmp_path / "folder.png").mkdir()
    found = find_images([], str(tmp_path / "list")) if named == "list" else find_images([str(tmp_path / named)])
    assert len(found.images) == 1
    assert is_file_name(found, tmp_path / out) == one


def test_patterns_take_nothing_from_the_folder_of_results_that_they_lead_around(tmp_path: Path) -> None:
    for name in ("a.png", "results/a_labels_corrected.png", "results/deep/b.png", "results2/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    out = tmp_path / "results"
    found = find_images([f"{tmp_path}/**/*.png"], out=out)
    assert [item.name.as_posix() for item in found.images] == ["a.png", "results2/c.png"]
    assert [path.relative_to(out).as_posix() for path in found.in_results] == ["a_labels_corrected.png", "deep/b.png"]
    inside = find_images([f"{out}/*/*.png"], out=out)
    assert [item.name.as_posix() for item in inside.images] == ["deep/b.png"]
    assert [item.name.as_posix() for item in find_images([f"{out}/deep/../*.png"], out=out).images] != []


@pytest.mark.parametrize("more", ["elsewhere/c.png", "d/a.png"])
def test_an_image_of_a_list_keeps_the_name_of_its_result_when_the_list_gets_another_line(more: str) -> None:
    listed = [Image(Path("/data/d/1/a.png"), PurePosixPath("d/1/a.png"), "list")]
    listed.append(Image(Path("/data", more), PurePosixPath(more), "list"))
    made = Made(sources={"out/1/a_mask.png": "/data/d/1/a.png"})
    planned = plan(listed, Path("out"), "mask", "png", made)
    assert [item.image.name.as_posix() for item in planned] == ["1/a.png", more]
    assert planned[0].target == Path("out/1/a_mask.png")
    made = Made({("a.png", "a_png_mask.png"): "png"}, {"out/a_png_mask.png": "/data/d/1/a.png"})
    long = plan(
        listed[:1],
        Path("out"),
        "mask",
        "png",
        made,
    )
    assert [item.target.as_posix() for item in long] == ["out/a_png_mask.png"]


def test_an_image_keeps_the_name_of_its_result_when_the_other_of_its_stem_is_left_out() -> None:
    made = Made({("a.tif", "a_tif_mask.png"): "png"})
    (item,) = plan([image("a.tif")], Path("out"), "mask", "png", made)
    assert item.target.name == "a_tif_mask.png"


def test_a_pattern_names_images_below_its_fixed_part_and_leaves_results_out(tmp_path: Path) -> None:
    for name in ("p1/x.tif", "p2/deep/x.tif", "out/p1/x_mask.tif", "p1/y_mask.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([f"{tmp_path}/**/*.tif"], is_made=lambda file: file.parent.parent.name == "out").images
    assert [item.name.as_posix() for item in found] == ["p1/x.tif", "p1/y_mask.tif", "p2/deep/x.tif"]


def test_a_list_gives_its_lines_named_below_what_they_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text(f"plates/1/a.tif\n\n{tmp_path}/plates/2/a.tif\nplates/1/a.tif\n")
    found = find_images([], str(tmp_path / "list.txt")).images
    assert [item.name.as_posix() for item in found] == ["1/a.tif", "2/a.tif"]
    assert found[0].path == tmp_path / "plates" / "1" / "a.tif"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("plates/1/a.tif\n"))
    assert [item.path for item in find_images([], "-").images] == [tmp_path / "plates" / "1" / "a.tif"]


def test_lines_of_a_list_that_go_up_have_names_that_do_not(tmp_path: Path) -> None:
    for folder in ("lists", "one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lists" / "list").write_text("../one/a.tif\n../two/./deep/../b.tif\nc.tif\n")
    found = find_images([], str(tmp_path / "lists" / "list")).images
    assert [item.name.as_posix() for item in found] == ["one/a.tif", "two/b.tif", "lists/c.tif"]
    targets = [item.target for item in plan(found, tmp_path / "out", "mask", "png")]
    assert targets == [tmp_path / "out" / name for name in ("one/a_mask.png", "two/b_mask.png", "lists/c_mask.png")]


def test_a_byte_order_mark_is_no_part_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text("a.tif\n", encoding="utf-8-sig")
    assert find_images([], str(tmp_path / "list")).images[0].path == tmp_path / "a.tif"
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffa.tif\n"))
    assert find_images([], "-").images[0].path == Path("a.tif").absolute()


def test_a_list_in_another_encoding_is_explained(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.tif\n", encoding="utf-16")
    with pytest.raises(NoImages, match="save it as text in UTF-8"):
        find_images([], str(tmp_path / "list"))


def test_what_is_called_as_results_are_is_told_and_taken_where_it_is_named(folder: Path) -> None:
    found = find_images([str(folder)])
    assert [path.name for path in found.like_results] == ["a_mask.png", "b_labels.tif"]
    named = find_images([str(folder), str(folder / "a_mask.png")])
    assert "a_mask.png" in [image.path.name for image in named.images]
    assert [path.name for path in named.like_results] == ["b_labels.tif"]
    for name in ("b.tif", "a.png", "C.TIFF"):
        (folder / name).unlink()
    with pytest.raises(NoImages, match="leads to no image, but for 2 that are called as results are"):
        find_images([str(folder)])


def test_links_to_nothing_are_images_that_fail_and_special_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.tif")
    for named in (str(tmp_path), f"{tmp_path}/*.tif"):
        assert [image.path.name for image in find_images([named]).images] == ["gone.tif"]


@pytest.fixture
def plates() -> Iterator[Path]:
    """``open/a.tif``, ``deep/shut/b.tif`` and ``shut/c.tif``, of which nobody may look into what is called ``shut``."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("open/a.tif", "deep/shut/b.tif", "shut/c.tif"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o000 if path.name == "shut" else 0o755)
        yield folder
        for path in (folder / "shut", folder / "deep" / "shut"):
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("pattern", "images", "shut"),
    [
        ("**/*.tif", ["open/a.tif"], ["deep/shut", "shut"]),
        ("**", ["open/a.tif"], ["deep/shut", "shut"]),
        ("*/*.tif", ["open/a.tif"], ["shut"]),
        ("o*/*.tif", ["open/a.tif"], []),
    ],
)
def test_folders_that_a_pattern_cannot_look_into_are_told(
    plates: Path, pattern: str, images: list[str], shut: list[str]
) -> None:
    with unprivileged():
        found = find_images([f"{plates}/{pattern}"])
    assert [image.name.as_posix() for image in found.images] == images
    assert sorted(str(Path(error.filename).relative_to(plates)) for error in found.unreadable) == shut


def test_patterns_follow_links_to_folders_once_and_never_in_circles(tmp_path: Path) -> None:
    for name in ("outside/y.tif", "outside/deep/z.tif", "in/b/x.tif", "in/w.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    links = {
        "in/a": "in/b",
        "in/b/latest": "in/b",
        "in/b/up": ".",
        "in/c": "outside",
        "outside/back": "in",
        "in/d": "outside/deep",
    }
    for link, folder in links.items():
        (tmp_path / link).symlink_to(tmp_path / folder)
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in" / "self")
    found = find_images([f"{tmp_path}/in/**/*.tif"])
    assert [item.name.as_posix() for item in found.images] == ["b/x.tif", "c/deep/z.tif", "c/y.tif", "w.tif"]
    assert sorted(path.relative_to(tmp_path / "in").as_posix() for path in found.links) == [
        "a",
        "b/latest",
        "b/up",
        "c/back",
        "d",
    ]


PATTERNS = "* ** **/* */*.tif **/b/*.tif **/[xy].tif b*/**/?.tif .* .h/* */.h* b/x.* ../*/*"
FILES = "x.tif b/x.tif b/c/y.tif .h/x.tif .x.tif b/.h.tif b/[z].tif bb/b/x.tif"


@pytest.mark.parametrize("pattern", PATTERNS.split())
def test_patterns_mean_what_they_mean_to_glob(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    for name in FILES.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.chdir(folder)
    for text in (pattern, f"{folder}/{pattern}"):
        globbed = glob.glob(text, recursive=True)  # noqa: PTH207 - absolute too
        files = {os.path.normpath(path) for path in globbed if Path(path).is_file()}
        found = {os.path.normpath(path) for path in matches(text).paths if path.is_file()}
        assert found == files != set()


def test_a_folder_of_lost_files_is_passed_by_as_hidden_ones_are(tmp_path: Path) -> None:
    for name in ("lost+found/a.tif", "b/c.tif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for pattern in ("**/*.tif", "*/*.tif", "**"):
        assert [item.path.name for item in find_images([f"{tmp_path}/{pattern}"]).images] == ["c.tif"]
    assert [item.path.name for item in find_images([f"{tmp_path}/lost+found/*"]).images] == ["a.tif"]


def test_a_named_folder_that_cannot_be_looked_into_is_reported(plates: Path) -> None:
    for named in ("shut", "shut/c.tif"):
        with (
            unprivileged(),
            pytest.raises(NoImages, match=r"cannot be looked into: Permission denied; make it readable"),
        ):
            find_images([str(plates / named)])


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
        ("m.mask", "mask", "tiff", "tiff"),
        ("results.v2", "labels", None, "png"),
        ("folder", "mask", "npy", "npy"),
        ("folder", "labels", None, "png"),
        ("folder", "probabilities", None, "tiff"),
    ],
)
def test_the_format_follows_the_option_then_the_suffix_then_the_output(
    out: str, output: str, asked: str | None, expected: str
) -> None:
    one = Found([image("a.png")], [], [], [], [], [])
    assert choose_format(Path(out), output, asked, single=is_file_name(one, Path(out))) == expected


@pytest.mark.parametrize(
    ("out", "asked", "said"),
    [
        ("m.png", "tiff", "a name for png, the format asked for is tiff; name it .tif"),
        ("m.tif", "png", "a name for tiff, the format asked for is png; name it .png"),
        ("m.geojson", "coco", "a name for geojson, the format asked for is coco; name it .json"),
    ],
)
def test_a_result_file_that_does_not_go_with_the_format_is_refused(out: str, asked: str | None, said: str) -> None:
    with pytest.raises(BadTarget, match=re.escape(said)):
        choose_format(Path(out), "mask", asked, single=True)


def test_one_image_goes_to_the_named_file_and_several_to_a_folder() -> None:
    one, two = image("x/a.png"), image("y/b.tif")
    assert plan([one], Path("out.tif"), "mask", "tiff", single=True) == [Work(one, Path("out.tif"))]
    assert plan([one], Path("out"), "mask", "tiff") == [Work(one, Path("out/a_mask.tif"))]
    names = [item.target.name for item in plan([one, two], Path("out"), "labels", "png")]
    assert names == ["a_labels.png", "b_labels.png"]


def test_images_of_one_stem_and_of_different_folders_do_not_replace_each_other() -> None:
    images = [image("a.png"), image("a.tif"), image("p/a.tif", "p/a.tif")]
    targets = [item.target.as_posix() for item in plan(images, Path("out"), "mask", "png")]
    assert targets == ["out/a_png_mask.png", "out/a_tif_mask.png", "out/p/a_mask.png"]


def test_an_image_that_has_a_result_keeps_its_name_when_another_of_its_stem_comes() -> None:
    images = [image("a.png"), image("a.jpg")]
    had = {("a.png", "a_mask.png"): "png"}
    planned = plan(images, Path("out"), "mask", "png", Made(had))
    assert [item.target.name for item in planned] == ["a_mask.png", "a_jpg_mask.png"]


def test_run_lengths_and_coco_have_names_of_their_own_and_results_of_older_names_keep_them() -> None:
    images = [image("a.png"), image("b.png"), image("b.tif")]
    had = {("a.png", "a_labels.json"): "coco", ("b.png", "b_png_labels.json"): "coco"}

    def names(format_name: str, had: dict[tuple[str, str], str]) -> list[str]:
        return [item.target.name for item in plan(images, Path("out"), "labels", format_name, Made(had))]

    assert names("rle", {}) == ["a_labels.json", "b_png_labels.json", "b_tif_labels.json"]
    assert names("coco", {}) == ["a_labels.coco.json", "b_png_labels.coco.json", "b_tif_labels.coco.json"]
    assert names("coco", had) == ["a_labels.json", "b_png_labels.json", "b_tif_labels.coco.json"]
    assert names("coco", dict.fromkeys(had, "rle")) == names("coco", {})
    assert names("rle", dict.fromkeys(had, "rle")) == names("rle", {})
    with pytest.raises(BadTarget, match="was made as coco, the format asked for is rle; use another -o"):
        names("rle", had)


@pytest.mark.parametrize(
    "images",
    [[image("p/a.tif"), image("q/a.tif")], [image("a.tif"), image("a.png"), image("a_tif.png")]],
    ids=["folders", "suffix"],
)
def test_two_images_of_one_result_are_refused_by_name(images: list[Image]) -> None:
    with pytest.raises(BadTarget, match=r"would both become 'out/a_tif_mask\.png'"):
        plan(images, Path("out"), "mask", "png")


def test_results_that_differ_in_case_alone_are_refused_where_the_file_system_does_not_tell_them_apart(
    tmp_path: Path,
) -> None:
    (tmp_path / "receipts").mkdir()
    work = plan([image("A01.tif"), image("a01.tif"), image("b.tif")], tmp_path, "mask", "png")
    (tmp_path / "RECEIPTS").mkdir()
    check_case(work, tmp_path / "receipts")  # two folders: it does
    (tmp_path / "RECEIPTS").rmdir()
    check_case(work, tmp_path / "receipts")
    (tmp_path / "RECEIPTS").symlink_to(tmp_path / "receipts")  # both names lead to one, as they do there
    with pytest.raises(BadTarget, match=r"'A01.tif' and 'a01.tif' would both become '.*/a01_mask.png'"):
        check_case(work, tmp_path / "receipts")
    check_case(work[1:], tmp_path / "receipts")


def test_no_result_replaces_an_image(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    images = [image(str(tmp_path / name)) for name in ("a.png", "a_mask.png")]
    with pytest.raises(BadTarget, match="would replace an image"):
        plan(images, tmp_path / "link", "mask", "png")
