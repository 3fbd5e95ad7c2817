"""A package's description as YAML: plain values, no more of them than there seem to be."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

import yaml

from model.errors import InvalidPackage

MOST_DESCRIPTION_BYTES = 1 << 20
_MOST_PARTS = 20_000  # takes seconds; a description of today has some hundreds


class _Loader(yaml.SafeLoader):
    """Plain YAML without merges, of which each can repeat all before it; they are made before anything is counted.

    Not the loader in C: lists that are deep in each other end its process.
    """

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self._parts = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """See :class:`yaml.SafeLoader`."""
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ValueError(
                f"it has {self._parts} keys, values and lists or more, the limit is {_MOST_PARTS}; leave out "
                "what nobody reads"
            )
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """See :class:`yaml.SafeLoader`."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ValueError("it merges mappings (<<), which is not followed; write them out")
        super().flatten_mapping(node)


def load_description(data: bytes) -> Mapping[str, Any]:
    """Read a description; nothing in it is executed.

    Raises
    ------
    InvalidPackage
        Where it is no mapping, or grows without bounds once its references to parts of itself are followed.
    TypeError, ValueError, yaml.YAMLError
        Where it is no YAML, or holds what JSON cannot tell.

    """
    document = yaml.load(data, _Loader)  # noqa: S506 - a SafeLoader
    if not isinstance(document, Mapping):
        raise InvalidPackage(f"the description holds a {type(document).__name__}; a mapping is needed")
    size = 0
    for part in json.JSONEncoder(ensure_ascii=False, default=_date_as_text).iterencode(document):
        size += len(part.encode())
        if size > MOST_DESCRIPTION_BYTES:
            raise InvalidPackage(
                f"the description has more than {MOST_DESCRIPTION_BYTES} bytes once its references are followed; leave "
                "out what nobody reads"
            )
    return document


def _date_as_text(value: object) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(f"it holds a {type(value).__name__}, which is no plain value")
