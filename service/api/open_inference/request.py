"""An inference request: what its JSON asks for, and where the values of its tensor are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from service.api.invalid import refuse_repeated
from service.api.open_inference.json_values import QUICK_BYTES, check_nesting, cut_values, packed_blocks
from service.api.open_inference.pieces import in_threads
from service.api.open_inference.tensors import DTYPES, Tensor, as_npy
from service.api.parameters import SegmentParameters, combined
from service.api.upload import kept_beside
from service.api.upload_room import UploadRoom
from service.engine.request import SegmentRequest
from service.formats import OutputKind
from service.request_errors import BrokenInference, InvalidParameter

_MOST_JSON_BYTES = 16 << 20
_MOST_OTHER_BYTES = 64 << 10  # of JSON beside the values
_MOST_BRACKETS = 200  # in these
_NOT_HERE = {
    "model": "the path decides",
    "output": "'outputs' decides",
    "format": "the protocol decides",
    "origin": "tensors have no coordinates",
    "downsample": "tensors have no coordinates",
    "respond_async": "answers are waited for; POST /segment makes jobs",
}
_PARAMETERS = [name for name in SegmentParameters.model_fields if name not in _NOT_HERE]


class _Part(BaseModel):
    """Members that are not known are passed over, as the protocol has it; parameters are not."""

    model_config = ConfigDict(frozen=True)


class _InputParameters(_Part):
    model_config = ConfigDict(extra="forbid")
    binary_data_size: StrictInt | None = None


class _Input(_Part):
    name: Literal["image"]
    shape: Annotated[list[Annotated[StrictInt, Field(ge=1, lt=2**63)]], Field(min_length=1, max_length=6)]
    datatype: StrictStr
    parameters: _InputParameters = _InputParameters()
    data: Any = None


class _OutputParameters(_Part):
    model_config = ConfigDict(extra="forbid")
    binary_data: StrictBool | None = None


class _Output(_Part):
    name: OutputKind
    parameters: _OutputParameters = _OutputParameters()


class _Document(_Part):
    id: StrictStr | None = None
    parameters: dict[str, Any] = {}
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_Output], Field(max_length=3)] = []


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """A tensor of the answer."""

    kind: OutputKind
    binary: bool
    """Whether its values follow the JSON as bytes."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What is asked."""

    id: str | None
    request: SegmentRequest
    """With one of the outputs: labels, where they are among them."""
    outputs: Sequence[WantedOutput]
    image: BinaryIO
    """The tensor as an .npy file."""


@asynccontextmanager
async def read_inference(
    body: BinaryIO, json_bytes: int | None, reference: str, room: UploadRoom, turn: asyncio.Lock
) -> AsyncIterator[Inference]:
    """Read the JSON of a request; values in there are kept in a file until the end.

    Parameters
    ----------
    body
        As it came, seekable.
    json_bytes
        How many of its bytes are JSON; None for all.
    reference
        Package that the path names.
    room
        Where values out of JSON are kept.
    turn
        Held while much JSON is read or written, so that many requests take no more memory than one.

    Raises
    ------
    BrokenInference
        Where the request is not as the protocol wants it.
    InvalidParameter
        Where a parameter does not exist or has an impossible value.
    NoRoomForUpload
        See :func:`service.api.upload.kept_beside`.

    """
    size = body.seek(0, 2)
    length = size if json_bytes is None else json_bytes
    if not 0 < length <= size:
        raise BrokenInference(
            f"the JSON is said to have {length} bytes of a body of {size}; send the request as JSON, and its length in "
            "Inference-Header-Content-Length where binary data follows"
        )
    if length > _MOST_JSON_BYTES:
        raise BrokenInference(
            f"the JSON has {length} bytes, the limit is {_MOST_JSON_BYTES}; send the values as binary data "
            "(binary_data_size)"
        )
    with ExitStack() as held:
        async with turn if length > QUICK_BYTES else nullcontext():
            document, values = await asyncio.to_thread(_read_document, body, length)
            request, outputs = _wanted(document, reference)
            tensor = _tensor(document.inputs[0])
            if values is None:
                _check_binary(document.inputs[0], tensor, size - length)
                image = as_npy(tensor, body, length)
            else:
                await asyncio.to_thread(check_nesting, values, tensor)
                header = tensor.npy_header()
                chunks = in_threads(chain([header], packed_blocks(values, tensor)))
                image = await kept_beside(held, room, len(header) + tensor.size, chunks)
                del values, chunks
        yield Inference(document.id, request, outputs, image)


def _read_document(body: BinaryIO, length: int) -> tuple[_Document, bytes | None]:
    body.seek(0)
    text, values = cut_values(body.read(length))
    if len(text) > _MOST_OTHER_BYTES:
        raise BrokenInference(
            f"the JSON has {len(text)} bytes beside the values of 'data', the limit is {_MOST_OTHER_BYTES}; leave out "
            "what is not needed"
        )
    brackets = text.count(b"[") + text.count(b"{")
    if brackets > _MOST_BRACKETS:  # also bounds how deep they are in each other
        raise BrokenInference(
            f"the JSON has {brackets} lists and objects beside the values of 'data', the limit is {_MOST_BRACKETS}; "
            "leave out what is not needed"
        )
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise BrokenInference(
            f"the {length} bytes of JSON cannot be read: {error}; send an inference request, and its length in "
            "Inference-Header-Content-Length where binary data follows"
        ) from None
    try:
        parsed = _Document.model_validate(document)
    except ValidationError as error:
        raise BrokenInference(_described(error)) from None
    data = parsed.inputs[0].data
    if values is None and data is not None:
        raise BrokenInference(f"'data' is {str(data)[:40]!r}, it should be a list of numbers; send one")
    if values is not None and data is None:
        raise BrokenInference("the list 'data' is no member of the input 'image'; put it there")
    return parsed, values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_repeated(pairs)
    return dict(pairs)


def _described(error: ValidationError) -> str:
    places = [
        f"{'.'.join(map(str, item['loc']))[:80] or 'the request'} is {str(item['input'])[:40]!r}: "
        f"{item['msg'][0].lower()}{item['msg'][1:]}"
        for item in error.errors(include_url=False)[:3]
    ]
    return f"{'; '.join(places)}; GET /v2/models/{{name}} has names and shapes of the tensors"


def _tensor(given: _Input) -> Tensor:
    if given.datatype not in DTYPES:
        raise BrokenInference(f"datatype {given.datatype[:40]!r} is not read; send one of {', '.join(DTYPES)}")
    return Tensor(tuple(given.shape), DTYPES[given.datatype])


def _check_binary(given: _Input, tensor: Tensor, found: int) -> None:
    declared = given.parameters.binary_data_size
    if declared is None:
        raise BrokenInference("input 'image' has 0 values; send them as 'data', or as binary data (binary_data_size)")
    if not declared == found == tensor.size:
        raise BrokenInference(
            f"{found} bytes follow the JSON and binary_data_size is {declared}, shape {given.shape} of "
            f"{given.datatype} needs {tensor.size}; send as many"
        )


def _wanted(document: _Document, reference: str) -> tuple[SegmentRequest, Sequence[WantedOutput]]:
    parameters = dict(document.parameters)
    all_binary = parameters.pop("binary_data_output", False)
    if not isinstance(all_binary, bool):
        raise InvalidParameter(f"binary_data_output is {str(all_binary)[:40]!r}, it should be true or false")
    for name, reason in _NOT_HERE.items():
        if name in parameters:
            raise InvalidParameter(f"parameter {name!r} does not exist here, {reason}; leave it out")
    outputs = document.outputs or [_Output(name="mask")]
    refuse_repeated((f"output {output.name}", "") for output in outputs)
    texts = {name: _text(name, value) for name, value in parameters.items()}
    kind = "labels" if any(output.name == "labels" for output in outputs) else outputs[0].name
    asked = combined(SegmentParameters(model=reference, output=kind), texts, _PARAMETERS).request("npy")
    wanted = []
    for output in outputs:
        own = output.parameters.binary_data
        wanted.append(WantedOutput(output.name, all_binary if own is None else own))
    return asked, wanted


def _text(name: str, value: object) -> str:
    """Parameter as it would stand in a query: the same rules hold."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float | str):
        raise InvalidParameter(f"{name[:40]} is {str(value)[:40]!r}, it should be a number, a text, true or false")
    return str(value)
