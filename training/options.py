"""Parts of a recipe: frozen values, each checked where it is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from training.names import composed
from training.ranges import (
    BorderWeight,
    BorderWidth,
    Count,
    CountOrNone,
    Decay,
    Factor,
    Fraction,
    Grey,
    Limit,
    Minutes,
    Part,
    Pixels,
    Rate,
    RatioRange,
    Seed,
    Share,
    ZoomRange,
)

PartName = Annotated[str, Field(pattern=r"^[^/\\]+$"), AfterValidator(composed)]
"""Of a folder in the data folder."""


def _apart(parts: tuple[str, str] | None) -> tuple[str, str] | None:
    """Stems of images begin with their part and a hyphen, so that parts are told from each other by these."""
    first, second = (f"{part}-" for part in parts or ("a", "b"))
    if first.startswith(second) or second.startswith(first):
        raise ValueError(f"{first[:-1]} and {second[:-1]} cannot be told apart; name or call two folders otherwise")
    return parts


class Include(Part):
    """Take only the images that a table names: rows of ``csv`` whose ``column`` holds ``value``.

    A data folder without the table is taken whole: the recipe serves other people's images too.
    """

    csv: str
    column: str
    value: str
    stem_column: str = "id"


class Data(Part):
    """Where images and masks lie under the data folder, and what a mask's values mean.

    Parameters
    ----------
    layout
        How they lie (docs/training.md, "Annotated images"). ``auto`` takes the one that fits what is found.
    images, masks
        Sub-folders; an image and its mask share the stem of their file names, but for endings such as ``_mask``
        (:mod:`training.names`). With their defaults, and where nothing lies there, images and masks are looked
        for where other programs keep them (docs/training.md, "Annotated images"). Layout ``volume``: also names of two
        files. Layout ``coco``: ``masks`` may name the JSON file.
    sequences
        Layout ``ctc``: names of the sequences, ``["01"]``; without it all that have truth.
    truth
        Layout ``ctc``: which frames are taken, with which masks. ``gold``: those drawn by hand (01_GT/SEG). ``silver``:
        the computed ones (01_ST/SEG). ``gold, else silver``: gold where a frame has it, else silver; the silver frames
        then train but never validate, so that all figures are against hand truth.
    lacking
        Layout ``ctc``: what becomes of the objects that silver truth shows and gold truth lacks (more than half of
        their pixels are gold background), in frames that have both. ``ignore``: those of their pixels that are gold
        background count as not annotated. ``silver``: they become objects. ``background``: nothing, gold is complete.
    incomplete
        Stems of images in which not every object is annotated: all of their background counts as not annotated, the
        objects stay.
    categories
        Layouts ``coco`` and ``geojson``: names of the categories that are taken, all where it is missing. Semantic
        labels are of class 1, 2, ... in the order of these names.
    crowd
        Layout ``coco``: what annotations with ``iscrowd`` are. ``ignore``: not annotated, as COCO has it. ``object``:
        one object each, as CVAT writes ellipses and brush masks, or pixels of a class. ``auto``: ``object`` where all
        says that CVAT wrote the file, and for classes where there are no others; else ``ignore``. The log tells which.
    kind
        ``instances``: 0 is background, every other value one object. ``semantic``: a value is a class.
    class_values
        For semantic masks: the value of class 0, 1, ...; without it 0 is background and all else class 1 (two classes),
        or the values are the class numbers. Instances have none.
    ignore_value
        Mask value of pixels that nobody has annotated: they are left out of loss and figures.
    include
        Optional filter by a table that may lie in the data folder.
    parts
        Names of two sub-folders of the data folder, each laid out as a data folder of its own: the images in the first
        train, those in the second validate, and ``split``, ``validation_fraction`` and ``stretches`` mean nothing. A
        data folder that has neither is taken whole.
    split
        Which images validate (:mod:`training.data.splits`). ``hash``: by the hash of the stem. ``blocks``: contiguous
        stretches of the sorted stems, for slices of one specimen and frames of one sequence.
    stretches
        Parts of equal length that ``blocks`` takes a block of each from (2: both halves of a stack).
    validation_fraction
        Share of images kept for validation.
    fold
        (k, n) takes fold k of n, counted from 1, for validation; it beats ``validation_fraction``.

    """

    layout: Literal["auto", "folders", "ctc", "volume", "coco", "rois", "geojson"] = "auto"
    images: str = "images"
    masks: str = "labels"
    sequences: Annotated[tuple[Annotated[str, Field(pattern=r"^\d\d$")], ...], Field(min_length=1)] | None = None
    truth: Literal["gold", "silver", "gold, else silver"] = "gold"
    lacking: Literal["ignore", "silver", "background"] = "ignore"
    incomplete: tuple[Annotated[str, AfterValidator(composed)], ...] = ()
    categories: Annotated[Annotated[tuple[str, ...], Field(min_length=1)] | None, Field(examples=[["cell"]])] = None
    crowd: Literal["auto", "object", "ignore"] = "auto"
    kind: Literal["instances", "semantic"] = "instances"
    class_values: Annotated[tuple[int, ...] | None, Field(examples=[[0, 255]])] = None
    ignore_value: int | None = None
    include: Include | None = None
    parts: Annotated[tuple[PartName, PartName] | None, AfterValidator(_apart), Field(examples=[["train", "test"]])] = (
        None
    )
    split: Literal["hash", "blocks"] = "hash"
    stretches: Annotated[int, Field(ge=1)] = 1
    validation_fraction: Share = 0.15
    fold: Annotated[
        tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=2)]] | None, Field(examples=[[1, 5]])
    ] = None


class Net(Part):
    """Arguments of :class:`model.unet.UNet`, but for the number of classes."""

    in_channels: Annotated[int, Field(ge=1)] = 1
    base_width: Annotated[int, Field(ge=1, le=1024)] = 64
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    dropout: Share = 0.5
    downscale: Literal[1, 2, 4] = 1
    batch_norm: bool = False


class Targets(Part):
    """How masks become classes.

    Parameters
    ----------
    classes
        Names, background first.
    scheme
        ``foreground``: background and object, touching objects parted by a ridge of background, one pixel wide (the
        paper). ``boundary``: background, interior, boundary (the outermost pixels of each object). ``contact``:
        background, cell, contact (the pixels of an object that are next to another one): for objects with thin
        parts, which would be all boundary. ``classes``: the mask's own classes.
    boundary_px
        Width of the boundary or contact class in pixels.

    """

    classes: tuple[str, ...] = ("background", "foreground")
    scheme: Literal["foreground", "boundary", "contact", "classes"] = "foreground"
    boundary_px: Annotated[int, Field(ge=1, le=5)] = 1

    def same_head(self, other: Targets) -> bool:
        """Whether the last layer of a net for these classes means the same for others."""
        return (self.scheme, len(self.classes)) == (other.scheme, len(other.classes))


class Weights(Part):
    """The paper's weight map, equation 2: ``w = wc + w0 exp(-(d1 + d2)^2 / (2 sigma^2))``.

    ``class_balance`` is the power of the inverse class frequency in wc: 1 balances the classes fully, 0 leaves wc = 1.
    """

    w0: BorderWeight = 10.0
    sigma_px: BorderWidth = 5.0
    class_balance: Fraction = 1.0


class Loss(Part):
    """What is added to the weighted cross-entropy.

    Parameters
    ----------
    dice
        Weight of the soft Dice loss (:func:`training.learning.losses.soft_dice_loss`); 0, as in the paper: none.

    """

    dice: Factor = 0.0


class Augmentation(Part):
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
    foreground_share
        Share of the tiles that are drawn around a pixel of an object (of any class but the first), in images that show
        one; the others lie anywhere. For objects that few tiles would show.
    gamma, contrast
        Ranges of the exponent and of the factor, drawn evenly on a logarithmic scale.
    brightness, noise
        Largest offset and largest standard deviation of the noise, in units of the normalised image.
    blur_px
        Largest standard deviation of the blur, in pixels, applied to one tile in four.

    """

    probability: Fraction = 1.0
    elastic_px: Pixels = 10.0
    rotate: bool = True
    flip: bool = True
    scale: ZoomRange = (1.0, 1.0)
    shift_px: Pixels = 16.0
    foreground_share: Fraction = 0.0
    gamma: RatioRange = (1.0, 1.0)
    contrast: RatioRange = (1.0, 1.0)
    brightness: Grey = 0.0
    noise: Grey = 0.0
    blur_px: Pixels = 0.0


class Schedule(Part):
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
        Decay of the exponential moving average of the weights that is validated and exported; 0: none. It begins lower,
        so that nothing of the fresh weights is left in it (:meth:`training.runs.state.TrainingState.follow`).
    clip_norm
        Largest norm of the gradient; 0: no limit.
    precision
        ``bf16``: autocast to bfloat16 with channels last.
    validate_every, checkpoint_every
        Steps between validations and between checkpoints.
    keep
        Which state is exported: ``best`` by the validation images, or ``last``, so that they choose nothing and their
        figures are those of images never used.
    seed
        Of weights, order, augmentation and drop-out.

    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Rate = 0.01
    momentum: Share = 0.99
    weight_decay: Decay = 0.0
    warmup_steps: CountOrNone = 0
    decay: Literal["constant", "poly", "cosine"] = "poly"
    steps: Count = 10_000
    max_minutes: Minutes | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    ema: Share = 0.0
    clip_norm: Limit = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    validate_every: Count = 1000
    checkpoint_every: Count = 1000
    keep: Literal["best", "last"] = "best"
    seed: Seed = 0


class Card(Part):
    """What the package says about itself beyond its figures; bioimage.io wants titles of 5 characters or more."""

    title: Annotated[str, Field(min_length=5)] | None = None
    description: str = ""
    license: str = "MIT"
    data: str = ""
    scale: str = ""
    limits: str = ""
    images: str = ""
    """Digests of the pixels of the images that it speaks of, with blanks between them; without, of any."""
