"""One number for one object through the planes of a stack: ``link``, in every format."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
import tifffile
from numpy.typing import NDArray
from pycocotools.coco import COCO

from tests.app_client import AppClient
from tests.images import disc, npy, png, tiff
from tests.problems import assert_problem

# rows, columns and planes of rectangles: one number for each line
RECTANGLES: list[tuple[slice, slice, dict[int, int]]] = [
    (slice(10, 20), slice(10, 30), {0: 1, 1: 1, 2: 1}),
    (slice(30, 45), slice(40, 60), {0: 2, 2: 4}),  # it vanishes, and comes back as another one
    (slice(2, 8), slice(50, 70), {1: 3, 2: 3}),  # above the others, so that it is the first of its planes
]


def drawn() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """A time series of three planes, and what its objects' numbers are."""
    image, numbers = np.full((3, 50, 80), 20, np.uint8), np.zeros((3, 50, 80), np.uint16)
    for rows, columns, planes in RECTANGLES:
        for plane, number in planes.items():
            moved = slice(columns.start + plane, columns.stop + plane)
            image[plane, rows, moved], numbers[plane, rows, moved] = 200, number
    return image, numbers


IMAGE, NUMBERS = drawn()
SERIES = tiff(IMAGE, imagej=True, metadata={"axes": "TYX"})
FOUND = [[1, 2], [3, 1], [3, 1, 4]]
"""Numbers of the objects of each plane, in the order of their first pixels."""


def answer_to(client: AppClient, image: bytes, format_name: str, **query: str) -> bytes:
    asked = {"output": "labels", "format": format_name, "link": "0.5", **query}
    answer = client.segment(image, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.content


def array(client: AppClient, image: NDArray[Any], **query: str) -> NDArray[Any]:
    found: NDArray[Any] = np.load(io.BytesIO(answer_to(client, npy(image), "npy", **query)))
    return found


@pytest.mark.parametrize("format_name", ["tiff", "npy"])
def test_images_have_an_objects_number_in_all_of_its_planes(client: AppClient, format_name: str) -> None:
    body = io.BytesIO(answer_to(client, SERIES, format_name))
    found = tifffile.imread(body) if format_name == "tiff" else np.load(body)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, NUMBERS)


def test_the_table_has_a_row_for_each_plane_of_an_object(client: AppClient) -> None:
    table = list(csv.DictReader(io.StringIO(answer_to(client, SERIES, "csv").decode())))
    assert [[int(row["label"]) for row in table if row["plane"] == str(plane)] for plane in range(3)] == FOUND
    for row in table:
        y, x = np.nonzero(NUMBERS[int(row["plane"])] == int(row["label"]))
        assert (int(row["area_px"]), float(row["y"]), float(row["x"])) == (len(y), y.mean(), x.mean())
        assert float(row["score"]) > 0.9


def test_outlines_have_their_objects_number_for_a_name(client: AppClient) -> None:
    features = json.loads(answer_to(client, SERIES, "geojson"))["features"]
    names = [
        [int(each["properties"]["name"]) for each in features if each["geometry"]["plane"]["t"] == t] for t in range(3)
    ]
    assert names == FOUND
    for feature in features:
        plane, number = feature["geometry"]["plane"]["t"], int(feature["properties"]["name"])
        assert feature["properties"]["measurements"]["Area px"] == (NUMBERS[plane] == number).sum()
        assert feature["properties"]["measurements"]["Score"] > 0.9
    with zipfile.ZipFile(io.BytesIO(answer_to(client, SERIES, "rois"))) as archive:
        rois = {name: roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()}
    assert list(rois) == [
        f"t{plane:04d}-object-{number:05d}.roi" for plane, numbers in enumerate(FOUND, 1) for number in numbers
    ]
    for name, roi in rois.items():
        rows, columns = np.nonzero(NUMBERS[roi.t_position - 1] == int(name[-9:-4]))
        assert (roi.top, roi.left) == (rows.min(), columns.min())


# pycocotools 2.0 hands NumPy 2 an object that does not know the copy keyword.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_lengths_have_their_objects_number_and_coco_an_id_for_each_beside(
    client: AppClient, tmp_path: Path
) -> None:
    planes = json.loads(answer_to(client, SERIES, "rle"))["planes"]
    assert [[entry["label"] for entry in plane["objects"]] for plane in planes] == FOUND
    path = tmp_path / "annotations.json"
    path.write_bytes(answer_to(client, SERIES, "coco"))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(path))
    annotations = dataset.loadAnns(dataset.getAnnIds())
    assert sorted(each["id"] for each in annotations) == [1, 2, 3, 4, 5, 6, 7]
    decoded = np.zeros_like(NUMBERS)
    for each in annotations:
        decoded[each["image_id"] - 1][dataset.annToMask(each).astype(bool)] = each["label"]
        assert each["score"] > 0.9
    np.testing.assert_array_equal(decoded, NUMBERS)


def test_the_receipt_says_what_was_asked_and_how_many_objects_there_are(client: AppClient) -> None:
    receipt = json.loads(answer_to(client, SERIES, "rle"))["receipt"]
    assert receipt["output"] == {
        "kind": "labels",
        "format": "rle",
        "link": 0.5,
        "objects": 7,
        "linked_objects": 4,
    }
    answer = client.segment(SERIES, params={"output": "labels", "format": "csv", "link": "0.5"})
    assert json.loads(answer.headers["x-unet-receipt"])["stages_ms"]["link"] >= 0
    assert "link;dur=" in answer.headers["server-timing"]
    plain = json.loads(answer_to(client, SERIES, "rle", link=""))
    assert "linked_objects" not in plain["receipt"]["output"]
    assert [[entry["label"] for entry in plane["objects"]] for plane in plain["planes"]] == [[1, 2], [1, 2], [1, 2, 3]]


def test_an_overlap_below_the_least_is_none(client: AppClient) -> None:
    # the first has moved by one of 20 px: 19 / 21; the last, too
    assert array(client, IMAGE, link="0.9").max() == 4
    assert array(client, IMAGE, link="0.91").max() == 7
    assert array(client, IMAGE, link="1").max() == 7


def test_slices_are_linked_within_each_frame_whatever_the_order_of_the_axes(client: AppClient) -> None:
    frames = np.stack([IMAGE, IMAGE])  # t, z
    expected = np.stack([NUMBERS, np.where(NUMBERS > 0, NUMBERS + 4, 0)])
    np.testing.assert_array_equal(array(client, frames, axes="TZYX"), expected)
    found = array(client, frames.swapaxes(0, 1), axes="ZTYX")  # z0 t0, z0 t1, z1 t0, ...
    # 1 and 2 are in the first plane, and 3 and 4 in the second, which is the first of the other frame
    names = np.array([[0, 1, 2, 5, 7], [0, 3, 4, 6, 8]])
    np.testing.assert_array_equal(found, np.stack([names[t][NUMBERS] for t in range(2)], axis=1))
    hyperstack = tiff(frames, imagej=True, metadata={"axes": "TZYX"})
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer_to(client, hyperstack, "tiff"))), expected)


def test_axes_of_one_plane_are_no_neighbours(client: AppClient) -> None:
    np.testing.assert_array_equal(array(client, IMAGE[:, np.newaxis], axes="TZYX")[:, 0], NUMBERS)
    np.testing.assert_array_equal(array(client, IMAGE[np.newaxis], axes="ITYX")[0], NUMBERS)


def test_where_nothing_says_which_planes_are_neighbours_it_is_refused(client: AppClient) -> None:
    asked = {"output": "labels", "format": "tiff", "link": "0.3", "axes": "TIYX"}
    problem = assert_problem(client.segment(npy(np.stack([IMAGE, IMAGE])), params=asked), 422, "invalid-parameter")
    assert "link is 0.3, of the stack's 2 axes (T, I) none is Z" in problem["detail"]
    assert "name the axis of slices Z with axes=" in problem["detail"]


@pytest.mark.parametrize("write", [npy, partial(tiff, photometric="minisblack")])
def test_axes_without_names_are_not_guessed(client: AppClient, write: Callable[[NDArray[Any]], bytes]) -> None:
    frames = np.stack([IMAGE, IMAGE])
    problem = assert_problem(
        client.segment(write(frames), params={"output": "labels", "link": "0.5", "format": "tiff"}),
        422,
        "invalid-parameter",
    )
    assert "link is 0.5, of the stack's 2 axes (I, J) none is Z" in problem["detail"]
    named = np.load(io.BytesIO(answer_to(client, write(frames), "npy", axes="TZYX")))
    np.testing.assert_array_equal(named, np.stack([NUMBERS, np.where(NUMBERS > 0, NUMBERS + 4, 0)]))


def test_a_single_plane_has_nothing_to_link_and_says_so(client: AppClient) -> None:
    asked = {"output": "labels", "format": "png"}
    linked = client.segment(png(disc()), params={**asked, "link": "0.5"})
    receipt = json.loads(linked.headers["x-unet-receipt"])
    assert receipt["input"]["notes"] == ["link=0.5 has linked nothing: the image is a single plane"]
    assert (receipt["output"]["link"], receipt["output"]["objects"]) == (0.5, 1)
    assert "linked_objects" not in receipt["output"]
    assert "link" not in receipt["stages_ms"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"link": "0"}, "link is '0', it should be greater than 0"),
        ({"link": "1.1"}, "link is '1.1', it should be less than or equal to 1"),
        ({"link": "nan"}, "link is 'nan'"),
        ({"link": "yes"}, "link is 'yes'"),
        ({"link": "0.5", "output": "mask"}, "link is 0.5, output=mask has no numbered objects; ask for output=labels"),
        ({"link": "0.5", "output": "probabilities"}, "link is 0.5, output=probabilities has no numbered objects"),
    ],
    ids=str,
)
def test_what_it_cannot_be_is_refused(client: AppClient, query: dict[str, str], said: str) -> None:
    asked = {"output": "labels", "format": "tiff", **query}
    assert said in assert_problem(client.segment(SERIES, params=asked), 422, "invalid-parameter")["detail"]


def test_more_than_65535_objects_of_a_stack_are_uint32_in_every_plane(client: AppClient) -> None:
    dots = np.full((2, 400, 400), 20, np.uint8)
    dots[0, ::2, ::2] = dots[1, 1::2, 1::2] = 200  # none over another: 40,000 in each
    found = array(client, dots)
    assert (str(found.dtype), int(found[0].max()), int(found[1].max())) == ("uint32", 40_000, 80_000)
    assert len(np.unique(found)) == 80_001
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer_to(client, npy(dots), "tiff"))), found)
    dots[1] = dots[0]
    same = array(client, dots)
    assert (str(same.dtype), int(same.max())) == ("uint16", 40_000)
    np.testing.assert_array_equal(same[0], same[1])


def test_a_job_links_like_a_request(client: AppClient) -> None:
    asked = {"output": "labels", "format": "npy", "link": "0.5", "respond_async": "true"}
    job = client.segment(SERIES, params=asked).json()
    result = client.get(f"/jobs/{job['id']}/result?wait=50")
    np.testing.assert_array_equal(np.load(io.BytesIO(result.content)), NUMBERS)
    assert client.request("DELETE", f"/jobs/{job['id']}").status_code == 204


@pytest.mark.parametrize("outputs", [["labels"], ["mask", "labels"]], ids=str)
def test_inference_requests_link_their_labels(client: AppClient, outputs: list[str]) -> None:
    tensor = {"name": "image", "shape": list(IMAGE.shape), "datatype": "UINT8", "data": IMAGE.ravel().tolist()}
    asked = {"inputs": [tensor], "parameters": {"link": 0.5}, "outputs": [{"name": name} for name in outputs]}
    answer = client.request("POST", "/v2/models/tiny/infer", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, list[int]] = defaultdict(list, {each["name"]: each["data"] for each in answer.json()["outputs"]})
    np.testing.assert_array_equal(np.reshape(found["labels"], IMAGE.shape), NUMBERS)
    if "mask" in outputs:
        np.testing.assert_array_equal(np.reshape(found["mask"], IMAGE.shape), NUMBERS > 0)
    without = client.request("POST", "/v2/models/tiny/infer", json={**asked, "outputs": [{"name": "mask"}]})
    assert "link is 0.5, output=mask" in assert_problem(without, 422, "invalid-parameter")["detail"]
