"""An inference response: its JSON, with the values of tensors inside or as bytes behind it, made as it is sent."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from service.api.open_inference.json_values import json_values
from service.api.open_inference.request import Inference
from service.api.open_inference.tensors import Tensor, datatype
from service.engine.request import Answer, Body
from service.formats import OutputKind
from service.formats.json_text import dump

_PIECE_BYTES = 1 << 20
_JSON_BLOCK_BYTES = 8192  # written as JSON at a time, in two milliseconds at most


class InferenceContent:
    """Content of the answer, see :class:`service.api.piecewise.Content`; values stay in the bodies until they are sent.

    Parameters
    ----------
    inference
        What was asked.
    answers
        To each of its outputs, as .npy; closed with this.

    """

    def __init__(self, inference: Inference, answers: Mapping[OutputKind, Answer]) -> None:
        self._tensors = [
            _OutputTensor.of(answers[wanted.kind].body, wanted.kind, binary=wanted.binary)
            for wanted in inference.outputs
        ]
        first = answers[inference.outputs[0].kind]
        self.receipt = first.receipt
        receipts = {kind: {**answer.receipt, "stages_ms": dict(answer.stages_ms)} for kind, answer in answers.items()}
        name, _, version = first.model.partition("@")
        self._head = {
            "model_name": name,
            "model_version": version,
            **({} if inference.id is None else {"id": inference.id}),
            "parameters": {"receipt": dump(receipts).decode("ascii")},  # values of parameters are never objects
        }
        self.any_binary = any(tensor.binary for tensor in self._tensors)
        self.json_bytes = sum(map(len, self._json()))
        self.size = self.json_bytes + sum(tensor.declared.size for tensor in self._tensors if tensor.binary)
        self._pieces = self._all()
        self._held = b""

    @property
    def in_memory(self) -> bool:
        """Whether reading takes no time."""
        return all(tensor.binary and tensor.body.in_memory for tensor in self._tensors)

    def read(self, most: int = -1) -> bytes:
        """Read what follows: all of it, or at most so many bytes; empty at the end."""
        most = self.size if most < 0 else most
        found = [self._held]
        missing = most - len(self._held)
        while missing > 0 and (piece := next(self._pieces, b"")):
            found.append(piece)
            missing -= len(piece)
        text = b"".join(found)
        self._held = text[most:]
        return text[:most]

    def close(self) -> None:
        """Free the bodies."""
        for tensor in self._tensors:
            tensor.body.close()

    def _all(self) -> Iterator[bytes]:
        yield from self._json()
        for tensor in self._tensors:
            if tensor.binary:
                yield from tensor.raw(_PIECE_BYTES)

    def _json(self) -> Iterator[bytes]:
        yield dump(self._head)[:-1] + b',"outputs":['
        for index, tensor in enumerate(self._tensors):
            if index:
                yield b","
            yield from tensor.json()
        yield b"]}"


@dataclass(frozen=True, slots=True)
class _OutputTensor:
    name: str
    declared: Tensor
    body: Body
    offset: int
    """Where its values begin."""
    binary: bool

    @classmethod
    def of(cls, body: Body, name: str, *, binary: bool) -> _OutputTensor:
        start = body.read(10)  # magic, version, length of the header
        header = body.read(int.from_bytes(start[8:], "little"))
        file = io.BytesIO(start + header)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return cls(name, Tensor(shape, dtype), body, len(start) + len(header), binary)

    def raw(self, most: int) -> Iterator[bytes]:
        self.body.seek(self.offset)
        return iter(partial(self.body.read, most), b"")

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
        for index, values in enumerate(self.raw(_JSON_BLOCK_BYTES)):
            text = json_values(np.frombuffer(values, self.declared.dtype))
            yield b"," + text if index else text
        yield b"]}"
