"""What OpenAPI cannot derive from the code of ``POST /segment``: its bodies, its answers, its failures."""

from __future__ import annotations

import json
from typing import Any

from service.api.keys import NO_KEY
from service.api.parameters import SegmentParameters
from service.api.schemas import Problem
from service.errors import PROBLEMS
from service.formats import ENCODERS
from service.jobs.record import JobReport
from service.problem_kind import ProblemKind

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_RECEIPT = {
    "service": "0.1.0",
    "input": {
        "format": "tiff",
        "dtype": "uint16",
        "bits": 12,
        "size_yx": [1024, 1360],
        "channels": 1,
        "planes": 1,
        "stack_axes": "",
        "compression": "LZW",
        "pixel_size_um": [0.65, 0.65],
        "notes": [],
    },
    "tiles": {"count": 4, "input_yx": [700, 876], "stride_yx": [512, 688]},
    "model": {
        "name": "nuclei",
        "version": "1.0.0",
        "sha256": "9b74c9897bac770ffc029102a200c5de…",
        "variants": {"int8": "5f0c6a1e9dbd4c1f0a7e4b2f6d8c9e01…"},
    },
    "backend": "cpu",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "output": {"kind": "mask", "format": "png"},
}
_RUN_LENGTHS = {
    "format": "coco_rle",
    "output": "labels",
    "size": [4, 6],
    "classes": ["background", "nucleus"],
    "pixel_size_um": [0.65, 0.65],
    "objects": [
        {
            "label": 1,
            "area": 4,
            "bbox": [1, 1, 2, 2],
            "segmentation": {"size": [4, 6], "counts": "522>"},
            "score": 0.97,
        }
    ],
    "receipt": _RECEIPT,
}
_DETAILS = {
    "empty-body": "the body has 0 bytes; send the image as the body, or as multipart field 'image'",
    "unknown-model": "no model 'nucleii' is served; there are nuclei@1.0.0",
    "unknown-format": f"format 'gif' does not exist; ask for one of {', '.join(sorted(ENCODERS))}",
    "unauthorized": NO_KEY,
    "body-too-large": "the body has 900000000 bytes, the limit is 536870912 bytes; compress the image ...",
    "image-too-large": "the image declares 900 x 65535 x 65535 (planes, height, width) = 3865352602500 pixels, ...",
    "invalid-parameter": "parameter 'thresold' does not exist; did you mean 'threshold'?",
    "overloaded": "118 s of work wait and this request adds 9 s, the limit is 120 s; try again in 7 s",
    "share-exceeded": "130 s of work wait and this request adds 2 s, the limit is 120 s; 120 s of that are requests of "
    "the user who asks, of 2 users each may have 60 s in any case; try again in 12 s",
}


def _form() -> dict[str, Any]:
    fields = SegmentParameters.model_json_schema()["properties"]
    for field in fields.values():
        if "enum" not in field and field.get("default", "") is None:
            field["example"] = ""  # not given; a page that sends what it shows would ask for values of its own making
    image = {"type": "string", "format": "binary", "description": "The image file."}
    return {"schema": {"type": "object", "required": ["image"], "properties": {"image": image, **fields}}}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe failures by status, each kind of problem as an example."""
    kinds = {kind.slug: kind for kind in PROBLEMS.values()}
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found = [kind for kind in kinds.values() if kind.status == status]
        responses[status] = {
            "model": Problem,
            "description": "; ".join(kind.title for kind in found),
            "content": {"application/problem+json": {"examples": {kind.slug: _example(kind) for kind in found}}},
        }
        if status == 503:
            responses[status]["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            }
    return responses


def with_problems_alone(document: dict[str, Any], *, keys: bool) -> dict[str, Any]:
    """Take out what FastAPI says of failures by itself: plain JSON beside each problem, and its own kind of 422.

    Where the service wants ``keys``, they are declared.
    """
    if keys:
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
        document["components"]["securitySchemes"] = schemes
        document["security"] = [{name: []} for name in schemes]
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in list(operation["responses"].items()):
                content = response.get("content", {})
                if "application/problem+json" in content:
                    content["application/problem+json"]["schema"] = content.pop("application/json")["schema"]
                elif status == "422":
                    del operation["responses"][status]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


def _example(kind: ProblemKind) -> dict[str, Any]:
    detail = _DETAILS.get(kind.slug, "the number found, the limit and the remedy")
    value = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail, "request_id": "9f1c04de"}
    return {"summary": kind.title, "value": value}


SEGMENT_BODY: dict[str, Any] = {
    "required": True,
    "description": "The image: TIFF, PNG, JPEG, BMP or .npy, recognised by its first bytes.",
    "content": {
        **dict.fromkeys(("image/tiff", "image/png", "image/jpeg", "image/bmp", "application/octet-stream"), _BINARY),
        "multipart/form-data": _form(),
    },
}
"""Request body of ``POST /segment``."""

SEGMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The segmentation, in the format asked for.",
        "content": {
            # the first is what pages ask for by themselves: PNG, the default
            **{encoder.media_type: _BINARY for encoder in ENCODERS.values()},
            ENCODERS["rle"].media_type: {"example": _RUN_LENGTHS},
        },
        "headers": {
            "X-UNet-Receipt": {
                "description": "What was decoded, normalised, tiled and run: JSON in one line of ASCII.",
                "schema": {"type": "string"},
                "example": json.dumps(_RECEIPT),
            },
            "Server-Timing": {
                "description": "Milliseconds of each stage; `wait` is for threads or memory that others held.",
                "schema": {"type": "string"},
            },
            "X-Request-ID": {"description": "The client's, or a new one.", "schema": {"type": "string"}},
        },
    },
    **problem_responses(400, 401, 404, 406, 408, 413, 415, 422, 500, 503, 504),
}
"""Answers of ``POST /segment``, and of a job's result."""

PART_RESPONSE: dict[str, Any] = {
    "description": "The bytes that header `Range` asks for, of a result that is the one of `If-Range`.",
    "content": SEGMENT_RESPONSES[200]["content"],
    "headers": {
        "Content-Range": {"description": "`bytes FIRST-LAST/SIZE`, from 0.", "schema": {"type": "string"}},
        "ETag": {"description": "Tag of the result, which never changes.", "schema": {"type": "string"}},
    },
}
"""Answer to who asks for a part of a job's result."""

JOB_RESPONSE: dict[str, Any] = {
    "model": JobReport,
    "description": "Accepted as a job (`Prefer: respond-async`).",
    "headers": {
        "Location": {"description": "Where to ask for it.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which to ask.", "schema": {"type": "integer"}},
    },
}
"""Answer of ``POST /segment`` where nobody waits."""

_TENSOR = {"name": "image", "shape": [2, 3], "datatype": "UINT8"}
_INFERENCE = {"id": "7", "parameters": {"threshold": 0.4}, "outputs": [{"name": "labels"}]}
INFERENCE_BODY: dict[str, Any] = {
    "required": True,
    "description": "An inference request: JSON, or JSON and behind it the values of the tensor as bytes; then header "
    "`Inference-Header-Content-Length` has the length of the JSON.",
    "content": {
        "application/json": {"example": {**_INFERENCE, "inputs": [{**_TENSOR, "data": [[0, 9, 0], [0, 9, 9]]}]}},
        "application/octet-stream": _BINARY,
    },
}
"""Request body of ``POST /v2/models/{name}/infer``."""

INFERENCE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An inference response. Parameter `receipt` is JSON: the receipt of each output.",
        "content": {
            "application/json": {
                "example": {
                    "model_name": "nuclei",
                    "model_version": "1.0.0",
                    "id": "7",
                    "parameters": {"receipt": json.dumps({"labels": _RECEIPT})},
                    "outputs": [{"name": "labels", "datatype": "UINT16", "shape": [2, 3], "data": [0, 1, 0, 0, 1, 1]}],
                }
            },
            "application/octet-stream": _BINARY,
        },
    },
    **problem_responses(400, 401, 404, 408, 413, 415, 422, 500, 503, 504),
}
"""Answers of ``POST /v2/models/{name}/infer``."""
