"""COCO: polygons and run lengths as pycocotools reads them, crowds, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from tests.training.layouts.edges import distance_to_edges
from training.data.datasets import IGNORE, load_images
from training.errors import MaskMismatch, MissingFile, UnreadableFile
from training.layouts.raster import fill_rings
from training.layouts.run_lengths import decode_run_lengths
from training.options import Data

# pycocotools 2.0.11 hands arrays to NumPy in a way that NumPy 2 means to end
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = (10, 12)
SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]


def annotation(segmentation: Any, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": segmentation} | more


def write(folder: Path, *annotations: Any, name: str = "set.json", **more: Any) -> None:
    document = {
        "images": [{"id": 7, "file_name": "a.tif", "height": 10, "width": 12}],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}],
    }
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document | more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.zeros(SIZE, dtype=np.uint8))
    return tmp_path


def labels(folder: Path, **options: Any) -> NDArray[np.int32]:
    (image,) = load_images(folder, Data.model_validate(options), 1, 3 if "categories" in options else 2)
    return image.labels_yx


def test_polygons_of_one_annotation_are_one_object(folder: Path) -> None:
    write(folder, annotation([SQUARE, [8, 6, 12, 6, 12, 10, 8, 10]]), annotation([[0, 8, 2, 8, 2, 10, 0, 10]], 2))
    expected = np.zeros(SIZE, dtype=np.int32)
    expected[1:4, 1:5], expected[6:, 8:], expected[8:, :2] = 1, 1, 2
    np.testing.assert_array_equal(labels(folder), expected)


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths_are_an_object(folder: Path, *, compressed: bool) -> None:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[2:5, 3:9], mask[3, 4] = 1, 0
    encoded = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat, [2]))))
    counts = encoded["counts"].decode() if compressed else np.diff(edges, prepend=0).tolist()
    write(folder, annotation({"size": [10, 12], "counts": counts}))
    np.testing.assert_array_equal(labels(folder), mask)


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_run_lengths_decode_as_in_pycocotools(mask: NDArray[np.uint8]) -> None:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    decoded = decode_run_lengths(encoded["counts"].decode(), tuple(encoded["size"]), (mask.shape[0], mask.shape[1]))
    painted = np.zeros(mask.shape, dtype=bool)
    decoded.of(painted)[...] = decoded.mask_yx
    np.testing.assert_array_equal(painted, mask)
    if mask.any():
        assert decoded.mask_yx.shape == tuple(np.ptp(np.argwhere(mask), axis=0) + 1)


def test_long_run_lengths_decode_as_in_pycocotools() -> None:
    mask = np.zeros((2000, 3000), dtype=np.uint8)
    mask[5:1990, 17:2900:3] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    decoded = decode_run_lengths(counts, mask.shape, mask.shape)
    assert (decoded.top, decoded.left) == (5, 17)
    np.testing.assert_array_equal(decoded.mask_yx, mask[5:1990, 17:2898])


def test_a_small_object_keeps_its_own_pixels_alone() -> None:
    """Many objects of one large image would otherwise take as many images."""
    mask = np.zeros((2000, 3000), dtype=np.uint8)
    mask[700:720, 1900:1930] = 1
    encoded = coco_mask.encode(np.asfortranarray(mask))
    decoded = decode_run_lengths(encoded["counts"].decode(), mask.shape, mask.shape).mask_yx
    assert (decoded.nbytes, decoded.base) == (600, None)


@given(st.lists(st.floats(3, 18, width=32), min_size=3, max_size=16))
@example([3.0] * 9 + [13.875])
def test_polygons_differ_from_pycocotools_at_their_outline_alone(radii: list[float]) -> None:
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    corners = 20 + np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array(radii)[:, None]
    ours = np.zeros((40, 40), dtype=bool)
    patch = fill_rings([corners], (40, 40))
    patch.of(ours)[...] = patch.mask_yx
    theirs = coco_mask.decode(coco_mask.frPyObjects([corners.ravel().tolist()], 40, 40))[..., 0].astype(bool)
    # with a shape's tips they lose pixels that have no neighbour among theirs: distance to the outline tells
    centres = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5), axis=-1)
    assert distance_to_edges(centres, corners)[ours != theirs].max(initial=0) < 0.25  # 0.19 seen; px


def test_rectangles_have_the_pixels_that_pycocotools_gives_them() -> None:
    ours = np.zeros(SIZE, dtype=bool)
    patch = fill_rings([np.array(SQUARE).reshape(-1, 2)], SIZE)
    patch.of(ours)[...] = patch.mask_yx
    theirs = coco_mask.decode(coco_mask.frPyObjects([SQUARE], *SIZE))[..., 0]
    np.testing.assert_array_equal(ours, theirs)


def test_crowds_are_unknown_but_where_an_object_is(folder: Path) -> None:
    write(folder, annotation([SQUARE]), annotation([[0, 0, 9, 0, 9, 9, 0, 9]], 2, iscrowd=1))
    expected = np.zeros(SIZE, dtype=np.int32)
    expected[:9, :9], expected[1:4, 1:5] = IGNORE, 1
    np.testing.assert_array_equal(labels(folder), expected)


def test_later_objects_have_the_pixels_and_hidden_ones_are_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="training")
    write(folder, annotation([SQUARE], 31), annotation([[0, 0, 9, 0, 9, 9, 0, 9]], 32))
    assert np.unique(labels(folder)).tolist() == [0, 2]
    assert caplog.messages == [
        f"{folder}/set.json, image a.tif: 1 of 2 objects has no pixel: annotation 31 is hidden by later ones"
    ]


def test_categories_become_classes(folder: Path) -> None:
    write(folder, annotation([SQUARE]), annotation([[8, 6, 12, 6, 12, 10, 8, 10]], 2, category_id=2))
    found = labels(folder, kind="semantic", categories=["debris", "cell"])
    assert (found[1, 1], found[6, 8], found[0, 0]) == (2, 1, 0)


def test_a_category_that_is_not_there_is_named(folder: Path) -> None:
    write(folder, annotation([SQUARE]))
    with pytest.raises(MissingFile, match=r"no category 'nucleus', .*found \['cell', 'debris'\]"):
        labels(folder, categories=["nucleus"])


def test_images_without_annotations_are_background_and_the_log_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.zeros((3, 4), dtype=np.uint8)).save(folder / "images" / "b.jpg")
    images = [
        {"id": 7, "file_name": "a.tif", "height": 10, "width": 12},
        {"id": 8, "file_name": "b.jpg", "height": 3, "width": 4},
    ]
    write(folder, annotation([SQUARE]), images=images)
    with caplog.at_level("INFO", logger="training"):
        loaded = load_images(folder, Data(), 1, 2)
    assert [(image.stem, bool(image.labels_yx.any())) for image in loaded] == [("a", True), ("b", False)]
    assert f"{folder}/set.json: 1 of 2 images have no annotation: taken as without objects" in caplog.messages


@pytest.mark.parametrize(("file", "place"), [("default", "images/default"), ("val2017", "val2017")])
def test_images_are_found_in_the_folder_of_their_subset(folder: Path, file: str, place: str) -> None:
    """CVAT exports images so, COCO has them so."""
    (folder / place).mkdir(parents=True)
    (folder / "images" / "a.tif").rename(folder / place / "a.tif")
    write(folder, annotation([SQUARE]), name=f"annotations/instances_{file}.json")
    assert np.count_nonzero(labels(folder)) == 12


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("my cell.tif", "images/my%20cell.tif"),
        ("my cell.tif", "/data/local-files/?d=my%20cell.tif"),
        ("cells/a+b.tif", "http://localhost:8080/data/local-files/?d=cells/a%2Bb.tif"),
        ("50%25.tif", "50%25.tif"),
    ],
)
def test_images_are_found_by_names_as_label_studio_writes_them(folder: Path, name: str, written: str) -> None:
    (folder / "images" / name).parent.mkdir(exist_ok=True)
    (folder / "images" / "a.tif").rename(folder / "images" / name)
    write(folder, annotation([SQUARE]), images=[{"id": 7, "file_name": written, "height": 10, "width": 12}])
    (image,) = load_images(folder, Data(), 1, 2)
    assert image.stem == Path(name).stem
    assert np.count_nonzero(image.labels_yx) == 12


@pytest.mark.parametrize("place", ["images/train", "train", "annotations/train"])
def test_images_are_found_where_the_file_names_say(folder: Path, place: str) -> None:
    (folder / place).mkdir(parents=True)
    (folder / "images" / "a.tif").rename(folder / place / "a.tif")
    images = [{"id": 7, "file_name": "train/a.tif", "height": 10, "width": 12}]
    write(folder, annotation([SQUARE]), images=images, name="annotations/set.json")
    assert np.count_nonzero(labels(folder)) == 12


def test_the_recipe_may_name_the_file(folder: Path) -> None:
    write(folder, annotation([SQUARE]), name="one.json")
    write(folder, annotation([SQUARE]), annotation([[8, 6, 12, 6, 12, 10, 8, 10]], 2), name="two.json")
    assert labels(folder, masks="two.json").max() == 2
    with pytest.raises(MissingFile, match=r"expected one COCO file; found .*one.json, .*two.json. Name it as data.mas"):
        labels(folder)


def test_a_missing_image_is_named(folder: Path) -> None:
    (folder / "images" / "a.tif").unlink()
    write(folder, annotation([SQUARE]))
    with pytest.raises(
        MissingFile, match=r"set.json names the image a.tif; expected .*images/a.tif or .*found neither"
    ):
        labels(folder, layout="coco")


def test_an_image_of_another_size_is_named_with_both(folder: Path) -> None:
    write(folder, annotation([SQUARE]), images=[{"id": 7, "file_name": "a.tif", "height": 12, "width": 10}])
    with pytest.raises(MaskMismatch, match=r"set.json says that a.tif is 12 x 10 px; found 10 x 12 px"):
        labels(folder)


def test_an_annotation_of_no_image_is_named(folder: Path) -> None:
    write(folder, annotation([SQUARE], 5, image_id=99))
    with pytest.raises(MissingFile, match=r"annotation 5 is of image 99; expected one of the ids of its 1 image\. Add"):
        labels(folder)


@pytest.mark.parametrize("options", [{}, {"categories": ["cell", "debris"]}])
@pytest.mark.parametrize("category", [3, "x"])
def test_an_annotation_of_no_category_of_the_file_is_named(
    folder: Path, category: int | str, options: dict[str, Any]
) -> None:
    write(folder, annotation([SQUARE]), annotation([SQUARE], 5, category_id=category))
    expected = rf"set.json: annotation 5 is of category {category}; expected one of the ids in categories: 1, 2. Add"
    with pytest.raises(MissingFile, match=expected):
        labels(folder, **options)


@pytest.mark.parametrize(("category", "more"), [(None, {}), (3, {"categories": []})])
def test_instances_need_no_categories(folder: Path, category: int | None, more: dict[str, Any]) -> None:
    write(folder, annotation([SQUARE], category_id=category), **more)
    assert np.count_nonzero(labels(folder)) == 12


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        (("a.tif", "a.png"), (7, 8), "share the stem a; expected a name of its own for each"),
        (("a.tif", "b.png"), (7, 7), "share an id"),
        (("a.tif", "b.png"), (7, "7"), "share an id"),
        (("more/a.tif", "less/a.tif"), (7, 8), "are the file .*images/a.tif"),
    ],
)
def test_images_that_cannot_be_told_apart_are_refused(
    folder: Path, names: tuple[str, str], ids: tuple[int | str, int | str], message: str
) -> None:
    for stem in "ab":
        Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(folder / "images" / f"{stem}.png")
    images = [
        {"id": number, "file_name": name, "height": 10, "width": 12} for name, number in zip(names, ids, strict=True)
    ]
    write(folder, annotation([SQUARE]), images=images)
    with pytest.raises(MaskMismatch, match=f"two images {message}"):
        labels(folder)


def test_images_of_one_name_are_told_apart_by_their_folders(folder: Path) -> None:
    images = [{"id": 1, "file_name": "a.tif", "height": 10, "width": 12}]
    for number in (2, 3):
        place = folder / "images" / f"day{number}"
        place.mkdir()
        tifffile.imwrite(place / "b.tif", np.full(SIZE, number, dtype=np.uint8))
        images.append({"id": number, "file_name": f"day{number}/b.tif", "height": 10, "width": 12})
    write(folder, *(annotation([SQUARE], number, image_id=number) for number in (1, 2, 3)), images=images)
    loaded = {image.stem: int(image.image_yxc.max()) for image in load_images(folder, Data(), 1, 2)}
    assert loaded == {"a": 0, "day2-b": 2, "day3-b": 3}


@pytest.mark.parametrize(("of_image", "of_annotation"), [(7, "7"), ("7", 7), (7.0, "7"), ("x", "x")])
def test_ids_match_as_words_and_as_numbers(folder: Path, of_image: int | str, of_annotation: int | str) -> None:
    image = {"id": of_image, "file_name": "a.tif", "height": 10, "width": 12}
    write(folder, annotation([SQUARE], image_id=of_annotation, category_id="1"), images=[image])
    assert np.count_nonzero(labels(folder, categories=["cell"])) == 12


@pytest.mark.parametrize("size", [{}, {"height": 0, "width": 0}, {"height": None, "width": None}, {"height": 10}])
def test_an_image_tells_its_size_where_the_file_does_not(folder: Path, size: dict[str, Any]) -> None:
    write(folder, annotation([SQUARE], iscrowd=None), images=[{"id": 7, "file_name": "a.tif"} | size])
    assert np.count_nonzero(labels(folder)) == 12


def test_stray_parts_are_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="training")
    write(folder, annotation([SQUARE]), annotation([[], [8, 6, 12, 6, 12, 10, 8, 10], [1, 2, 3, 4, 5]], 31))
    assert np.unique(labels(folder), return_counts=True)[1].tolist() == [92, 12, 16]
    assert caplog.messages == [
        f"{folder}/set.json: left out, of fewer than 3 corners: 2 polygons in 1 annotation; the first is in "
        "annotation 31 of a.tif"
    ]


def test_an_annotation_of_a_box_alone_is_named(folder: Path) -> None:
    box = annotation(None, bbox=[1, 1, 4, 4])
    del box["segmentation"]
    write(folder, annotation([SQUARE]), box)
    with pytest.raises(UnreadableFile, match=r"set.json, annotations.1.segmentation: .*a box alone does not say"):
        labels(folder)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], r"a box alone does not say .* expected polygons .* Annotate outlines, .*; found \[\]"),
        ([[1, 1, 5, 1, 5, float("nan")]], "finite number; found nan"),
        ([[1, 1, 5, 1, 5, "x"]], "found 'x'"),
        ({"size": [10, 12], "counts": [1, -2, 121]}, "greater than or equal to 0"),
        ({"size": [10], "counts": "0"}, "size"),
        (None, "a box alone does not say .*; found None"),
    ],
)
def test_a_segmentation_that_is_none_is_named(folder: Path, segmentation: Any, message: str) -> None:
    write(folder, annotation([SQUARE]), annotation(segmentation, 2))
    with pytest.raises(UnreadableFile, match=rf"set.json, annotations.1.segmentation.*{message}"):
        labels(folder)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 1, 5, 4, 1]], "a polygon has 7 numbers"),
        (
            [[1, 1, 5, 1], []],
            r"polygons of \[2, 0\] corners, which enclose nothing; expected 3 or more. Draw its outline",
        ),
        ({"size": [12, 10], "counts": [120]}, r"an image of \(12, 10\) \(height, width\); expected \(10, 12\)"),
        ({"size": [10, 12], "counts": [100, 5]}, "fill 105 pixels; expected 120"),
        ({"size": [10, 12], "counts": "0"}, "fill 0 pixels; expected 120"),
        ({"size": [10, 12], "counts": "0 "}, "hold the character ' '"),
        ({"size": [10, 12], "counts": "h"}, "end within a number"),
        ({"size": [10, 12], "counts": "O"}, "fill -1 pixels"),
    ],
)
def test_a_segmentation_that_does_not_fit_is_named(folder: Path, segmentation: Any, message: str) -> None:
    write(folder, annotation([SQUARE]), annotation(segmentation, 2))
    with pytest.raises(UnreadableFile, match=rf"set.json, image a.tif: annotation 2 cannot be read: .*{message}"):
        labels(folder)


def test_what_is_no_json_is_refused(folder: Path) -> None:
    (folder / "set.json").write_text('{"images": [')
    with pytest.raises(UnreadableFile, match=r"set.json is not JSON: Expecting value.*export it again"):
        labels(folder)


def test_a_file_without_images_is_refused(folder: Path) -> None:
    write(folder, images=[])
    with pytest.raises(UnreadableFile, match=r"set.json, images: List should have at least 1 item"):
        labels(folder)


def test_no_file_at_all_is_refused(folder: Path) -> None:
    with pytest.raises(MissingFile, match="expected one COCO file; found none"):
        labels(folder, layout="coco")
