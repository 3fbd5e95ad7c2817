"""``GET /plan``: the answer to "how long will it take?"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from service.engine.request import SegmentRequest
from service.settings import Settings
from tests.app_client import AppClient, ready_app
from tests.images import noise, png
from tests.problems import assert_problem


def test_a_plan_is_what_the_request_then_gets(client: AppClient) -> None:
    plan = client.get("/plan", params={"size": "300x500", "model": "tiny"}).json()
    answer = client.segment(png(noise(300, 500)), params={"model": "tiny", "format": "rle"})
    tiles = answer.json()["receipt"]["tiles"]
    assert (plan["tiles"], plan["input_yx"], plan["stride_yx"]) == (
        tiles["count"],
        tiles["input_yx"],
        tiles["stride_yx"],
    )
    assert plan["model"] == "tiny@1.10.0"
    assert plan["size_yx"] == [300, 500]
    assert plan["refusal"] is None
    assert (plan["backlog_seconds"], plan["disk_bytes"]) == (0, 0)
    assert plan["memory_bytes"] >= 300 * 500 * 2


def test_empty_parameters_are_not_given_as_in_a_request(client: AppClient) -> None:
    empty = dict.fromkeys(["planes", "model", "output", "mirror", "timeout"], "")
    assert client.get("/plan", params={"size": "300x500", **empty}).json() == client.get("/plan?size=300x500").json()


def test_planes_and_views_count(client: AppClient) -> None:
    def asked(**more: str) -> dict[str, Any]:
        plan: dict[str, Any] = client.get("/plan", params={"size": "1000x900", **more}).json()
        return plan

    one, stack, mirrored = asked(), asked(planes="3"), asked(mirror="true")
    assert stack["tiles"] == 3 * one["tiles"]
    assert math.isclose(stack["compute_seconds"], 3 * one["compute_seconds"], abs_tol=0.003)
    assert mirrored["compute_seconds"] > 4 * one["compute_seconds"] > 0
    alone = one["compute_seconds"] + one["finishing_seconds"]
    assert math.isclose(one["expected_seconds"], alone, abs_tol=0.002), "nobody else is there"


@pytest.fixture
def fresh(settings: Settings) -> Iterator[AppClient]:
    """An application that has segmented nothing yet."""
    with ready_app(settings) as running:
        yield running


def test_what_comes_beside_the_net_is_told_by_images_that_were_asked_for_alike(fresh: AppClient) -> None:
    asked = {"model": "tiny", "output": "labels", "format": "npy"}

    def finishing(size: str = "600x600", **more: str) -> float:
        seconds: float = fresh.get("/plan", params={"size": size, **asked, **more}).json()["finishing_seconds"]
        return seconds

    usual = finishing(), finishing(output="mask")
    fresh.segment(png(noise(500, 500)), params=asked)
    assert finishing() == usual[0], "a small image tells nothing"
    assert usual[0] > usual[1] > 0, "objects have to be found"
    answer = fresh.segment(png(noise(600, 600)), params=asked)
    assert answer.status_code == 200
    plan = fresh.get("/plan", params={"size": "600x600", **asked}).json()
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    beside = sum(float(ms) for name, ms in stages.items() if name not in {"inference", "wait", "total"}) / 1000
    assert math.isclose(plan["finishing_seconds"], beside, rel_tol=0.05, abs_tol=0.002)
    together = plan["compute_seconds"] + plan["finishing_seconds"]
    assert math.isclose(plan["expected_seconds"], together, abs_tol=0.002)
    assert math.isclose(finishing(planes="3"), 3 * plan["finishing_seconds"], abs_tol=0.003)
    assert [finishing(format="tiff"), finishing(scale="0.5")] == [plan["finishing_seconds"]] * 2, "much alike"
    assert finishing(output="mask") == usual[1]


def test_what_would_be_refused_is_said_with_the_problem_it_would_get(client: AppClient) -> None:
    plan = client.get("/plan", params={"size": "1999x1999", "timeout": "0.000001"}).json()
    assert plan["refusal"]["type"] == "/problems/deadline-exceeded"
    assert plan["refusal"]["status"] == 504
    assert "1e-06 s" in plan["refusal"]["detail"]


def test_what_could_not_be_finished_in_time_is_refused_at_once_and_said_before(fresh: AppClient) -> None:
    asked = {"model": "tiny", "output": "labels", "format": "npy", "timeout": "20"}
    model = fresh.app.state.engine.model("tiny")

    def refusal() -> dict[str, Any] | None:
        found: dict[str, Any] | None = fresh.get("/plan", params={"size": "600x600", **asked}).json()["refusal"]
        return found

    like = SegmentRequest(output="labels", format="npy")
    model.finishing.add(like, 600 * 600, 100.0)
    assert refusal() is None, "one image is no rule"
    model.finishing.add(like, 600 * 600, 100.0)
    told = refusal()
    assert told is not None
    assert told["type"] == "/problems/deadline-exceeded"
    assert "100.0 s of it beside the net, the time allowed is 20 s; raise the timeout" in told["detail"]
    answer = fresh.segment(png(noise(600, 600)), params=asked)
    assert assert_problem(answer, 504, "deadline-exceeded")["detail"] == told["detail"]
    assert fresh.segment(png(noise(600, 600)), params={**asked, "output": "mask"}).status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "slug", "said"),
    [
        ({"size": ""}, 422, "invalid-parameter", "parameter 'size' is missing"),
        ({}, 422, "invalid-parameter", "parameter 'size' is missing"),
        ({"size": "12"}, 422, "invalid-parameter", "size is '12', it should be height and width in px"),
        ({"size": "0x5"}, 422, "invalid-parameter", "write it as 4096x4096"),
        ({"size": "5x1000000000"}, 422, "invalid-parameter", "from 1 to 999999999"),
        ({"size": "5x5", "planes": "0"}, 422, "invalid-parameter", "planes is '0'"),
        ({"size": "5x5", "mirror": "perhaps"}, 422, "invalid-parameter", "it should be true or false"),
        ({"size": "5x5", "plains": "2"}, 422, "invalid-parameter", "did you mean 'planes'?"),
        ({"size": "5x5", "colour": "2"}, 422, "invalid-parameter", "there are size, planes, model"),
        ({"size": "5x5", "model": "colour", "channel": "DAPI"}, 422, "invalid-parameter", "takes 3 channels"),
        ({"size": "5x5", "timeout": "61"}, 422, "invalid-parameter", "the service's deadline is 60 s"),
        ({"size": "5x5", "model": "tinny"}, 404, "unknown-model", "tiny@1.10.0"),
        ({"size": "5x5", "format": "bmp"}, 406, "unknown-format", "bmp"),
        ({"size": "5x5", "format": "png", "output": "probabilities"}, 406, "unsupported-output", "tiff"),
        ({"size": "5x5", "format": "png", "planes": "3"}, 406, "unsupported-output", "PNG holds one plane"),
        ({"size": "5x5", "format": "csv", "output": "mask"}, 406, "unsupported-output", "ask for output=labels"),
        ({"size": "2001x2000"}, 413, "image-too-large", "4002000 pixels, the limit is 4000000"),
        ({"size": "5x5", "planes": "9" * 30}, 413, "image-too-large", "the limit is 4000000"),
    ],
)
def test_bad_questions_get_their_problem(
    client: AppClient, query: dict[str, str], status: int, slug: str, said: str
) -> None:
    assert said in assert_problem(client.get("/plan", params=query), status, slug)["detail"]


def test_a_parameter_that_is_given_twice_is_refused(client: AppClient) -> None:
    answer = client.get("/plan?size=5x5&size=6x6")
    assert "size is given 2 times" in assert_problem(answer, 422, "invalid-parameter")["detail"]
