"""The command that trained a net, as it was given, for the report and for the card of a package."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from training.recipe import Recipe, read_recipe, shipped_recipes
from training.runs.checkpoint import Arguments, Checkpoint
from training.runs.run_folder import RunFiles


def arguments_of(options: argparse.Namespace) -> Arguments:
    """Return what ``fit`` or ``cross-validate`` was given that makes the net: options and values, in their order."""
    minutes = getattr(options, "minutes", None)
    given = [
        ("--recipe", options.recipe),
        ("--from", getattr(options, "origin", None)),
        ("--data", options.data),
        ("--out", options.out),
        *(("--set", value) for value in options.values),
        ("--minutes", None if minutes is None else f"{minutes:g}"),
        ("--steps", getattr(options, "steps", None)),
        ("--fold", getattr(options, "fold", None)),
        ("--device", None if options.device == "cpu" else options.device),
    ]
    return tuple((option, str(value)) for option, value in given if value is not None)


def of_fold(arguments: Arguments, fold: str, out: Path) -> Arguments:
    """Return those of ``fit`` for one fold, ``"2/5"``, of a cross-validation, trained into ``out``."""
    placed = ((option, str(out) if option == "--out" else value) for option, value in arguments)
    return (*placed, ("--fold", fold)) if arguments else ()


def command_line(checkpoint: Checkpoint, run: Path, data: Path) -> str:
    """Return the command that trained a net.

    Parameters
    ----------
    checkpoint
        The net; one of an older version does not hold the command, which is rebuilt from its recipe.
    run, data
        The run, a folder or a .pt file, and the folder of images, for such a one.

    """
    return _joined(checkpoint.arguments or _rebuilt(checkpoint.read_recipe(), run, data), checkpoint.processes)


def public_command_line(checkpoint: Checkpoint, run: Path) -> str:
    """Return the command for a card: the images are in ``DIR``, and of absolute paths the names alone are told."""
    arguments = checkpoint.arguments or _rebuilt(checkpoint.read_recipe(), run, Path("DIR"))
    paths = {"--recipe", "--from", "--out"}
    shown = tuple((option, public_name(value) if option in paths else value) for option, value in arguments)
    return _joined(
        tuple((option, "DIR" if option == "--data" else value) for option, value in shown), checkpoint.processes
    )


def public_name(path: str) -> str:
    """Return the name of an absolute path, which means nothing on another machine; anything else as it is."""
    return Path(path).name if Path(path).is_absolute() else path


def _joined(arguments: Arguments, processes: int) -> str:
    program = ["unet-train"]
    if processes > 1:
        program = ["torchrun", "--nproc-per-node", str(processes), "-m", "training.cli"]
    return shlex.join([*program, "fit", *(word for pair in arguments for word in pair)])


def _rebuilt(recipe: Recipe, run: Path, data: Path) -> Arguments:
    """What makes such a net, as far as its recipe tells: a shipped recipe with what differs from it."""
    folder = run.parent if run.suffix == ".pt" else run
    name = str(RunFiles(folder).recipe) if RunFiles(folder).recipe.exists() else recipe.name
    fold, changed = recipe.data.fold, Arguments()
    if name in shipped_recipes():
        shipped = read_recipe(name)
        fold = None if fold == shipped.data.fold else fold
        changed = _differing(recipe.model_dump(mode="json"), shipped.model_dump(mode="json"))
    numbered = () if fold is None else (("--fold", f"{fold[0]}/{fold[1]}"),)
    return (("--recipe", name), ("--data", str(data)), ("--out", str(folder)), *changed, *numbered)


def _differing(ours: dict[str, Any], theirs: dict[str, Any], table: str = "") -> Arguments:
    """Return each value of a recipe that is another one in ``theirs`` as ``--set KEY=VALUE``.

    Left out is what ``--set`` cannot give, values that are missing, and what the folder of images or another option
    decides.
    """
    found: list[tuple[str, str]] = []
    for name, value in ours.items():
        key, other = f"{table}{name}", theirs.get(name)
        if key in {"card", "data.include", "data.fold"} or value is None or value == other:
            continue
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differing(value, other, f"{key}.")
        else:
            found.append(("--set", f"{key}={_as_toml(value)}"))
    return tuple(found)


def _as_toml(value: Any) -> str:  # noqa: ANN401 - what a recipe holds
    """Return a value on one line of TOML; keys without a value are left out."""
    match value:
        case dict():
            pairs = (f"{name} = {_as_toml(one)}" for name, one in value.items() if one is not None)
            return f"{{ {', '.join(pairs)} }}"
        case list():
            return f"[{', '.join(map(_as_toml, value))}]"
        case float():
            return repr(value)  # JSON has no infinity
    return json.dumps(value, ensure_ascii=False)
