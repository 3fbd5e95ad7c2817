"""Values that a command line gives, ``--set schedule.batch=2``: put in their places, or told the nearest place."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from training.errors import RecipeError


def assign(root: type[BaseModel], values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Put values in their places: each as in TOML, or a bare word.

    Parameters
    ----------
    root
        What ``values`` are of; its keys are proposed where one is unknown.
    values
        Nested dictionaries with every key that can be given; changed, and returned.
    assignments
        ``TABLE.KEY=VALUE``.

    Raises
    ------
    RecipeError
        Where an assignment is of another form, or names what is not there.

    """
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        *tables, name = key.split(".")
        part: Any = values
        for table in tables:
            part = part.get(table, {}) if isinstance(part, dict) else {}
        if not equals or not isinstance(part, dict) or name not in part:
            raise RecipeError(
                f"--set {assignment} changes nothing that a recipe has; give TABLE.KEY=VALUE, such as "
                f"schedule.batch=2; {nearest_key(root, key.split('.'))}"
            )
        try:
            part[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            part[name] = text
    return values


def told(assignments: Sequence[str]) -> str:
    """Name assignments in an error."""
    return f"--set {' '.join(assignments)}"


def nearest_key(root: type[BaseModel], path: Sequence[int | str]) -> str:
    """Name the keys most like the first of a path that ``root`` lacks; where none is like it, all that there are."""
    models: Sequence[type[BaseModel]] = [root]
    known: list[str] = []
    for index, step in enumerate(path):
        known = list(dict.fromkeys(key for model in models for key in model.model_fields)) or list(root.model_fields)
        fields = [field for model in models for key, field in model.model_fields.items() if key == step]
        kinds = [model for model in models if isinstance(step, int) or _is_called(model, step)]
        if not fields and not kinds:
            like = [".".join(map(str, (*path[:index], key))) for key in get_close_matches(str(step), known)]
            return f"did you mean {' or '.join(like)}?" if like else f"there is {', '.join(known)}"
        models = kinds or [model for field in fields for model in _models(field.annotation)]
    return f"there is {', '.join(known)}"


def example_of(root: type[BaseModel], path: Sequence[int | str]) -> str | None:
    """Return an example of the value at a path, as in TOML; None where its field gives none."""
    models: Sequence[type[BaseModel]] = [root]
    examples: Sequence[Any] | None = None
    for step in path:
        field = next((model.model_fields[step] for model in models if step in model.model_fields), None)
        models, examples = (_models(field.annotation), field.examples) if field else ([], None)
    return json.dumps(examples[0]) if examples else None


def _is_called(model: type[BaseModel], kind: str) -> bool:
    """Whether a model of several in one place, such as a step of the normalization, is of this kind."""
    return "id" in model.model_fields and model.model_fields["id"].default == kind


def _models(annotation: object) -> list[type[BaseModel]]:
    """Return the tables that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
