"""A recipe that nobody wrote, with the reason of every choice in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tomli_w

from training.recipe import Recipe
from training.writing import write_text


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice and the numbers that it rests on."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def percent(share: float) -> str:
    """Share as a percentage of one decimal, or of the first that tells it from nothing."""
    return f"{share:.1%}" if share >= 0.001 or not share else f"{100 * share:.1g}%"


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe, and why it is as it is.

    Parameters
    ----------
    facts
        What the images are, in lines of text.
    recipe
        What to do with them.
    choices
        Why.

    """

    facts: tuple[str, ...]
    recipe: Recipe
    choices: tuple[Choice, ...]

    def as_text(self) -> str:
        """Facts and choices, a line each."""
        return "\n".join([*self.facts, *(f"  {choice}" for choice in self.choices)])

    def as_toml(self) -> str:
        """The recipe as a file that :func:`training.recipe.read_recipe` reads, its reasons as comments."""
        values = self.recipe.model_dump(mode="json", exclude_none=True)
        comments = "".join(f"# {line}\n" for line in self.as_text().splitlines())
        return f"{comments}\n{tomli_w.dumps(values)}"

    def write(self, path: Path) -> None:
        """Write :meth:`as_toml` to a file, its folder made where there is none.

        Raises
        ------
        Unwritable
            Where it cannot be written.

        """
        write_text(path, self.as_toml())
