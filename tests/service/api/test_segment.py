"""POST /segment: bodies, parameters, answers, the receipt."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from service.api import piecewise
from service.api.parameters import SegmentParameters
from service.api.segment import receipt_header
from service.engine.request import Answer, Body
from service.engine.stages import demand
from service.engine.stages.needs import Needs
from service.formats import ENCODERS
from tests.app_client import AppClient
from tests.images import disc, jpeg, npy, png, tiff
from tests.problems import assert_problem

IMAGE = disc()
EXPECTED = IMAGE > 110  # the tiny net's foreground is what exceeds half the range


def as_array(body: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(body)))


@pytest.mark.parametrize(
    "body",
    [
        png(IMAGE),
        tiff(IMAGE),
        tiff(IMAGE.astype(np.uint16) * 256, compression="zlib"),
        tiff(IMAGE.astype(np.float32), compression="lzw"),
        npy(IMAGE),
        jpeg(IMAGE),
    ],
    ids=["png", "tiff", "tiff16", "tiff-float", "npy", "jpeg"],
)
@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/x-www-form-urlencoded", "image/png"])
def test_a_raw_body_is_recognised_by_its_bytes_whatever_its_type_says(
    client: AppClient, body: bytes, content_type: str
) -> None:
    answer = client.segment(body, headers={"Content-Type": content_type})
    assert answer.headers["content-type"] == "image/png"
    mask = as_array(answer.content)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.where(EXPECTED, 255, 0))


def test_a_multipart_form_gives_the_same_answer_as_a_raw_body(client: AppClient) -> None:
    files = {"image": ("cells.png", png(IMAGE), "image/png")}
    answer = client.request("POST", "/segment", files=files, data={"output": "labels", "format": "tiff", "model": ""})
    raw = client.segment(png(IMAGE), params={"output": "labels", "format": "tiff"})
    assert answer.status_code == raw.status_code == 200
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer.content)), tifffile.imread(io.BytesIO(raw.content)))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"files": {"image": ("cells.png", png(IMAGE))}}, "cells.png"),
        ({"files": {"image": ("C:\\plates\\zelle ü.png", png(IMAGE))}}, "zelle ü.png"),
        ({"content": png(IMAGE)}, "plane-0"),
        ({"content": png(IMAGE), "headers": {"Content-Disposition": 'attachment; filename="a b.png"'}}, "a b.png"),
        (
            {"content": png(IMAGE), "headers": {"Content-Disposition": "inline; filename*=UTF-8''z%C3%BC.png"}},
            "zü.png",
        ),
        (
            {"content": png(IMAGE), "headers": {b"Content-Disposition": 'inline; filename="/x/zü.png"'.encode()}},
            "zü.png",
        ),
        ({"content": png(IMAGE), "headers": {"Content-Disposition": "attachment"}}, "plane-0"),
    ],
    ids=["form", "path", "unnamed", "header", "encoded", "utf-8", "no-name"],
)
def test_coco_names_the_file_that_was_sent(client: AppClient, sent: dict[str, Any], expected: str) -> None:
    answer = client.request("POST", "/segment", params={"format": "coco", "output": "labels"}, **sent)
    assert [image["file_name"] for image in answer.json()["images"]] == [expected]


@pytest.mark.parametrize("name", list(SegmentParameters.model_fields))
def test_an_empty_parameter_is_not_given_in_query_and_form_alike(client: AppClient, name: str) -> None:
    plain = client.segment(png(IMAGE))
    in_query = client.segment(png(IMAGE), params={name: ""})
    in_form = client.request("POST", "/segment", files={"image": ("a.png", png(IMAGE)), name: (None, "")})
    assert plain.status_code == in_query.status_code == in_form.status_code == 200
    np.testing.assert_array_equal(as_array(in_query.content), as_array(plain.content))
    np.testing.assert_array_equal(as_array(in_form.content), as_array(plain.content))


def test_an_empty_parameter_in_the_query_leaves_the_word_to_the_form(client: AppClient) -> None:
    files = {"image": ("a.png", png(IMAGE)), "format": (None, "npy")}
    answer = client.request("POST", "/segment", params={"format": ""}, files=files)
    assert answer.headers["content-type"] == "application/x-npy"


def test_the_query_beats_the_form(client: AppClient) -> None:
    files = {"image": ("cells.png", png(IMAGE), "image/png")}
    answer = client.request("POST", "/segment", params={"format": "npy"}, files=files, data={"format": "tiff"})
    assert answer.headers["content-type"] == "application/x-npy"


@pytest.mark.parametrize(
    ("accept", "query", "media"),
    [
        (None, {}, "image/png"),
        ("text/csv", {"output": "labels"}, "text/csv; charset=utf-8"),
        ("*/*", {}, "image/png"),
        ("image/tiff", {}, "image/tiff"),
        ("application/json;q=0.5, image/tiff;q=0.1", {}, "application/json"),
        ("image/tiff", {"format": "rle"}, "application/json"),
    ],
)
def test_the_format_is_what_the_query_or_the_accept_header_asks_for(
    client: AppClient, accept: str | None, query: dict[str, str], media: str
) -> None:
    answer = client.segment(png(IMAGE), params=query, headers={"Accept": accept} if accept else {})
    assert answer.headers["content-type"] == media
    assert answer.headers["vary"] == "Accept"
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_several_accept_lines_are_one_list(client: AppClient) -> None:
    answer = client.request(
        "POST", "/segment", content=png(IMAGE), headers=[("Accept", "text/html"), ("Accept", "image/tiff")]
    )
    assert answer.headers["content-type"] == "image/tiff"


def test_the_receipt_says_what_was_seen_and_done(client: AppClient) -> None:
    answer = client.segment(tiff(IMAGE.astype(np.uint16)), params={"output": "labels"})
    receipt = json.loads(answer.headers["x-unet-receipt"])
    assert receipt["input"]["dtype"] == "uint16"
    assert receipt["input"]["size_yx"] == [60, 80]
    assert receipt["model"]["name"] == "tiny"
    assert receipt["model"]["version"] == "1.10.0"
    assert len(receipt["model"]["sha256"]) == 64
    assert receipt["provider"] == "CPUExecutionProvider"
    assert receipt["output"]["objects"] == 1
    assert set(receipt["stages_ms"]) >= {"decode", "inference", "label", "encode"}
    assert "inference;dur=" in answer.headers["server-timing"]
    assert answer.headers["content-disposition"] == 'inline; filename="tiny-labels.png"'


def test_a_receipt_too_long_for_a_header_is_shortened_and_says_so() -> None:
    receipt = {"input": {"dtype": "uint8", "notes": ["a note"]}, "normalization": [0.5] * 3000, "backend": "cpu"}
    answer = Answer(Body(io.BytesIO()), "image/png", ".png", receipt, {"decode": 1.0}, "tiny@1.0.0")
    header = receipt_header(answer)
    assert len(header) < 8000
    assert json.loads(header) == {
        "input": {"dtype": "uint8", "notes": ["a note"]},
        "normalization": [0.5] * 4,
        "backend": "cpu",
        "stages_ms": {"decode": 1.0},
        "shortened": True,
    }
    receipt["input"] = {"dtype": "uint8", "notes": ["a note"] * 3000}
    assert json.loads(receipt_header(answer)) == {"input": {"dtype": "uint8"}, "backend": "cpu", "shortened": True}


def told_in_file(format_name: str, body: bytes) -> Any:
    """Receipt in an answer of labels."""
    if format_name == "tiff":
        with tifffile.TiffFile(io.BytesIO(body)) as file:
            return json.loads(file.pages.first.description.partition("unet_receipt=")[2])
    document = json.loads(body)
    return document["info"]["receipt"] if format_name == "coco" else document["receipt"]


@pytest.mark.parametrize("format_name", ["tiff", "rle", "geojson", "coco"])
def test_files_hold_the_normalisation_of_every_plane_and_the_header_of_the_first(
    client: AppClient, format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = np.stack([np.clip(IMAGE, 0, 100 + plane // 2) for plane in range(200)]).astype(np.uint16)[..., np.newaxis]
    query = {"output": "labels", "format": format_name}
    answer = client.segment(npy(stack), params=query)
    whole = told_in_file(format_name, answer.content)
    assert "shortened" not in whole
    alone = [
        told_in_file("rle", client.segment(npy(plane), params=query | {"format": "rle"}).content)
        for plane in stack[::199]
    ]
    assert [whole["normalization"][plane] for plane in (0, 199)] == [one["normalization"][0] for one in alone]
    assert whole["normalization"][0] != whole["normalization"][199]
    of_header = json.loads(answer.headers["x-unet-receipt"])
    assert of_header["shortened"]
    assert of_header["normalization"] == whole["normalization"][:4]
    assert of_header["input"] == whole["input"]
    monkeypatch.setattr("service.engine.stages.receipt.MOST_PLANES", 199)
    bounded = told_in_file(format_name, client.segment(npy(stack), params=query).content)
    assert bounded == whole | {"normalization": whole["normalization"][:199], "shortened": True}


def test_a_receipt_header_never_holds_what_json_does_not_have() -> None:
    answer = Answer(
        Body(io.BytesIO()), "image/png", ".png", {"input": {}, "normalization": [float("inf")]}, {}, "tiny@1.0.0"
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        receipt_header(answer)


def test_a_version_is_asked_for_by_name(client: AppClient) -> None:
    answer = client.segment(png(IMAGE), params={"model": "tiny@1.0.0"})
    assert json.loads(answer.headers["x-unet-receipt"])["model"]["version"] == "1.0.0"


def test_threshold_channel_and_pixel_size_reach_the_engine(client: AppClient) -> None:
    two = np.stack([np.zeros_like(IMAGE), IMAGE], axis=-1)
    query = {"channel": "1", "threshold": "0.9", "pixel_size": "0.5,0.25", "output": "labels", "format": "rle"}
    document = client.segment(npy(two), params=query).json()
    assert document["pixel_size_um"] == [0.5, 0.25]
    assert document["objects"][0]["area"] == EXPECTED.sum()
    assert document["receipt"]["output"] == {
        "kind": "labels",
        "format": "rle",
        "threshold": 0.9,
        "channel": 1,
        "pixel_size_um": [0.5, 0.25],
        "objects": 1,
    }


NAMED = tiff(
    np.stack([np.zeros_like(IMAGE), IMAGE, IMAGE]),
    ome=True,
    photometric="minisblack",
    metadata={"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI", "gfp"]}},
)


@pytest.mark.parametrize("asked", ["dapi", " DAPI ", "1"])
def test_a_channel_is_taken_by_its_name(client: AppClient, asked: str) -> None:
    form = {"image": ("a.tif", NAMED), "channel": (None, asked)}
    answers = [
        client.segment(NAMED, params={"channel": asked}),
        client.request("POST", "/segment", files=form),
    ]
    for answer in answers:
        np.testing.assert_array_equal(as_array(answer.content), np.where(EXPECTED, 255, 0))
        receipt = json.loads(answer.headers["X-UNet-Receipt"])
        assert receipt["input"]["channel_names"] == ["GFP", "DAPI", "gfp"]
        assert {"channel": 1, "channel_name": "DAPI"}.items() <= receipt["output"].items()


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ("Cy5", "channel 'Cy5' is asked for, the image has 3; use 0 to 2 or a name (0 'GFP', 1 'DAPI', 2 'gfp')"),
        ("GFP", "channel 'GFP' is the name of 2 channels: 0 'GFP', 2 'gfp'; give the number of one"),
        ("3", "channel 3 is asked for, the image has 3; use 0 to 2 or a name (0 'GFP', 1 'DAPI', 2 'gfp')"),
        ("-1", "channel '-1' is asked for, the image has 3; use 0 to 2 or a name (0 'GFP', 1 'DAPI', 2 'gfp')"),
    ],
)
def test_a_channel_that_is_none_or_several_is_refused(client: AppClient, asked: str, detail: str) -> None:
    answer = client.segment(NAMED, params={"channel": asked})
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


def test_of_several_channels_the_names_are_offered(client: AppClient) -> None:
    detail = client.segment(NAMED).json()["detail"]
    assert "choose one with channel=0 to 2 or a name (0 'GFP', 1 'DAPI', 2 'gfp'), or send an image with 1" in detail


def test_digits_are_a_number_where_there_is_one_and_else_a_name(client: AppClient) -> None:
    lasers = tiff(
        np.stack([np.zeros_like(IMAGE), IMAGE]),
        imagej=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Labels": ["1", "405"]},
    )
    for asked, note in (
        ("405", []),
        ("1", ["channel 1 is taken by its number, from 0; the file calls channel 0 '1'"]),
    ):
        answer = client.segment(lasers, params={"channel": asked})
        np.testing.assert_array_equal(as_array(answer.content), np.where(EXPECTED, 255, 0))
        assert json.loads(answer.headers["X-UNet-Receipt"])["input"]["notes"] == note


def test_long_names_of_channels_do_not_lengthen_the_header(client: AppClient) -> None:
    names = ["\u03bc" * 90 + str(number) for number in range(200)]
    many = tiff(
        np.stack([IMAGE] * 200),
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": names}},
    )
    answer = client.segment(many, params={"channel": names[7]})
    receipt = json.loads(answer.headers["X-UNet-Receipt"])
    assert receipt["shortened"]
    assert {"channel": 7, "channel_name": names[7]}.items() <= receipt["output"].items()
    refusal = client.segment(many, params={"channel": "DAPI"}).json()["detail"]
    assert "19 '" in refusal
    assert "20 '" not in refusal
    assert "and 180 more" in refusal


def test_axes_say_how_an_array_is_laid_out(client: AppClient) -> None:
    channels = np.stack([np.zeros_like(IMAGE), IMAGE, IMAGE])
    answer = client.segment(npy(channels), params={"axes": "cyx", "channel": "1"})
    np.testing.assert_array_equal(as_array(answer.content), np.where(EXPECTED, 255, 0))
    receipt = json.loads(answer.headers["X-UNet-Receipt"])
    assert (receipt["input"]["channels"], receipt["input"]["notes"], receipt["output"]["axes"]) == (3, [], "CYX")


def test_planes_of_named_axes_come_first_in_the_answer(client: AppClient) -> None:
    stack = np.stack([IMAGE, np.zeros_like(IMAGE)], axis=-1)
    form = {"image": ("a.npy", npy(stack)), "axes": (None, "YXZ"), "format": (None, "tiff")}
    answer = client.request("POST", "/segment", files=form)
    with tifffile.TiffFile(io.BytesIO(answer.content)) as file:
        assert (file.series[0].axes, file.series[0].shape) == ("ZYX", (2, *IMAGE.shape))
        np.testing.assert_array_equal(file.asarray()[0] > 0, EXPECTED)


@pytest.mark.parametrize(
    ("axes", "slug", "said"),
    [
        ("YXQ", "invalid-parameter", "axes is 'YXQ', it should be one letter for each axis, slowest first"),
        ("ZYX", "axes-mismatch", "axes ZYX are 3 letters, the image has 2 axes: "),
    ],
)
def test_axes_that_are_none_or_of_another_image_are_refused(client: AppClient, axes: str, slug: str, said: str) -> None:
    assert said in assert_problem(client.segment(png(IMAGE), params={"axes": axes}), 422, slug)["detail"]


def test_a_region_of_a_slide_is_answered_in_the_coordinates_of_the_slide(client: AppClient) -> None:
    query = {"output": "labels", "format": "geojson"}
    own = client.segment(png(IMAGE), params=query).json()
    placed = client.segment(png(IMAGE), params=query | {"origin": "2048,10240.5", "downsample": "4"}).json()
    (before,), (after,) = own["features"], placed["features"]
    moved = [[4 * x + 10240.5, 4 * y + 2048] for x, y in before["geometry"]["coordinates"][0]]
    assert after["geometry"]["coordinates"][0] == moved
    assert after["properties"]["measurements"]["Area px"] == 16 * int(EXPECTED.sum())
    assert placed["receipt"]["output"]["origin_yx"] == [2048.0, 10240.5]
    assert placed["receipt"]["output"]["downsample"] == 4.0
    assert not {"origin_yx", "downsample"} & set(own["receipt"]["output"])


def test_a_form_can_say_where_a_region_lies(client: AppClient) -> None:
    fields = {"image": ("a.png", png(IMAGE)), "format": (None, "geojson"), "downsample": (None, "2")}
    answer = client.request("POST", "/segment", params={"origin": "0,0"}, files=fields)
    assert answer.json()["receipt"]["output"]["downsample"] == 2.0


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"geojson"}))
def test_formats_that_cannot_say_where_a_region_lies_refuse_it(client: AppClient, name: str) -> None:
    for place in ({"origin": "1,2"}, {"downsample": "2"}):
        answer = client.segment(png(IMAGE), params={"output": "labels", "format": name, **place})
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/invalid-parameter"
        assert f"format {name} takes neither; ask for format=geojson" in answer.json()["detail"]
    nowhere_else = {"format": name, "output": "labels", "origin": "0,0", "downsample": "1"}
    assert client.segment(png(IMAGE), params=nowhere_else).status_code == 200


def test_small_objects_are_dropped_where_the_caller_says_so(client: AppClient) -> None:
    query = {"output": "labels", "format": "rle", "min_area": str(EXPECTED.sum() + 1)}
    assert client.segment(png(IMAGE), params=query).json()["objects"] == []


def test_objects_of_a_low_score_are_dropped_where_the_caller_says_so(client: AppClient) -> None:
    image = np.hstack([IMAGE, np.where(IMAGE > 110, 112, IMAGE)])  # the second is hardly above half the range
    query = {"output": "labels", "format": "rle"}
    sure, faint = (found["score"] for found in client.segment(png(image), params=query).json()["objects"])
    assert faint < sure
    for least, left in ((faint - 0.01, [sure, faint]), (faint + 0.01, [sure])):
        document = client.segment(png(image), params=query | {"min_score": f"{least}"}).json()
        assert [found["score"] for found in document["objects"]] == left
        assert document["receipt"]["output"]["min_score"] == least


def test_objects_nearly_everywhere_are_noted(client: AppClient) -> None:
    small = disc(radius=10)
    stack = np.stack([small, 255 - small, 255 - small, 255 - IMAGE])  # the last is less than nine tenths bright

    def noted(image: NDArray[np.uint8], **query: str) -> list[str]:
        answer = client.segment(npy(image), params={"output": "labels", "format": "npy", **query})
        notes: list[str] = json.loads(answer.headers["x-unet-receipt"])["input"]["notes"]
        return [note for note in notes if "pixels are objects" in note]

    share = 100 * (255 - small > 110).mean()
    (one,) = noted(stack[1])
    assert one.startswith(f"{share:.1f} % of the pixels are objects, over 90 %: is the contrast inverted")
    assert "tiny@1.10.0" in one
    (of_stack,) = noted(stack)
    assert of_stack.startswith(f"{share:.1f} % of the pixels are objects, or more, in 2 of 4 planes, over 90 %")
    assert noted(small) == noted(stack[3]) == noted(stack[1], output="mask") == []
    assert noted(stack[1], min_area="4800") == []  # what is dropped covers nothing


def test_pixels_of_another_size_than_the_package_was_trained_on_are_noted(client: AppClient) -> None:
    def noted(**query: str) -> list[str]:
        receipt = json.loads(client.segment(png(IMAGE), params=query).headers["x-unet-receipt"])
        return [note for note in receipt["input"]["notes"] if "was trained on" in note]

    assert noted() == noted(pixel_size="0.6,0.4") == noted(pixel_size="0.1,0.1", scale="0.2") == []
    assert noted(pixel_size="0.1,0.1") == [
        "the image's pixels are of 0.1 x 0.1 um, those that tiny@1.10.0 was trained on of 0.5 x 0.5 um: "
        "scale=0.2 shows it the objects as large as it knows them"
    ]
    (already,) = noted(pixel_size="0.5,0.5", scale="2")
    assert already.startswith("the image's pixels are of 0.5 x 0.5 um, taken at scale=2, those")
    for pixel_size, said in (("0.0313", "scale=0.063"), ("0.025", "scale=0.0625"), ("10", "scale=16")):
        (near,) = noted(pixel_size=pixel_size)
        assert near.endswith(f": {said} shows it the objects as large as it knows them")
        assert noted(pixel_size=pixel_size, scale=said.removeprefix("scale=")) == []
    for pixel_size in ("0.015", "20"):
        (beyond,) = noted(pixel_size=pixel_size)
        assert beyond.endswith(": no scale from 0.0625 to 16 shows it the objects as large as it knows them")


@pytest.mark.parametrize(("radius", "scale"), [(1, 1), (11, 1), (4, 4), (7, 0.25)])
def test_objects_of_another_size_than_the_package_was_trained_on_are_noted(
    client: AppClient, radius: int, scale: float
) -> None:
    """It was trained on 4 to 20 px, median 10 px."""
    discs = np.tile(disc(32, 40, radius), (3, 4))
    beside = np.vstack([np.full((40, 160), 200, dtype=np.uint8), discs])  # a large object that the edge cuts

    def noted(image: NDArray[np.uint8], **query: object) -> list[str]:
        answer = client.segment(npy(image), params={"format": "npy", "scale": scale, **query})
        notes: list[str] = json.loads(answer.headers["x-unet-receipt"])["input"]["notes"]
        return [note for note in notes if "was trained on 4 to 20 px (median 10 px)" in note]

    (note,) = noted(discs, output="labels")
    across = 2 * np.sqrt((disc(32, 40, radius) > 110).sum() / np.pi)
    found, fitting = re.findall(r"found are ([\d.]+) px .*: scale=([\d.]+) shows it objects of that size", note)[0]
    assert float(found) == pytest.approx(across, rel=0.1)
    assert float(fitting) == pytest.approx(10 / float(found), rel=0.05)
    assert (f"px at scale={scale:g}" in note) == (scale != 1)
    assert noted(beside, output="labels") == [note]
    assert noted(np.stack([discs, 0 * discs]), output="labels") == [note]
    assert noted(discs, output="mask") == noted(discs[:32], output="labels") == []
    for chosen in ({"min_area": 1}, {"min_score": 0.1}):  # which may be what makes them so large
        assert noted(discs, output="labels", **chosen) == []


def test_the_scale_that_objects_are_said_to_need_is_one_that_is_taken(client: AppClient) -> None:
    """Up to 16 and down to 0.0625; the package was trained on 4 to 20 px, median 10 px."""

    def note(image: NDArray[np.uint8]) -> str:
        answer = client.segment(npy(image), params={"format": "npy", "output": "labels"})
        notes: list[str] = json.loads(answer.headers["x-unet-receipt"])["input"]["notes"]
        return next(note for note in notes if "was trained on 4 to 20 px (median 10 px)" in note)

    discs = np.tile(disc(200, 200, 90), (2, 3))
    assert note(discs).endswith(": scale=0.0625 shows it objects of that size")  # of 11 px then
    assert client.segment(npy(discs), params={"scale": "0.0625"}).status_code == 200
    assert note(np.tile(disc(420, 420, 200), (2, 3))).endswith(
        ": no scale from 0.0625 to 16 shows it objects of that size"
    )


def test_objects_of_a_size_that_the_package_knows_are_not_noted(client: AppClient) -> None:
    discs = np.tile(disc(32, 40, 5), (3, 4))
    query = {"output": "labels", "format": "npy"}
    assert json.loads(client.segment(npy(discs), params=query).headers["x-unet-receipt"])["input"]["notes"] == []


def test_a_stack_comes_back_as_a_stack(client: AppClient) -> None:
    stack = np.stack([IMAGE, 255 - IMAGE, IMAGE])
    answer = client.segment(tiff(stack, photometric="minisblack"), params={"format": "npy"})
    assert np.load(io.BytesIO(answer.content)).shape == (3, 60, 80)


def test_a_sane_request_id_is_taken_over_and_another_is_replaced(client: AppClient) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "plate-7.B03"}).headers["x-request-id"] == "plate-7.B03"
    given = client.get("/livez", headers={"X-Request-ID": "a b{}"}).headers["x-request-id"]
    assert len(given) == 32


@pytest.mark.parametrize("name", ["tiff", "png", "npy"])
def test_an_answer_from_disk_is_the_one_from_memory_and_says_its_length(
    client: AppClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked = {"output": "labels", "format": name}
    in_memory = client.segment(png(IMAGE), params=asked)
    monkeypatch.setattr(demand, "needs", lambda *_: Needs(1_000_000, 100_000_000))
    monkeypatch.setattr(piecewise, "_PART_BYTES", 100)
    answer = client.segment(png(IMAGE), params=asked)
    assert answer.status_code == 200
    assert answer.content == in_memory.content
    assert answer.headers["content-length"] == in_memory.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == in_memory.headers["content-type"]
