"""An inference response: its JSON, written once with the values of tensors inside, and those that are bytes behind it.

How many bytes the numbers take is known only once they are written, and a header has to say it: so the text is kept
beside the uploads until it is sent.
"""

from __future__ import annotations

import io
import math
from asyncio import Lock
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from model.images import ImageHeader
from service.api.open_inference.json_values import QUICK_BYTES, json_values, most_text_bytes
from service.api.open_inference.pieces import in_threads
from service.api.open_inference.request import Inference, WantedOutput
from service.api.open_inference.tensors import Tensor, datatype
from service.api.upload import kept_beside
from service.api.upload_room import UploadRoom
from service.engine.request import Answer, Body
from service.formats import OutputKind
from service.formats.errors import TooManyValues
from service.formats.json_text import dump

_MOST_JSON_VALUES = 4 << 20
_JSON_BLOCK_BYTES = 32 << 10  # written as JSON at a time, in two milliseconds


def check_values(outputs: Sequence[WantedOutput], header: ImageHeader, classes: int) -> None:
    """Refuse more values than are written as JSON.

    Parameters
    ----------
    outputs
        What is asked for.
    header
        Of the image.
    classes
        Number of classes of the package, for each of which there are probabilities.

    Raises
    ------
    TooManyValues
        Where there are.

    """
    pixels = header.planes * math.prod(header.size_yx)
    count = sum(pixels * (classes if wanted.kind == "probabilities" else 1) for wanted in outputs if not wanted.binary)
    if count > _MOST_JSON_VALUES:
        raise TooManyValues(
            f"the outputs that JSON should hold have {count} values, the limit is {_MOST_JSON_VALUES}; ask for them as "
            "binary data (binary_data, or binary_data_output for all), or crop"
        )


class InferenceContent:
    """Content of the answer, see :class:`service.api.piecewise.Content`.

    Parameters
    ----------
    text
        Its JSON, at its beginning.
    binary
        Tensors whose values follow as bytes.
    receipt
        Of the first output.
    held
        What is freed with this.

    """

    def __init__(
        self, text: Body, binary: Sequence[_OutputTensor], receipt: Mapping[str, Any], held: ExitStack
    ) -> None:
        self.receipt = receipt
        self.json_bytes = text.size
        self.any_binary = bool(binary)
        self.size = text.size + sum(tensor.declared.size for tensor in binary)
        self._parts = [text, *(tensor.body for tensor in binary)]
        self._held = held

    @property
    def in_memory(self) -> bool:
        """Whether reading takes no time."""
        return all(part.in_memory for part in self._parts)

    def read(self, most: int = -1) -> bytes:
        """Read what follows: all of it, or at most so many bytes; empty at the end."""
        missing = self.size if most < 0 else most
        found = []
        for part in self._parts:
            found.append(part.read(missing))
            missing -= len(found[-1])
        return b"".join(found)

    def close(self) -> None:
        """Free the bodies and the text."""
        self._held.close()


async def written(
    inference: Inference, answers: Mapping[OutputKind, Answer], room: UploadRoom, turn: Lock
) -> InferenceContent:
    """Write the JSON of an answer; bodies whose values it holds are freed then.

    Parameters
    ----------
    inference
        What was asked.
    answers
        To each of its outputs, as .npy; closed with what is returned, or where this fails.
    room
        Where values are kept as text.
    turn
        Held while many are written, so that many requests take no more time from others than one.

    Raises
    ------
    NoRoomForUpload
        See :func:`service.api.upload.kept_beside`.

    """
    with ExitStack() as held:
        for answer in answers.values():
            held.callback(answer.body.close)
        tensors = [
            _OutputTensor.of(answers[wanted.kind].body, wanted.kind, binary=wanted.binary)
            for wanted in inference.outputs
        ]
        as_text = [tensor for tensor in tensors if not tensor.binary]
        pieces = _json(_head(inference, answers), tensors)
        text: BinaryIO
        if as_text:
            most_bytes = sum(most_text_bytes(tensor.declared) for tensor in as_text)
            async with turn if most_bytes > QUICK_BYTES else nullcontext():
                text = await kept_beside(held, room, most_bytes, in_threads(pieces))
            for tensor in as_text:
                tensor.body.close()
        else:
            text = io.BytesIO(b"".join(pieces))
        binary = [tensor for tensor in tensors if tensor.binary]
        return InferenceContent(Body(text), binary, answers[inference.outputs[0].kind].receipt, held.pop_all())


def _head(inference: Inference, answers: Mapping[OutputKind, Answer]) -> Mapping[str, Any]:
    name, _, version = answers[inference.outputs[0].kind].model.partition("@")
    receipts = {kind: {**answer.receipt, "stages_ms": dict(answer.stages_ms)} for kind, answer in answers.items()}
    return {
        "model_name": name,
        "model_version": version,
        **({} if inference.id is None else {"id": inference.id}),
        "parameters": {"receipt": dump(receipts).decode("ascii")},  # values of parameters are never objects
    }


def _json(head: Mapping[str, Any], tensors: Sequence[_OutputTensor]) -> Iterator[bytes]:
    yield dump(head)[:-1] + b',"outputs":['
    for index, tensor in enumerate(tensors):
        if index:
            yield b","
        yield from tensor.json()
    yield b"]}"


@dataclass(frozen=True, slots=True)
class _OutputTensor:
    name: str
    declared: Tensor
    body: Body
    """At its values."""
    binary: bool

    @classmethod
    def of(cls, body: Body, name: str, *, binary: bool) -> _OutputTensor:
        start = body.read(10)  # magic, version, length of the header
        header = body.read(int.from_bytes(start[8:], "little"))
        file = io.BytesIO(start + header)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return cls(name, Tensor(shape, dtype), body, binary)

    def json(self) -> Iterator[bytes]:
        described: Mapping[str, Any] = {
            "name": self.name,
            "datatype": datatype(self.declared.dtype),
            "shape": list(self.declared.shape),
        }
        if self.binary:
            yield dump({**described, "parameters": {"binary_data_size": self.declared.size}})
            return
        yield dump(described)[:-1] + b',"data":['
        for index, values in enumerate(iter(partial(self.body.read, _JSON_BLOCK_BYTES), b"")):
            text = json_values(np.frombuffer(values, self.declared.dtype))
            yield b"," + text if index else text
        yield b"]}"
