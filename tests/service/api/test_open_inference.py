"""/v2: what the Open Inference Protocol and its extension of binary tensors want, with the answers of /segment."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.open_inference.tensors import DTYPES, datatype
from service.engine.engine import Engine
from service.engine.request import Answer, Readiness
from service.engine.stages.pipeline import Pipeline
from service.settings import Settings, load_settings
from tests.app_client import AppClient, ready_app
from tests.images import disc, noise, npy
from tests.packages import put_package
from tests.problems import assert_problem

KINDS = ("mask", "labels", "probabilities")
INFER = "/v2/models/tiny/infer"
HEADER = "Inference-Header-Content-Length"


def described(image: NDArray[Any], **members: Any) -> dict[str, Any]:
    return {"name": "image", "shape": list(image.shape), "datatype": datatype(image.dtype), **members}


def sent_as_json(client: AppClient, image: NDArray[Any], path: str = INFER, **members: Any) -> httpx.Response:
    data = image.ravel().tolist()
    return client.request("POST", path, json={"inputs": [described(image, data=data)], **members})


def sent_as_bytes(client: AppClient, image: NDArray[Any], path: str = INFER, **members: Any) -> httpx.Response:
    tensor = described(image, parameters={"binary_data_size": image.nbytes})
    head = json.dumps({"inputs": [tensor], **members}).encode()
    return client.request("POST", path, content=head + image.tobytes(), headers={HEADER: str(len(head))})


def tensors(answer: httpx.Response) -> dict[str, NDArray[Any]]:
    """Outputs of a response, in their order; whatever is left over or missing fails."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER, len(answer.content)))
    document, rest = json.loads(answer.content[:length]), answer.content[length:]
    found = {}
    for output in document["outputs"]:
        dtype = DTYPES[output["datatype"]]
        if "data" in output:
            values = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:size], dtype), rest[size:]
        found[output["name"]] = values.reshape(output["shape"])
    assert not rest
    assert answer.headers["content-type"] == f"application/{'octet-stream' if HEADER in answer.headers else 'json'}"
    return found


def segmented(client: AppClient, image: NDArray[Any], **parameters: Any) -> NDArray[Any]:
    answer = client.segment(npy(image), params={"format": "npy", **parameters})
    assert answer.status_code == 200, answer.text
    array: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return array


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_the_server_and_its_models_are_described(client: AppClient) -> None:
    server = client.get("/v2").json()
    assert server["name"] == "unet-service"
    assert "binary_tensor_data" in server["extensions"]
    tiny, colour = client.get("/v2/models/tiny").json(), client.get("/v2/models/colour").json()
    assert (tiny["name"], tiny["versions"], tiny["platform"]) == ("tiny", ["1.10.0", "1.0.0"], "onnxruntime_onnx")
    assert tiny["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, -1]}]
    assert colour["inputs"][0]["shape"] == [-1, -1, 3]
    assert tiny["outputs"] == [
        {"name": "mask", "datatype": "UINT8", "shape": [-1, -1]},
        {"name": "labels", "datatype": "UINT16", "shape": [-1, -1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [2, -1, -1]},
    ]
    assert client.get("/v2/models/tiny/versions/1.0.0").json() == tiny


def test_health_is_that_of_the_probes(client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(path).json() == {"live": True, "ready": True, "error": None}
    for path in ("/v2/models/tiny/ready", "/v2/models/tiny/versions/1.0.0/ready"):
        assert client.get(path).json() == {"name": "tiny", "ready": True}
    monkeypatch.setattr(Engine, "readiness", lambda _: Readiness(ready=False, reasons=("the service is draining",)))
    unready = client.get("/v2/health/ready")
    assert (unready.status_code, unready.json()["error"]) == (503, "the service is draining")
    assert unready.headers["retry-after"] == "5"
    assert client.get("/v2/health/live").status_code == 200
    assert assert_problem(client.get("/v2/models/tiny/ready"), 503, "not-ready")["error"] == "the service is draining"
    monkeypatch.setattr(Engine, "lost", "the net of tiny@1.0.0 fails: CUDA error 700")
    lost = client.get("/v2/health/live")
    assert (lost.status_code, lost.json()["live"]) == (503, False)


@pytest.mark.parametrize("send", [sent_as_json, sent_as_bytes])
@pytest.mark.parametrize("binary", [KINDS, (), ("labels",), ("mask", "probabilities")], ids=str)
def test_outputs_are_those_of_segment_however_they_travel(
    client: AppClient, send: Any, binary: tuple[str, ...]
) -> None:
    image = noise(90, 110, np.uint16)
    kinds = KINDS[::-1]
    outputs = [{"name": kind, "parameters": {"binary_data": kind in binary}} for kind in kinds]
    answer = send(client, image, outputs=outputs)
    found = tensors(answer)
    assert tuple(found) == kinds
    for kind in KINDS:
        assert_same(found[kind], segmented(client, image, output=kind))
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_the_mask_is_given_where_nothing_is_asked_for(client: AppClient) -> None:
    image = disc()
    plain = sent_as_json(client, image, id="a-7")
    assert list(tensors(plain)) == ["mask"]
    document = plain.json()
    assert (document["model_name"], document["model_version"], document["id"]) == ("tiny", "1.10.0", "a-7")
    receipt = json.loads(document["parameters"]["receipt"])["mask"]
    assert receipt["model"]["version"] == "1.10.0"
    assert receipt["input"]["size_yx"] == list(image.shape)
    assert "inference" in receipt["stages_ms"]
    binary = sent_as_bytes(client, image, parameters={"binary_data_output": True})
    assert_same(tensors(binary)["mask"], tensors(plain)["mask"])
    assert "id" not in json.loads(binary.content[: int(binary.headers[HEADER])])


def test_a_version_may_be_named(client: AppClient) -> None:
    answer = sent_as_json(client, disc(), "/v2/models/tiny/versions/1.0.0/infer")
    assert answer.json()["model_version"] == "1.0.0"
    nobody = sent_as_json(client, disc(), "/v2/models/tiny/versions/2/infer")
    assert assert_problem(nobody, 404, "unknown-model")["error"].startswith("no model 'tiny@2' is served; there are")


@pytest.mark.parametrize("path", [INFER, "/v2/models/tiny/versions/1.0.0/infer"], ids=["highest", "named"])
def test_all_outputs_are_of_one_version_though_its_package_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    put_package(tmp_path, version="1.0.0")
    segment = Pipeline.segment
    runs: list[int] = []
    given = {"models_dir": tmp_path, "backend": "cpu", "cache_dir": "none", "rescan_s": 0}
    with ready_app(load_settings(given)) as changing:
        engine: Engine = changing.app.state.engine

        async def replaced_after(self: Pipeline, *given: Any, **named: Any) -> list[Answer]:
            answers = await segment(self, *given, **named)
            runs.append(len(answers))
            if engine.model("tiny").package.spec.version == "1.0.0":
                await asyncio.to_thread(put_package, tmp_path, version="2.0.0")
                engine.look_for_packages()
                async with asyncio.timeout(60):
                    while [model.package.spec.version for model in engine.models] != ["2.0.0"]:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)  # nothing tells of it
            return answers

        monkeypatch.setattr(Pipeline, "segment", replaced_after)
        with monkeypatch.context() as scarce:
            scarce.setattr(engine._admission, "memory_limit", 44 * disc().size)
            answer = sent_as_bytes(changing, disc(), path, outputs=[{"name": name} for name in KINDS])
        assert runs == [1, 1, 1]
        assert set(tensors(answer)) == set(KINDS)
        document = answer.json()
        assert document["model_version"] == "1.0.0"
        receipts = json.loads(document["parameters"]["receipt"])
        assert [receipts[name]["model"]["version"] for name in KINDS] == ["1.0.0"] * 3
        assert sent_as_bytes(changing, disc()).json()["model_version"] == "2.0.0"


@pytest.mark.parametrize("name", sorted(DTYPES))
@pytest.mark.parametrize("send", [sent_as_json, sent_as_bytes])
def test_every_datatype_is_read_as_in_an_npy_file(client: AppClient, send: Any, name: str) -> None:
    image = np.where(disc() > 110, 1 if name == "BOOL" else 100, 0).astype(DTYPES[name])
    assert_same(tensors(send(client, image))["mask"], segmented(client, image))


@pytest.mark.parametrize("shape", [(2, 40, 50), (40, 50, 1), (2, 40, 50, 1), (1, 1)], ids=str)
def test_axes_are_read_as_in_an_npy_file(client: AppClient, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    outputs = [{"name": kind} for kind in KINDS]
    found = tensors(sent_as_bytes(client, image, outputs=outputs))
    for kind in KINDS:
        assert_same(found[kind], segmented(client, image, output=kind))


def test_channels_come_last_or_where_axes_has_them(client: AppClient) -> None:
    image = np.dstack([disc(), disc(radius=9), disc(radius=5)])
    found = tensors(sent_as_json(client, image, "/v2/models/colour/infer"))
    assert_same(found["mask"], segmented(client, image, model="colour"))
    first = np.moveaxis(image, -1, 0)
    moved = sent_as_bytes(client, np.ascontiguousarray(first), "/v2/models/colour/infer", parameters={"axes": "CYX"})
    assert_same(tensors(moved)["mask"], found["mask"])
    assert_problem(sent_as_json(client, disc(), "/v2/models/colour/infer"), 422, "image-mismatch")


@pytest.mark.parametrize(
    "parameters",
    [
        {"threshold": 0.97},
        {"threshold": "0.97", "min_area": 3, "min_score": 0.5},
        {"mirror": True, "scale": 0.5},
        {"pixel_size": 0.65, "timeout": 30},
        {"channel": 0},
    ],
    ids=str,
)
def test_parameters_are_those_of_segment(client: AppClient, parameters: Mapping[str, Any]) -> None:
    image = noise(60, 70)
    answer = sent_as_json(client, image, parameters=parameters, outputs=[{"name": "labels"}])
    texts = {name: str(value).lower() for name, value in parameters.items()}
    assert_same(tensors(answer)["labels"], segmented(client, image, output="labels", **texts))
    receipt = json.loads(answer.json()["parameters"]["receipt"])["labels"]
    by_segment = client.segment(npy(image), params={"format": "npy", "output": "labels", **texts})
    expected = json.loads(by_segment.headers["x-unet-receipt"])
    assert {**receipt, "stages_ms": 0} == {**expected, "stages_ms": 0}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"thresold": 0.5}, "did you mean 'threshold'?"),
        ({"threshold": 1.5}, "threshold is '1.5'"),
        ({"channel": True}, "'true'"),
        ({"mirror": "perhaps"}, "mirror is 'perhaps', it should be true or false"),
        ({"scale": "foo"}, "scale is 'foo', it should be a number from 0.0625 to 16, or auto"),
        ({"scale": 17}, "scale is '17', it should be a number from 0.0625 to 16, or auto"),
        ({"min_area": None}, "min_area is 'None', it should be a number, a text, true or false"),
        ({"min_area": [1]}, "it should be a number"),
        ({"timeout": 5_000_000}, "the service's deadline is 60 s"),
        ({"model": "colour"}, "parameter 'model' does not exist here, the path decides"),
        ({"output": "labels"}, "'outputs' decides"),
        ({"format": "png"}, "the protocol decides"),
        ({"origin": "1,2"}, "'origin' does not exist here, tensors have no coordinates; leave it out"),
        ({"downsample": 1}, "'downsample' does not exist here, tensors have no coordinates"),
        ({"respond_async": True}, "'respond_async' does not exist here, answers are waited for"),
        ({"respond_async": False}, "'respond_async' does not exist here"),
        (
            {"priority": 1},
            "; there are threshold, min_area, min_score, link, channel, axes, mirror, scale, pixel_size, timeout",
        ),
        ({"binary_data_output": 1}, "binary_data_output is '1'"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused(client: AppClient, parameters: Mapping[str, Any], said: str) -> None:
    problem = assert_problem(sent_as_json(client, disc(), parameters=parameters), 422, "invalid-parameter")
    assert said in problem["detail"]
    assert problem["error"] == problem["detail"]


def test_parameters_in_the_query_are_refused(client: AppClient) -> None:
    answer = client.request("POST", f"{INFER}?threshold=0.4", json={})
    assert "the query has 1 parameters" in assert_problem(answer, 422, "invalid-parameter")["detail"]


GOOD = {"name": "image", "shape": [2, 2], "datatype": "UINT8", "data": [1, 2, 3, 4]}
BINARY = {"name": "image", "shape": [2, 2], "datatype": "UINT8", "parameters": {"binary_data_size": 4}}
HEAD = json.dumps({"inputs": [BINARY]}).encode()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "inputs is "),
        ([], "the request is '[]'"),
        ({"inputs": []}, "inputs is '[]': list should have at least 1 item"),
        ({"inputs": [GOOD, GOOD]}, "2 lists 'data' or more, the limit is 1"),
        ({"inputs": [BINARY, BINARY]}, "list should have at most 1 item"),
        ({"inputs": [{**GOOD, "name": "INPUT__0"}]}, "inputs.0.name is 'INPUT__0': input should be 'image'"),
        ({"inputs": [{**GOOD, "datatype": "BYTES"}]}, "datatype 'BYTES' is not read; send one of BOOL, UINT8"),
        ({"inputs": [{**GOOD, "datatype": "BF16"}]}, "datatype 'BF16' is not read; send one of BOOL, UINT8"),
        ({"inputs": [{**GOOD, "datatype": "uint8"}]}, "datatype 'uint8' is not read"),
        ({"inputs": [{**GOOD, "data": ["a"]}]}, "'data' holds other values than numbers"),
        ({"inputs": [{**GOOD, "data": "abcd"}]}, "'data' is 'abcd'"),
        ({"inputs": [{**GOOD, "data": [1, 2, 3]}]}, "'data' has 3 values, shape [2, 2] needs 4"),
        ({"inputs": [{**GOOD, "data": [[1, 2, 3, 4]]}]}, "nested otherwise"),
        ({"inputs": [{**GOOD, "shape": [2, -2]}]}, "inputs.0.shape.1 is '-2'"),
        ({"inputs": [{**GOOD, "shape": [2, True]}]}, "inputs.0.shape.1 is 'True'"),
        ({"inputs": [{**GOOD, "shape": [2, 2.0]}]}, "inputs.0.shape.1 is '2.0'"),
        ({"inputs": [{**GOOD, "shape": [1] * 7}]}, "inputs.0.shape is "),
        ({"inputs": [{**GOOD, "shape": [2**62, 2**62]}]}, "'data' has 4 values"),
        ({"inputs": [{**BINARY, "shape": [2**62, 2**62]}]}, "0 bytes follow the JSON"),
        ({"inputs": [BINARY]}, "0 bytes follow the JSON and binary_data_size is 4"),
        ({"inputs": [{**BINARY, "parameters": {}}]}, "input 'image' has 0 values"),
        ({"inputs": [{**BINARY, "parameters": {"shared_memory_region": "a"}}]}, "shared_memory_region"),
        ({"inputs": [{**BINARY, "x": {"data": [1, 2, 3, 4]}}]}, "'data' is no member of the input"),
        ({"inputs": [GOOD], "outputs": [{"name": "depth"}]}, "outputs.0.name is 'depth'"),
        ({"inputs": [GOOD], "outputs": [{"name": "mask", "parameters": {"classification": 3}}]}, "classification"),
        ({"inputs": [GOOD], "outputs": [{"name": "mask"}] * 4}, "outputs is "),
        ({"inputs": [GOOD], "id": 7}, "id is '7'"),
        ({"inputs": [GOOD], "x": "y" * 65536}, "the limit is 65536"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_malformed_requests_are_refused(client: AppClient, document: Any, said: str) -> None:
    problem = assert_problem(client.request("POST", INFER, json=document), 400, "broken-inference")
    assert said in problem["error"]


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"", {}, "0 bytes of a body of 0"),
        (b"{", {}, "the 1 bytes of JSON cannot be read"),
        (b"\xff\xfe\xfa", {}, "cannot be read"),
        (b"[" * 50_000, {}, "has 50000 lists and objects"),
        (b"[" * 200, {}, "cannot be read"),
        (b"{}", {HEADER: "3"}, "said to have 3 bytes of a body of 2"),
        (b"{}", {HEADER: "0"}, "said to have 0 bytes"),
        (b"{}", {HEADER: "-1"}, f"{HEADER} is '-1'"),
        (b"{}", {HEADER: "9" * 5000}, f"{HEADER} is '999"),
        (npy(disc()), {}, "cannot be read"),
        (HEAD + b"12345", {HEADER: str(len(HEAD))}, "5 bytes follow the JSON and binary_data_size is 4"),
        (b'{"inputs": [{"name": "image", "data": [1', {}, "'data' holds other values"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bodies_that_are_no_request_are_refused(
    client: AppClient, body: bytes, headers: Mapping[str, str], said: str
) -> None:
    answer = client.request("POST", INFER, content=body, headers=headers)
    assert said in assert_problem(answer, 400, "broken-inference")["error"]


def test_members_given_twice_are_refused(client: AppClient) -> None:
    twice = b'{"inputs": [], "parameters": {"threshold": 0.1, "threshold": 0.9}}'
    problem = assert_problem(client.request("POST", INFER, content=twice), 422, "invalid-parameter")
    assert problem["error"] == "threshold is given 2 times, the limit is once; keep the value that is meant"
    outputs = [{"name": "mask"}, {"name": "mask"}]
    problem = assert_problem(sent_as_json(client, disc(), outputs=outputs), 422, "invalid-parameter")
    assert problem["error"].startswith("output mask is given 2 times")


def test_a_name_of_half_a_character_is_refused_as_any_other(client: AppClient) -> None:
    body = json.dumps({"inputs": [GOOD], "parameters": {"half": None}}).replace("half", r"\ud800")
    problem = assert_problem(client.request("POST", INFER, content=body.encode()), 422, "invalid-parameter")
    assert problem["error"].startswith(r"\ud800 is 'None', it should be a number")


def test_what_cannot_be_ready_in_time_is_refused(client: AppClient, settings: Settings) -> None:
    late = sent_as_bytes(client, disc(), parameters={"timeout": 1e-9}, outputs=[{"name": "mask"}, {"name": "labels"}])
    assert_problem(late, 504, "deadline-exceeded")
    with ready_app(settings.model_copy(update={"deadline_s": 2})) as hasty:
        asyncio.run(hasty.app.state.json_turn.acquire())  # as by a request whose JSON takes long to read
        problem = assert_problem(sent_as_json(hasty, noise(450, 450, np.uint16)), 504, "deadline-exceeded")
        assert problem["error"].startswith("the answer was not ready in the 2 s allowed; send values as binary data")
        assert hasty.app.state.upload_room.on_disk == 0


def test_failures_carry_the_protocols_member_under_v2_alone(client: AppClient) -> None:
    for answer in (
        client.get("/v2/nothing"),
        client.request("POST", "/v2"),
        client.get("/v2/models/tinny"),
        client.request("POST", INFER, content=bytes((2 << 20) + 1)),
        client.request("POST", INFER, content=b"{}", headers={"Content-Encoding": "gzip"}),
        sent_as_bytes(client, np.full((4, 4), np.nan, np.float32)),
    ):
        assert answer.status_code >= 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"] == answer.json()["detail"]
    assert "error" not in client.get("/models/tinny").json()
    assert "error" not in client.get("/v22").json()


def test_too_many_pixels_are_refused_by_the_shape(settings: Settings) -> None:
    with ready_app(settings.model_copy(update={"max_pixels": 1000})) as small:
        problem = assert_problem(sent_as_bytes(small, disc()), 413, "image-too-large")
        assert "4800 pixels, the limit is 1000" in problem["error"]
        assert_problem(sent_as_json(small, disc()), 413, "image-too-large")


def test_large_json_is_read_and_larger_one_refused(settings: Settings) -> None:
    image = noise(640, 700, np.uint16)
    with ready_app(settings.model_copy(update={"max_body_mb": 20})) as roomy:
        answer = sent_as_json(roomy, image)
        assert int(answer.request.headers["content-length"]) > 1 << 20
        assert_same(tensors(answer)["mask"], segmented(roomy, image))
        refused = roomy.request("POST", INFER, content=b" " * ((16 << 20) + 1))
        assert "send the values as binary data" in assert_problem(refused, 400, "broken-inference")["error"]
        assert roomy.app.state.upload_room.on_disk == 0


def test_one_request_gives_its_room_back(client: AppClient) -> None:
    room = client.app.state.upload_room
    for answer in (sent_as_json(client, disc()), sent_as_json(client, disc(), outputs=[{"name": "nothing"}])):
        assert answer.status_code in {200, 400}
        assert room.on_disk == 0


def test_the_log_and_the_metrics_have_it_as_a_segmentation(client: AppClient, caplog: pytest.LogCaptureFixture) -> None:
    counted = 'unet_requests_total{format="oip",model="tiny@1.10.0",status="200"}'

    def count() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counted))

    before = count()
    with caplog.at_level(logging.INFO, logger="unet.access"):
        sent_as_bytes(client, disc())
        client.get("/v2/health/live")
    assert count() == before + 1
    (noted,) = [vars(record)["fields"] for record in caplog.records if record.name == "unet.access"]
    assert (noted["path"], noted["format"], noted["pixels"]) == (INFER, "oip", disc().size)


def test_labels_are_made_before_an_answer_that_is_ready_takes_the_memory_that_they_need(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels take 40 bytes a pixel while they are made, probabilities 18, and 8 once they are."""
    image = disc(600, 600).astype(np.uint16)
    expected = {kind: segmented(client, image, output=kind) for kind in ("probabilities", "labels")}
    monkeypatch.setattr(client.app.state.engine._admission, "memory_limit", 44 * image.size)
    asked = [{"name": kind, "parameters": {"binary_data": True}} for kind in expected]
    found = tensors(sent_as_bytes(client, image, outputs=asked))
    assert [*found] == [*expected]
    for kind, array in expected.items():
        assert_same(found[kind], array)


def test_one_run_of_the_net_makes_all_outputs(client: AppClient) -> None:
    counted = 'unet_pixels_total{model="tiny@1.10.0"}'

    def pixels() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counted))

    image, before = disc(), pixels()
    answer = sent_as_bytes(client, image, outputs=[{"name": kind} for kind in KINDS])
    assert pixels() == before + image.size
    receipts = json.loads(answer.json()["parameters"]["receipt"])
    assert [receipts[kind]["output"]["kind"] for kind in KINDS] == list(KINDS)
    assert receipts["mask"]["stages_ms"] == receipts["labels"]["stages_ms"] == receipts["probabilities"]["stages_ms"]


def test_outputs_that_could_never_all_be_there_are_refused_for_good(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities of eight planes take 129 bytes a pixel of a plane and labels 16, and 96 while they are made."""
    stack = np.stack([disc(400, 400)] * 8)
    monkeypatch.setattr(client.app.state.engine._admission, "memory_limit", 140 * stack[0].size)
    problem = assert_problem(
        sent_as_bytes(client, stack, outputs=[{"name": "labels"}, {"name": "probabilities"}]),
        413,
        "too-large-for-memory",
    )
    assert "beside 3 MB of the request's other results" in problem["error"]
    assert "ask for fewer outputs at a time" in problem["error"]
    for kind in ("labels", "probabilities"):
        alone = [{"name": kind, "parameters": {"binary_data": True}}]
        assert set(tensors(sent_as_bytes(client, stack, outputs=alone))) == {kind}
