"""What a training run is: one frozen :class:`Recipe`, read from TOML, stored in every checkpoint."""

from __future__ import annotations

import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from model.label_rule import LabelRule
from model.normalization import ScaleRange, Step
from model.tiling import Geometry, valid_unet_geometry
from training.assignments import assign, example_of, nearest_key, told
from training.errors import RecipeError
from training.layouts.documents import shown
from training.layouts.parts import find_parts
from training.options import Augmentation, Card, Data, Loss, Net, Schedule, Targets, Weights
from training.ranges import Part
from training.scoring import Scoring


class Recipe(Part):
    """Everything that makes a run; the tile is given by its output size in pixels."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    data: Data = Data()
    net: Net = Net()
    targets: Targets = Targets()
    weights: Weights = Weights()
    loss: Loss = Loss()
    tile_output_px: Annotated[int, Field(ge=1)] = 388
    augmentation: Augmentation = Augmentation()
    schedule: Schedule = Schedule()
    normalization: tuple[Step, ...] = (ScaleRange(min_percentile=1.0, max_percentile=99.8),)
    labels: LabelRule = LabelRule()
    scoring: Scoring = Scoring()
    card: Card = Card()

    def for_folder(self, folder: Path) -> Self:
        """Return the recipe without its table and card where ``folder`` lacks that table: its images are others.

        Where the folder parts its images itself, those parts are the recipe's, unless it asks for others or for a fold.
        """
        data, include, card = self.data, self.data.include, self.card
        if include is not None and not (folder / include.csv).exists():
            data, card = data.model_copy(update={"include": None}), Card(license=card.license)
        if data.parts is None and data.fold is None and (parts := find_parts(folder, data)) is not None:
            data = data.model_copy(update={"parts": parts})
        return self if data is self.data else self.model_copy(update={"data": data, "card": card})

    def for_images(self, pixels: Iterable[str]) -> Self:
        """Return the recipe without its card where that speaks of others than the images of these digests."""
        if not self.card.images or not set(self.card.images.split()).isdisjoint(pixels):
            return self
        return self.model_copy(update={"card": Card()})

    def with_fold(self, fold: str) -> Self:
        """Return the recipe that validates on one fold, ``"2/5"``: the second of five.

        Raises
        ------
        RecipeError
            Where ``fold`` is not of that form, or the recipe's parts say which images validate.

        """
        if self.data.parts is not None:
            training, validation = self.data.parts
            raise RecipeError(
                f"there is no fold {fold} where {validation}/ validates (data.parts); for folds of the images in "
                f"{training}/ give that folder as --data"
            )
        number, slash, count = fold.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) >= 2):
            raise RecipeError(f"--fold {fold} is no fold; give K/N with 1 <= K <= N and N of 2 or more, such as 1/5")
        return self.model_copy(update={"data": self.data.model_copy(update={"fold": (int(number), int(count))})})

    def with_values(self, assignments: Sequence[str]) -> Recipe:
        """Return the recipe with some values changed: ``schedule.batch=2``, the value as in TOML or a bare word.

        Raises
        ------
        RecipeError
            Where an assignment is of another form, or names or gives what a recipe cannot hold.

        """
        if not assignments:
            return self
        return recipe_from(assign(Recipe, self.model_dump(mode="json"), assignments), told(assignments))

    def with_schedule(self, source: str, **values: int | float | None) -> Self:
        """Return the recipe with values of its schedule changed; ``source`` is named in errors.

        Raises
        ------
        RecipeError
            Where a value is out of range.

        """
        with named_in_errors(source):
            schedule = Schedule.model_validate(self.schedule.model_dump() | values)
        return self.model_copy(update={"schedule": schedule})

    def reads_labels_as(self, other: Recipe) -> bool:
        """Whether both make the same labels of the same files; which of them are taken or validate may differ."""
        apart = {"layout", "include", "parts", "split", "stretches", "validation_fraction", "fold"}
        ours, theirs = (each.data.model_dump(exclude=apart) for each in (self, other))
        by_count = self.data.kind == "semantic" and len(self.targets.classes) != len(other.targets.classes)
        return ours == theirs and not by_count

    @property
    def geometry(self) -> Geometry:
        """What the net accepts and returns."""
        return valid_unet_geometry(self.net.depth, self.net.downscale)

    @property
    def tile_input_px(self) -> int:
        """Input size of a training tile in pixels."""
        return self.geometry.y.input_for(self.tile_output_px)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        legal = self.geometry.output_shape((self.tile_input_px, self.tile_input_px))[0]
        if legal != self.tile_output_px:
            raise ValueError(
                f"tile_output_px = {self.tile_output_px} is no output size of a net of depth {self.net.depth}; "
                f"the next one is {legal}"
            )
        count, scheme = len(self.targets.classes), self.targets.scheme
        needed = {"foreground": 2, "boundary": 3, "contact": 3}.get(scheme)
        if needed not in {None, count}:
            raise ValueError(f"scheme {scheme!r} needs {needed} classes, targets.classes names {count}")
        if count < 2:
            raise ValueError(
                f"targets.classes names {count} class: a net that has nothing to choose between learns nothing; name "
                "the background first, then at least one more"
            )
        if scheme in {"boundary", "contact"} and self.data.kind != "instances":
            raise ValueError(f"scheme {scheme!r} needs data.kind = 'instances'")
        if self.data.class_values is not None and self.data.kind != "semantic":
            raise ValueError(
                f"data.class_values = {list(self.data.class_values)} means nothing for data.kind = {self.data.kind!r}, "
                "where each value is an object; leave it out, or set data.kind = 'semantic'"
            )
        if self.data.class_values is not None and len(self.data.class_values) != count:
            raise ValueError(f"data.class_values gives {len(self.data.class_values)} values for {count} classes")
        largest = max(*self.labels.foreground, *self.labels.seeds)
        if largest >= count:
            raise ValueError(f"labels names channel {largest}, the net has {count}: 0 to {count - 1}")
        if self.data.parts is not None and self.data.fold is not None:
            raise ValueError("data.parts and data.fold both say which images validate; leave one of them out")
        problem = self.scoring.problem_with(self.data.kind)
        if problem is not None:
            raise ValueError(problem)
        return self


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the software."""
    folder = resources.files("training") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path.

    Raises
    ------
    RecipeError
        Where there is none, or it is not valid.

    """
    if name_or_path in shipped_recipes():
        text = (resources.files("training") / "recipes" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            kind = "UTF-16" if error.object.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else error.reason
            raise RecipeError(
                f"{name_or_path} is not UTF-8: found {kind} (byte {error.object[error.start]:#04x} at {error.start}); "
                "save it as UTF-8"
            ) from error
        except OSError as error:
            raise RecipeError(
                f"no recipe {name_or_path!r}: neither a readable file nor one of {', '.join(shipped_recipes())}"
            ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name_or_path} is not TOML: {error}") from error
    return recipe_from(values, name_or_path)


def recipe_from(values: dict[str, Any], source: str) -> Recipe:
    """Turn a dictionary into a recipe; ``source`` is named in errors.

    Raises
    ------
    RecipeError
        Where a value is missing, unknown, out of range, or contradicts another.

    """
    with named_in_errors(source):
        return Recipe.model_validate(values)


def data_from(assignments: Sequence[str]) -> Data | None:
    """Turn values such as ``data.layout=coco`` into how a folder is read without a recipe; None where there are none.

    Fields that nobody has given are not set (``model_fields_set``): the folder shows them.

    Raises
    ------
    RecipeError
        Where an assignment is of another part of a recipe, of another form, or names or gives what ``data`` cannot
        hold.

    """
    if not assignments:
        return None
    keys = [assignment.partition("=")[0].strip() for assignment in assignments]
    other = next((key for key in keys if not key.startswith("data.")), None)
    if other is not None:
        raise RecipeError(
            f"--set {other} changes a recipe, and none is named; give --recipe, or edit the one that plan writes. "
            "Without one --set says how the folder is read alone, such as data.layout=coco"
        )
    values = assign(Recipe, {"data": Data().model_dump(mode="json")}, assignments)["data"]
    with named_in_errors(told(assignments), "data"):
        data = Data.model_validate({key: values[key] for key in (key.split(".")[1] for key in keys)})
    if data.class_values is not None and data.model_fields_set >= {"kind"} and data.kind == "instances":
        raise RecipeError(f"{told(assignments)}: classes have values, objects have none; leave one of the two out")
    return data


def stored_recipe(values: dict[str, Any], source: str) -> Recipe:
    """Turn a recipe that a run or a package keeps into a recipe: what older versions let pass does not end it.

    ``data.class_values`` with object numbers was ignored by them; it is left out.

    Raises
    ------
    RecipeError
        As :func:`recipe_from`.

    """
    data = values.get("data")
    if isinstance(data, dict) and data.get("kind", Data().kind) == "instances":
        values = values | {"data": {key: value for key, value in data.items() if key != "class_values"}}
    return recipe_from(values, source)


@contextmanager
def named_in_errors(source: str, *within: str) -> Iterator[None]:
    """Say what is wrong with a recipe that is put together here; ``source`` is named, and the table ``within`` it.

    Raises
    ------
    RecipeError
        Where a value is missing, unknown, out of range, or contradicts another.

    """
    try:
        yield
    except ValidationError as error:
        raise RecipeError(f"{source}: {'; '.join(_problem(found, within) for found in error.errors())}") from error


def _problem(error: ErrorDetails, within: tuple[str, ...]) -> str:
    """Where it is, what was expected and what was found; contradictions say so themselves."""
    path = (*within, *error["loc"])
    place = ".".join(map(str, path)) or "recipe"
    if error["type"] == "extra_forbidden":
        return f"{place} is no key of a recipe; {nearest_key(Recipe, path)}"
    found = "" if error["type"] in {"missing", "value_error"} else f"; found {shown(error['input'])}"
    expected = error["msg"]
    if error["type"] == "tuple_type":
        example = example_of(Recipe, path)
        expected = "Input should be a list" + ("" if example is None else f", such as '{place}={example}'")
    return f"{place}: {expected}{found}"
