"""Everything beside /segment: model cards, probes, metrics, pages, the OpenAPI document."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.engine.engine import Engine
from service.errors import KINDS
from service.formats import ENCODERS
from tests.app_client import AppClient
from tests.images import disc, png
from tests.problems import assert_problem

SLUGS = sorted({kind.slug for kind in KINDS})


def test_the_list_of_models_says_how_large_a_body_may_be(client: AppClient) -> None:
    limit = client.get("/models").json()["max_body_bytes"]
    assert_problem(client.segment(b"", headers={"Content-Length": str(limit + 1)}), 413, "body-too-large")


def test_models_lists_what_is_served_and_why_the_rest_is_not(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = client.get("/models").json()
    names = [(model["name"], model["version"], model["default"]) for model in listed["models"]]
    assert names == [("colour", "1.0.0", False), ("tiny", "1.10.0", True), ("tiny", "1.0.0", False)]
    assert list(listed["refused"]) == ["damaged"]
    assert "sha256" in listed["refused"]["damaged"]
    monkeypatch.setattr(client.app.state.engine.memory_fit, "conflict", "2 nets are too many")
    assert client.get("/models").json()["memory_warning"] == "2 nets are too many"


def test_a_card_tells_all_of_a_package(client: AppClient) -> None:
    card = client.get("/models/tiny").json()
    assert card["version"] == "1.10.0"
    assert card["classes"] == ["background", "object"]
    assert card["geometry"]["y"] == {"minimum": 18, "step": 2, "shrink": 16, "halo": 0, "grid": 2}
    assert card["pixel_size_um"] == [0.5, 0.5]
    assert card["object_diameter_px"] == [4.0, 10.0, 20.0]
    assert card["label_rule"]["method"] == "components"
    assert card["mask_classes"] == ["background", "object"]
    assert card["provider"] == "CPUExecutionProvider"
    assert card["facts"] == {"purpose": "tests"}
    assert card["readme"] == "# Tiny\n"
    assert client.get("/models/tiny@1.0.0").json()["version"] == "1.0.0"


def test_an_unknown_model_is_a_problem_that_lists_the_known(client: AppClient) -> None:
    known = assert_problem(client.get("/models/tinny"), 404, "unknown-model")["known"]
    assert known == ["colour@1.0.0", "tiny@1.10.0", "tiny@1.0.0"]


def test_probes_answer(client: AppClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    assert ready["ready"] is True
    assert ready["reasons"] == []
    assert "tiny@1.10.0" in ready["models"]


def test_a_process_that_only_a_new_one_can_replace_is_not_alive(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "lost", "the net of tiny@1.0.0 fails: CUDA error 700")
    answer = client.get("/livez")
    assert (answer.status_code, answer.json()) == (503, {"status": "the net of tiny@1.0.0 fails: CUDA error 700"})


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/", "/docs", "/models", "/models/tiny"])
def test_head_is_answered_as_get_without_its_body(client: AppClient, path: str) -> None:
    head, get = client.request("HEAD", path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert int(head.headers["content-length"]) > 0


def test_head_of_what_takes_no_get_is_refused(client: AppClient) -> None:
    answer = client.request("HEAD", "/segment")
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (405, b"", "POST")


def test_metrics_count_requests_by_model_format_and_status(client: AppClient) -> None:
    def value(name: str, /, **labels: str) -> float:
        text = client.get("/metrics").text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        total: float = sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())
        return total

    answered = {"model": "tiny@1.10.0", "format": "tiff", "status": "200"}
    requests, pixels = value("unet_requests_total", **answered), value("unet_pixels_total")
    rejected = value("unet_rejected_total", reason="unknown-model")
    client.segment(png(disc()), params={"format": "tiff"})
    client.segment(png(disc()), params={"model": "never-a-label"})
    assert value("unet_requests_total", **answered) == requests + 1
    assert value("unet_pixels_total") == pixels + disc().size
    assert value("unet_rejected_total", reason="unknown-model") == rejected + 1
    assert value("unet_ready") == 1
    assert value("unet_in_flight") == 0
    assert value("unet_backlog_seconds") == 0
    assert value("unet_pixels_per_second") > 0
    assert value("unet_model_info", name="tiny", provider="CPUExecutionProvider") == 2
    assert value("unet_stage_seconds_count", stage="inference") > 0
    assert value("unet_batch_tiles_count") > 0
    assert "never-a-label" not in client.get("/metrics").text


@pytest.mark.parametrize("slug", SLUGS)
def test_the_type_of_every_problem_leads_to_its_explanation(client: AppClient, slug: str) -> None:
    answer = client.get(f"/problems/{slug}")
    assert answer.status_code == 200
    title, remedy = answer.text.strip().split("\n\n")
    assert re.fullmatch(r"[45]\d\d [A-Z].+", title)
    assert re.fullmatch(r"[A-Z`].+\.", remedy)


def test_an_explanation_that_does_not_exist_is_a_problem(client: AppClient) -> None:
    assert_problem(client.get("/problems/nothing"), 404, "not-found")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_fetch_nothing_from_elsewhere(client: AppClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    linked = re.findall(r"(?:src|href|url)\s*[=:(]\s*[\"']([^\"']+)", answer.text)
    assert not [link for link in linked if re.match(r"(https?:)?//", link)]
    assets = [link for link in linked if link.startswith(("/docs/assets/", "static/"))]
    assert assets
    assert all(client.get(f"/{link.lstrip('/')}").status_code == 200 for link in assets)


def test_the_page_runs_no_script_but_its_own_files(client: AppClient) -> None:
    answer = client.get("/")
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=", answer.text)
    assert_problem(client.get("/static/nothing.js"), 404, "not-found")


def test_the_api_documentation_asks_no_validator_on_the_internet(client: AppClient) -> None:
    assert '"validatorUrl": null' in client.get("/docs").text


def test_openapi_describes_bodies_formats_and_failures_of_segment(client: AppClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/segment"]["post"]
    assert set(described["requestBody"]["content"]) == {
        "image/tiff",
        "image/png",
        "image/jpeg",
        "image/bmp",
        "application/octet-stream",
        "multipart/form-data",
    }
    parameters = {parameter["name"]: parameter for parameter in described["parameters"]}
    assert set(parameters) == {
        "model", "output", "format", "threshold", "min_area", "min_score", "link", "channel", "axes", "mirror",
        "pixel_size", "origin", "scale", "downsample", "timeout", "respond_async",
    }  # fmt: skip
    answers = described["responses"]
    assert set(answers["200"]["content"]) == {encoder.media_type for encoder in ENCODERS.values()}
    refusals = {"400", "401", "404", "406", "408", "409", "413", "415", "422", "500", "501", "503", "504"}
    assert set(answers) == {"200", "202"} | refusals
    failures = {status for status, answer in answers.items() if "application/problem+json" in answer["content"]}
    assert failures == set(answers) - {"200", "202"}


def test_what_a_page_sends_by_itself_asks_for_nothing(client: AppClient) -> None:
    """Swagger's takes the first media type, and shows and sends each field's example, or one that it makes up."""
    described = client.get("/openapi.json").json()["paths"]["/segment"]["post"]
    answers = described["responses"]["200"]["content"]
    assert next(iter(answers)) == "image/png"
    assert answers["application/json"]["example"]["format"] == "coco_rle"
    fields = described["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert [name for name in fields if {"example", "default", "enum"}.isdisjoint(fields[name])] == ["image"]
    assert {name for name in fields if fields[name].get("example") == ""} == {
        "model", "threshold", "min_area", "min_score", "link", "channel", "axes", "scale", "pixel_size", "origin",
        "downsample", "timeout",
    }  # fmt: skip


def test_openapi_promises_no_other_shape_of_failure(client: AppClient) -> None:
    document = client.get("/openapi.json").json()
    shapes = {
        (path, status, media)
        for path, methods in document["paths"].items()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        for media in response.get("content", {})
        if status >= "400" and media != "application/problem+json"
    }
    # an unready service answers with the same document as a ready one, and its reasons
    probes = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
    assert shapes == {(path, "503", "application/json") for path in probes}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    segment = document["paths"]["/segment"]["post"]["responses"]
    assert segment["422"]["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
