"""What a training run is: one frozen :class:`Recipe`, read from TOML, stored in every checkpoint."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.labels import LabelRule
from model.normalization import ScaleRange, Step
from model.tiling import Geometry, valid_unet_geometry
from training.errors import RecipeError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Include(_Part):
    """Take only the images that a table names: rows of ``csv`` whose ``column`` holds ``value``.

    A data folder without the table is taken whole: the recipe serves other people's images too.
    """

    csv: str
    column: str
    value: str
    stem_column: str = "id"


class Data(_Part):
    """Where images and masks lie under the data folder, and what a mask's values mean.

    Parameters
    ----------
    images, masks
        Sub-folders; an image and its mask share the stem of their file names.
    kind
        ``instances``: 0 is background, every other value one object. ``semantic``: a value is a class.
    class_values
        For semantic masks: the value of class 0, 1, ...; without it 0 is background and all else class 1 (two classes),
        or the values are the class numbers.
    ignore_value
        Mask value of pixels that nobody has annotated: they are left out of loss and figures.
    include
        Optional filter by a table that may lie in the data folder.
    validation_fraction
        Share of images kept for validation, chosen by the hash of the stem (:func:`training.datasets.is_validation`).

    """

    images: str = "images"
    masks: str = "labels"
    kind: Literal["instances", "semantic"] = "instances"
    class_values: tuple[int, ...] | None = None
    ignore_value: int | None = None
    include: Include | None = None
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.15


class Net(_Part):
    """Arguments of :class:`model.unet.UNet`, but for the number of classes."""

    in_channels: Annotated[int, Field(ge=1)] = 1
    base_width: Annotated[int, Field(ge=1)] = 64
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class Targets(_Part):
    """How masks become classes.

    Parameters
    ----------
    classes
        Names, background first.
    scheme
        ``foreground``: background and object, touching objects parted by a ridge of background, one pixel wide (the
        paper). ``boundary``: background, interior, boundary (the outermost pixels of each object). ``classes``: the
        mask's own classes.
    boundary_px
        Width of the boundary class in pixels.

    """

    classes: tuple[str, ...] = ("background", "foreground")
    scheme: Literal["foreground", "boundary", "classes"] = "foreground"
    boundary_px: Annotated[int, Field(ge=1, le=5)] = 1


class Weights(_Part):
    """The paper's weight map, equation 2: ``w = wc + w0 exp(-(d1 + d2)^2 / (2 sigma^2))``.

    ``class_balance`` is the power of the inverse class frequency in wc: 1 balances the classes fully, 0 leaves wc = 1.
    """

    w0: NotNegative = 10.0
    sigma_px: Positive = 5.0
    class_balance: Fraction = 1.0


class Augmentation(_Part):
    """Ranges of the random deformation and of the grey values (paper, section 3.1).

    Parameters
    ----------
    probability
        Share of tiles that are deformed by more than a flip and a quarter turn.
    elastic_px
        Standard deviation of the displacement vectors on the coarse 3 x 3 grid, in pixels.
    rotate, flip
        Any angle; both axes.
    scale
        Range of the zoom, drawn evenly on a logarithmic scale.
    shift_px
        Largest shift in pixels.
    gamma, contrast
        Ranges of the exponent and of the factor, drawn evenly on a logarithmic scale.
    brightness, noise
        Largest offset and largest standard deviation of the noise, in units of the normalised image.
    blur_px
        Largest standard deviation of the blur, in pixels, applied to one tile in four.

    """

    probability: Fraction = 1.0
    elastic_px: NotNegative = 10.0
    rotate: bool = True
    flip: bool = True
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    shift_px: NotNegative = 16.0
    gamma: tuple[Positive, Positive] = (1.0, 1.0)
    contrast: tuple[Positive, Positive] = (1.0, 1.0)
    brightness: NotNegative = 0.0
    noise: NotNegative = 0.0
    blur_px: NotNegative = 0.0


class Schedule(_Part):
    """Optimiser, learning rate, length.

    Parameters
    ----------
    optimizer
        ``sgd``: momentum 0.99 as in the paper; ``adamw``.
    learning_rate, warmup_steps, decay
        Highest rate, linear steps up to it, and the way down to 0 at the end: ``poly`` is (1 - t)^0.9.
    steps, max_minutes
        The run ends with whichever comes first; the learning rate follows the larger of both elapsed fractions.
        A run with ``max_minutes`` is not repeatable bit for bit.
    batch
        Tiles a step (1 in the paper).
    ema
        Decay of the exponential moving average of the weights that is validated and exported; 0: none.
    clip_norm
        Largest norm of the gradient; 0: no limit.
    precision
        ``bf16``: autocast to bfloat16 with channels last.
    validate_every, checkpoint_every
        Steps between validations and between checkpoints.
    seed
        Of weights, order, augmentation and drop-out.

    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: NotNegative = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "poly", "cosine"] = "poly"
    steps: Annotated[int, Field(ge=1)] = 10_000
    max_minutes: Positive | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: NotNegative = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    validate_every: Annotated[int, Field(ge=1)] = 1000
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0


class Card(_Part):
    """What the package says about itself beyond its figures; bioimage.io wants titles of 5 characters or more."""

    title: Annotated[str, Field(min_length=5)] | None = None
    description: str = ""
    license: str = "MIT"
    data: str = ""
    limits: str = ""


class Recipe(_Part):
    """Everything that makes a run; the tile is given by its output size in pixels."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    data: Data = Data()
    net: Net = Net()
    targets: Targets = Targets()
    weights: Weights = Weights()
    tile_output_px: Annotated[int, Field(ge=1)] = 388
    augmentation: Augmentation = Augmentation()
    schedule: Schedule = Schedule()
    normalization: tuple[Step, ...] = (ScaleRange(min_percentile=1.0, max_percentile=99.8),)
    labels: LabelRule = LabelRule()
    card: Card = Card()

    def for_folder(self, folder: Path) -> Self:
        """Return the recipe without its table and card where ``folder`` lacks that table: its images are others."""
        include = self.data.include
        if include is None or (folder / include.csv).exists():
            return self
        data = self.data.model_copy(update={"include": None})
        return self.model_copy(update={"data": data, "card": Card(license=self.card.license)})

    @property
    def geometry(self) -> Geometry:
        """What the net accepts and returns."""
        return valid_unet_geometry(self.net.depth)

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
        needed = {"foreground": 2, "boundary": 3}.get(scheme)
        if needed not in {None, count}:
            raise ValueError(f"scheme {scheme!r} needs {needed} classes, targets.classes names {count}")
        if scheme == "boundary" and self.data.kind != "instances":
            raise ValueError("scheme 'boundary' needs data.kind = 'instances'")
        if self.data.class_values is not None and len(self.data.class_values) != count:
            raise ValueError(f"data.class_values gives {len(self.data.class_values)} values for {count} classes")
        largest = max(*self.labels.foreground, *self.labels.seeds)
        if largest >= count:
            raise ValueError(f"labels names channel {largest}, the net has {count}: 0 to {count - 1}")
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
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
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
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{source}: {details}") from error
