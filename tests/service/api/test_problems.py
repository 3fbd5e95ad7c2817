"""Every failure has one shape, names what was found and the remedy, and leaves the service in order."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.api.pages import SWAGGER_PATH
from service.settings import Settings
from tests.app_client import AppClient, ready_app, running_app
from tests.images import disc, noise, npy, npy_declaring, png, tiff, tiff_declaring
from tests.problems import assert_problem

GOOD = png(disc())
COLOUR = png(np.stack([disc(), disc(radius=9), disc(radius=5)], axis=-1))


@pytest.mark.parametrize(
    ("body", "query", "status", "slug", "said"),
    [
        (b"", {}, 400, "empty-body", "0 bytes"),
        (b"this is not an image", {}, 415, "unsupported-image-format", "send TIFF, PNG, JPEG, BMP"),
        (
            GOOD.translate(None, b"\r\n"),
            {},
            415,
            "unsupported-image-format",
            "send it as it is (curl: --data-binary",
        ),
        (GOOD[:150], {}, 422, "undecodable-image", "PNG"),
        (tiff(disc())[:3000], {}, 422, "undecodable-image", "truncated"),
        (npy_declaring((900, 65535, 65535)), {}, 413, "image-too-large", "limit is 4000000; crop it, send fewer"),
        (npy_declaring((900, 65535, 65535)), {}, 413, "image-too-large", "or raise UNET_MAX_PIXELS"),
        (tiff_declaring(9, 65535, 65535), {}, 413, "image-too-large", "4000000"),
        (tiff(noise(40, 40).astype(np.float32) * np.nan), {}, 422, "non-finite-image", "NaN"),
        (COLOUR, {"model": "tiny"}, 422, "image-mismatch", "3"),
        (GOOD, {"model": "tinny"}, 404, "unknown-model", "tiny@1.10.0"),
        (GOOD, {"model": "a" * 201}, 422, "invalid-parameter", "aaa', it should have at most 200 characters"),
        (GOOD, {"format": "gif"}, 406, "unknown-format", "png"),
        (GOOD, {"format": "png", "output": "probabilities"}, 406, "unsupported-output", "tiff"),
        # without a look at the image
        (b"hello", {"format": "csv", "output": "mask"}, 406, "unsupported-output", "output=labels"),
        (GOOD, {"channel": "3"}, 422, "invalid-parameter", "channel"),
        (
            GOOD,
            {"channel": "DAPI"},
            422,
            "invalid-parameter",
            "channel 'DAPI' is asked for, the image has 1; use 0: the file names",
        ),
        (GOOD, {"thresold": "0.4"}, 422, "invalid-parameter", "did you mean 'threshold'?"),
        (GOOD, {"stitch_threshold": "0.4"}, 422, "invalid-parameter", "did you mean 'link'?"),
        (GOOD, {"stich_threshold": "0.4"}, 422, "invalid-parameter", "did you mean 'link'?"),
        (GOOD, {"min_size": "15"}, 422, "invalid-parameter", "did you mean 'min_area'?"),
        (GOOD, {"segment_threshold": "0.4"}, 422, "invalid-parameter", "did you mean 'threshold'?"),
        (GOOD, {"colour": "1"}, 422, "invalid-parameter", "there are model, output"),
        (GOOD, {"threshold": "1"}, 422, "invalid-parameter", "threshold is '1'"),
        (GOOD, {"threshold": "nan"}, 422, "invalid-parameter", "threshold is 'nan'"),
        (GOOD, {"min_area": "-1"}, 422, "invalid-parameter", "min_area is '-1'"),
        (GOOD, {"min_score": "1"}, 422, "invalid-parameter", "min_score is '1', it should be less than 1"),
        (GOOD, {"mirror": "often"}, 422, "invalid-parameter", "mirror is 'often'"),
        (
            GOOD,
            {"scale": "foo"},
            422,
            "invalid-parameter",
            "scale is 'foo', it should be a number from 0.0625 to 16, or auto",
        ),
        (GOOD, {"scale": "17"}, 422, "invalid-parameter", "scale is '17', it should be a number from 0.0625 to 16, or"),
        (GOOD, {"scale": "nan"}, 422, "invalid-parameter", "scale is 'nan', it should be a number from"),
        (GOOD, {"pixel_size": "0"}, 422, "invalid-parameter", "micrometres"),
        (GOOD, {"pixel_size": "1e-300", "format": "tiff"}, 422, "invalid-parameter", "from 1e-06 to 1e+06"),
        (GOOD, {"pixel_size": "0.5,1e7", "format": "tiff"}, 422, "invalid-parameter", "from 1e-06 to 1e+06"),
        (GOOD, {"pixel_size": "nan"}, 422, "invalid-parameter", "pixel_size is 'nan'"),
        (GOOD, {"pixel_size": "1,2,3"}, 422, "invalid-parameter", "micrometres"),
        (GOOD, {"origin": "5"}, 422, "invalid-parameter", "origin is '5', it should be y,x in px"),
        (GOOD, {"origin": "1,2,3"}, 422, "invalid-parameter", "write it as 2048,10240"),
        (GOOD, {"origin": "nan,0"}, 422, "invalid-parameter", "from -1000000000 to 1000000000"),
        (GOOD, {"origin": "0,-1e10"}, 422, "invalid-parameter", "from -1000000000 to 1000000000"),
        (GOOD, {"downsample": "0"}, 422, "invalid-parameter", "downsample is '0', it should be greater than"),
        (GOOD, {"downsample": "inf"}, 422, "invalid-parameter", "less than or equal to 100000"),
        (GOOD, {"downsample": "nan"}, 422, "invalid-parameter", "downsample is 'nan'"),
        (GOOD, {"downsample": "4"}, 422, "invalid-parameter", "format png takes neither"),
        (GOOD, {"timeout": "61"}, 422, "invalid-parameter", "the service's deadline is 60 s"),
        (GOOD, {"output": "outline"}, 422, "invalid-parameter", "'mask', 'labels'"),
        (GOOD, {"timeout": "0.0000001"}, 504, "deadline-exceeded", "1e-07 s"),
        (b"x" * (2 << 20) + b"x", {}, 413, "body-too-large", "2097153 bytes, the limit is 2097152"),
    ],
)
def test_a_bad_request_gets_its_problem_and_the_next_good_one_its_answer(  # noqa: PLR0917 - a table
    client: AppClient, body: bytes, query: dict[str, str], status: int, slug: str, said: str
) -> None:
    problem = assert_problem(client.segment(body, params=query), status, slug)
    assert said in problem["detail"]
    assert "pydantic" not in problem["detail"]
    assert client.segment(GOOD).status_code == 200


def test_several_bad_parameters_are_all_named(client: AppClient) -> None:
    detail = assert_problem(client.segment(GOOD, params={"threshold": "7", "min_area": "x"}), 422, "invalid-parameter")[
        "detail"
    ]
    assert "threshold" in detail
    assert "min_area" in detail


def test_a_parameter_is_refused_before_the_body_is_read(client: AppClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 1000

    assert_problem(client.request("POST", "/segment", params={"model": "x"}, content=endless()), 404, "unknown-model")
    assert read <= 1


def test_a_body_without_a_declared_length_is_counted(client: AppClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    problem = assert_problem(client.request("POST", "/segment", content=endless()), 413, "body-too-large")
    assert problem["limit_bytes"] == 2 << 20


def test_a_body_that_trickles_in_is_given_up_at_the_deadline(packages: Path) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    with ready_app(Settings(models_dir=packages, backend="cpu", default_model="tiny", deadline_s=0.2)) as client:
        assert_problem(client.request("POST", "/segment", content=trickle()), 408, "upload-too-slow")


@pytest.mark.parametrize(
    "headers",
    [{"Content-Encoding": "gzip"}, {"Transfer-Encoding": "gzip, chunked"}],
    ids=lambda given: next(iter(given)),
)
def test_a_compressed_body_is_refused_with_the_remedy(client: AppClient, headers: dict[str, str]) -> None:
    answer = client.segment(b"\x1f\x8b", headers=headers)
    assert "send the image itself" in assert_problem(answer, 415, "encoded-body")["detail"]


@pytest.mark.parametrize(
    ("options", "slug"),
    [
        ({"files": {"picture": ("a.png", GOOD)}}, "missing-image"),
        ({"files": {"image": (None, "text")}}, "missing-image"),
        ({"files": {"image": (None, "x" * 5000)}}, "missing-image"),
        ({"files": [("image", ("a.png", GOOD)), ("output", ("b", b"mask"))]}, "broken-multipart"),
        ({"files": {"image": ("a.png", b"")}}, "empty-body"),
        ({"files": [("image", ("a.png", GOOD)), ("image", ("b.png", GOOD))]}, "broken-multipart"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "broken-multipart"),
        ({"content": b"--y", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "broken-multipart"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "broken-multipart"),
        ({"files": {"image": ("a.png", GOOD), "model": (None, "x" * 5000)}}, "broken-multipart"),
    ],
)
def test_a_malformed_form_is_refused(client: AppClient, options: dict[str, Any], slug: str) -> None:
    assert_problem(client.request("POST", "/segment", **options), 400, slug)


def test_an_empty_content_encoding_is_none(client: AppClient) -> None:
    assert client.segment(GOOD, headers={"Content-Encoding": ""}).status_code == 200


def test_a_form_cut_off_in_its_image_is_refused(client: AppClient) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.request("POST", "/segment", content=head + GOOD[:100], headers=headers)
    assert "closing boundary" in assert_problem(answer, 400, "broken-multipart")["detail"]


@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"A form in MIME format.\r\n--x-\r\n", b"-" * 4000 + b"\r\n"])
@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_what_stands_in_front_of_the_first_part_of_a_form_is_passed_over(
    client: AppClient, preamble: bytes, piece_bytes: int
) -> None:
    head = b'--x-y\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = preamble + head + GOOD + b"\r\n--x-y--\r\nand behind"

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), piece_bytes):
            yield body[at : at + piece_bytes]

    headers = {"Content-Type": "multipart/form-data; boundary=x-y"}
    assert client.request("POST", "/segment", content=pieces(), headers=headers).status_code == 200


@pytest.mark.parametrize("body", [b"y" * 10_000, b"y" * 10_000 + b"\r\n--x--\r\n", b"yy--x--\r\n"])
def test_a_form_that_does_not_begin_is_refused(client: AppClient, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_problem(client.request("POST", "/segment", content=body, headers=headers), 400, "broken-multipart")


def test_an_unknown_field_of_a_form_is_refused(client: AppClient) -> None:
    answer = client.request("POST", "/segment", files={"image": ("a.png", GOOD)}, data={"outputs": "labels"})
    assert "did you mean 'output'?" in assert_problem(answer, 422, "invalid-parameter")["detail"]


def test_a_path_that_does_not_exist_is_a_problem(client: AppClient) -> None:
    assert_problem(client.get("/segments"), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/segment/"),
        ("GET", "/models/"),
        ("GET", "/livez//"),
        ("GET", "/models/tiny/"),
        ("GET", "/docs/"),
        ("GET", "/problems/not-found/"),
    ],
)
def test_a_slash_too_many_is_a_problem_that_names_the_path_and_no_redirect(
    client: AppClient, method: str, path: str
) -> None:
    answer = client.request(method, path, content=GOOD if method == "POST" else b"")
    tidy = path.replace("//", "/").rstrip("/")
    assert f"did you mean {tidy!r}?" in assert_problem(answer, 404, "not-found")["detail"]


@pytest.mark.parametrize("path", ["/segment", "/plan"])
@pytest.mark.parametrize("repeated", [1, 2])
def test_thousands_of_wrong_parameters_are_named_in_a_few_words(client: AppClient, path: str, repeated: int) -> None:
    query = "&".join(f"a{number}=1" for number in range(3000) for _ in range(repeated))
    answer = client.request("GET" if path == "/plan" else "POST", f"{path}?{query}")
    detail = assert_problem(answer, 422, "invalid-parameter")["detail"]
    assert re.search("and [0-9]{4} more of the kind", detail)
    assert len(detail) < 1500


def test_long_names_and_paths_come_back_shortened(client: AppClient) -> None:
    for path, name in (("/models/" + "a" * 30_000, "unknown-model"), ("/" + "a" * 30_000, "not-found")):
        assert len(assert_problem(client.get(path), 404, name)["detail"]) < 500


@pytest.mark.parametrize("query", ["output=labels&output=mask", "model=tiny&model=", "threshold=0.5&threshold=0.5"])
def test_a_parameter_given_twice_is_refused_in_query_and_form(client: AppClient, query: str) -> None:
    name = query.partition("=")[0]
    pairs = [pair.split("=") for pair in query.split("&")]
    in_query = client.segment(GOOD, params=query)
    files = [("image", ("a.png", GOOD)), *((key, (None, value)) for key, value in pairs)]
    in_form = client.request("POST", "/segment", files=files)
    for answer in (in_query, in_form):
        assert f"{name} is given 2 times" in assert_problem(answer, 422, "invalid-parameter")["detail"]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/segment", "POST"),
        ("/models", "GET, HEAD"),
        ("/jobs", "GET, HEAD"),
        ("/jobs/0123456789abcdef0123456789abcdef", "DELETE, GET, HEAD"),
        ("/jobs/0123456789abcdef0123456789abcdef/result", "GET, HEAD"),
        (f"{SWAGGER_PATH}/swagger-ui.css", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_all_right_ones(client: AppClient, path: str, allow: str) -> None:
    answer = client.request("PUT", path)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allow


def test_what_nobody_foresaw_is_a_500_that_tells_the_log_and_not_the_client(
    client: AppClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(client.app.state.engine, "segment", fail)
    counted = partial(
        client.app.state.metrics.registry.get_sample_value, "unet_rejected_total", {"reason": "internal-error"}
    )
    before = counted()
    with caplog.at_level(logging.ERROR, "unet.api"):
        answer = client.segment(GOOD)
    assert "secret" not in answer.text
    problem = assert_problem(answer, 500, "internal-error")
    assert problem["detail"].endswith(f"its log has the reason under request_id {problem['request_id']}")
    (logged,) = (record for record in caplog.records if record.exc_info)
    assert "secret" in str(logged.exc_info and logged.exc_info[1])
    assert counted() == before + 1


def test_a_draining_service_refuses_with_a_time_to_come_back(settings: Settings) -> None:
    with ready_app(settings) as client:
        client.app.state.engine.drain()
        assert_problem(client.segment(GOOD), 503, "draining")
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["reasons"] == ["the service is draining"]


def test_a_service_without_packages_lives_but_is_not_ready(tmp_path: Path) -> None:
    with running_app(Settings(models_dir=tmp_path, backend="cpu")) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert_problem(client.segment(noise(9, 9).tobytes()), 503, "not-ready")
        assert_problem(client.segment(npy(noise(9, 9))), 503, "not-ready")
