"""What a folder of annotated images holds, image by image, and what a person should look at before training on it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.label_rule import LabelRule
from model.wording import counted
from training.data.datasets import IGNORE, AnnotatedImage
from training.data.interiors import MOST_LOST, Lost, count_lost
from training.data.splits import split_images
from training.data.weight_map import class_targets, close_numbers
from training.options import Targets
from training.recipe import Recipe
from training.report.mask_signs import MOST_PIECES, is_soft, scattered, unknown_mark

_log = logging.getLogger(__name__)

SMALL_OBJECT_PX = 4.0
SATURATED = 0.01
NEARLY_EMPTY = 0.001
_FAINT = 1e-4
_NAMED = 5
_CONTACT = Targets(classes=("background", "object", "contact"), scheme="contact", boundary_px=1)
_WATERSHED = LabelRule(method="watershed", foreground=(1, 2), seeds=(1,))


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts of one image.

    Parameters
    ----------
    stem, size_yx, channels, dtype
        Name, pixels, channels and dtype as stored.
    lowest, highest
        Grey values over all channels.
    at_highest
        Share of the values that equal ``highest``.
    annotated, foreground
        Share of the pixels that somebody has annotated, and share of those that are not background.
    diameters_px
        Of the circle of each object's area; of connected components of class 1 where masks are semantic.
    longest_px
        Longest side of any object's bounding box, 0 without objects.
    scattered
        Number of objects in many separate pieces (:func:`training.report.mask_signs.scattered`; instances only).
    soft
        Whether most numbers are shades, as smoothing leaves them at edges of masks (instances only).
    mark
        :func:`training.report.mask_signs.unknown_mark`.
    lost
        Number of objects that cannot be found by the recipe's scheme and label rule
        (:func:`training.data.interiors.count_lost`; instances only).
    lost_beside_a_pixel
        The same where its boundary, or contact, is 1 px wide.
    lost_by_contact
        The same of scheme ``contact``, 1 px wide, and a watershed.
    validates
        Whether the split keeps it for validation.

    """

    stem: str
    size_yx: tuple[int, int]
    channels: int
    dtype: str
    lowest: float
    highest: float
    at_highest: float
    annotated: float
    foreground: float
    diameters_px: tuple[float, ...]
    longest_px: int
    scattered: int
    soft: bool
    mark: int
    lost: int
    lost_beside_a_pixel: int
    lost_by_contact: int
    validates: bool


@dataclass(frozen=True, slots=True)
class Caution:
    """Something that a person should look at: what, and which images show it, if any does."""

    title: str
    advice: str
    stems: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """The first images by name, and how many more there are."""
        more = len(self.stems) - _NAMED
        return ", ".join(self.stems[:_NAMED]) + (f" and {more} more" if more > 0 else "")

    def __str__(self) -> str:
        named = f" ({self.named})" if self.stems else ""
        return f"{self.title}{named}. {self.advice}"


def folder_facts(images: Sequence[AnnotatedImage], recipe: Recipe) -> list[ImageFacts]:
    """Measure all images and their masks."""
    validating = {image.stem for image in split_images(images, recipe.data)[1]}
    return [image_facts(image, recipe, validates=image.stem in validating) for image in images]


def image_facts(image: AnnotatedImage, recipe: Recipe, *, validates: bool) -> ImageFacts:
    """Measure one image and its mask."""
    labels, values = image.labels_yx, image.image_yxc
    known = labels != IGNORE
    annotated = int(np.count_nonzero(known))
    instances = recipe.data.kind == "instances"
    cells = close_numbers(np.maximum(labels, 0)) if instances else ndimage.label(labels == 1)[0]
    areas = np.bincount(cells.ravel())[1:]
    windows = [window for window in ndimage.find_objects(cells) if window is not None]
    highest = float(values.max(initial=0))

    def lost(targets: Targets, rule: LabelRule) -> int:
        return count_lost([labels], targets, rule).lost if instances else 0

    return ImageFacts(
        stem=image.stem,
        size_yx=(labels.shape[0], labels.shape[1]),
        channels=values.shape[-1],
        dtype=str(values.dtype),
        lowest=float(values.min(initial=highest)),
        highest=highest,
        at_highest=float(np.count_nonzero(values == highest)) / max(1, values.size),
        annotated=annotated / max(1, labels.size),
        foreground=float(np.count_nonzero(labels > 0)) / max(1, annotated),
        diameters_px=tuple((2 * np.sqrt(areas[areas > 0] / math.pi)).tolist()),
        longest_px=max((span.stop - span.start for window in windows for span in window), default=0),
        scattered=scattered(cells) if instances else 0,
        soft=instances and is_soft(cells, areas),
        mark=unknown_mark(labels, recipe.data),
        lost=lost(recipe.targets, recipe.labels),
        lost_beside_a_pixel=lost(recipe.targets.model_copy(update={"boundary_px": 1}), recipe.labels),
        lost_by_contact=lost(_CONTACT, _WATERSHED),
        validates=validates,
    )


def class_shares(images: Sequence[AnnotatedImage], recipe: Recipe) -> NDArray[np.float64]:
    """Share of each class in all annotated pixels, after the recipe has made classes of the masks."""
    counts = np.zeros(len(recipe.targets.classes), dtype=np.int64)
    for image in images:
        targets = class_targets(image.labels_yx, recipe.targets.scheme, recipe.targets.boundary_px)
        counts += np.bincount(targets[targets != IGNORE], minlength=counts.size)
    return counts / max(1, int(counts.sum()))


def cautions(facts: Sequence[ImageFacts], recipe: Recipe) -> list[Caution]:
    """What a person would want to know before hours are spent, the gravest first."""
    output, instances = recipe.tile_output_px, recipe.data.kind == "instances"

    def those(test: Callable[[ImageFacts], bool]) -> tuple[str, ...]:
        return tuple(fact.stem for fact in facts if test(fact))

    found = [
        Caution(
            "Images without contrast: every pixel has the same value",
            "Nothing can be learned from them. Look at the files, or take them away.",
            those(lambda fact: fact.highest <= fact.lowest),
        ),
        Caution(
            f"Pixel values within a range of less than {_FAINT:g}",
            "Normalisation adds 1e-6 to the range and little stands out. Multiply the values, here and later on.",
            those(lambda fact: fact.dtype.startswith("float") and 0 < fact.highest - fact.lowest < _FAINT),
        ),
        *misread(facts),
        Caution(
            f"Masks that are empty, or nearly: foreground below {NEARLY_EMPTY:.1%} of what is annotated",
            "Right where nothing is to be seen; otherwise missing annotation teaches the net to overlook objects.",
            those(lambda fact: fact.foreground < NEARLY_EMPTY),
        ),
        Caution(
            f"Objects longer than half a tile's output ({output / 2:g} px)",
            "Few tiles show them whole. A larger tile_output_px, or net.downscale, lets the net see more of them.",
            those(lambda fact: instances and fact.longest_px > output / 2),
        ),
        Caution(
            f"Objects smaller than {SMALL_OBJECT_PX:g} px across",
            "Slips of the hand, perhaps; real ones are easily lost. Clean the masks, or enlarge the images.",
            those(lambda fact: instances and min(fact.diameters_px, default=math.inf) < SMALL_OBJECT_PX),
        ),
        Caution(
            f"Saturated images: {SATURATED:.0%} of the pixels or more have the highest value",
            "What is brighter than the camera can tell has no shape left in there. Expose shorter, where you can.",
            those(lambda fact: fact.highest > fact.lowest and fact.at_highest >= SATURATED),
        ),
        Caution(
            "Images mostly not annotated",
            "Less than half of their pixels count for loss and figures.",
            those(lambda fact: fact.annotated < 0.5),
        ),
        Caution(
            f"Images smaller than half a tile's output ({output / 2:g} px)",
            "Most of such a tile is mirrored and counts for nothing. A smaller tile_output_px trains faster.",
            those(lambda fact: max(fact.size_yx) < output / 2),
        ),
    ]
    found = [caution for caution in found if caution.stems] + _unsuited(facts, recipe)
    validating = those(lambda fact: fact.validates)
    if len(validating) < 3:
        more = "Annotate another" if len(facts) == 1 else "Cross-validate with --fold 1/N to --fold N/N"
        validate = "validates" if len(validating) == 1 else "validate"
        known = "Their figures say little" if validating else "No figure will say anything"
        found.append(
            Caution(
                f"Only {len(validating)} of {counted(len(facts), 'image')} {validate}",
                f"{known} about other images. {more}.",
                validating,
            )
        )
    dtypes = sorted({fact.dtype for fact in facts})
    if len(dtypes) > 1:
        odd = min(dtypes, key=[fact.dtype for fact in facts].count)
        found.append(
            Caution(
                f"Images of different depths: {', '.join(dtypes)}",
                f"Normalisation evens this out; was it intended? Those of {odd} are the fewest.",
                those(lambda fact: fact.dtype == odd),
            )
        )
    return found


def _unsuited(facts: Sequence[ImageFacts], recipe: Recipe) -> list[Caution]:
    """Where the recipe is for other masks: its scheme loses objects, or its mark for what is unknown is in none."""
    found, unknown, targets = [], recipe.data.ignore_value, recipe.targets
    told = [fact for fact in facts if not fact.soft and not fact.scattered]  # of others misread() tells
    lost = Lost(sum(fact.lost for fact in told), sum(len(fact.diameters_px) for fact in told))
    if lost.share > MOST_LOST:
        others = "scale the images up"
        if targets.scheme != "contact" and sum(fact.lost_by_contact for fact in told) < lost.lost:
            others = 'set targets.scheme = "contact" with classes ["background", "object", "contact"] and a watershed'
        narrower = ""
        if targets.boundary_px > 1 and sum(fact.lost_beside_a_pixel for fact in told) < lost.lost:
            narrower = f"lower targets.boundary_px ({targets.boundary_px}), or "
        found.append(
            Caution(
                f"By scheme {targets.scheme}, {lost} have no interior, or one in pieces",
                f"Even a net without a fault does not find them: {narrower}{others}.",
                tuple(fact.stem for fact in told if fact.lost),
            )
        )
    if unknown is not None and all(fact.annotated == 1 for fact in facts):
        found.append(
            Caution(
                f"No mask holds data.ignore_value = {unknown}",
                "Every pixel counts as annotated. Correct the value, or take it out.",
            )
        )
    return found


def misread(facts: Sequence[ImageFacts]) -> list[Caution]:
    """Where labels that are taken for objects are none, by the look of them; figures against these mean nothing."""
    found = [
        Caution(
            "Masks with soft edges: their values are shades, none of them two pixels wide",
            "Each shade is taken for an object. Save masks without smoothing, neither scaled nor as JPEG: cut them at "
            "half, to 0 and 255.",
            tuple(fact.stem for fact in facts if fact.soft),
        ),
        Caution(
            "Objects in many separate pieces",
            f"One number covers {MOST_PIECES} pieces or more, or an image's only number several: perhaps the masks "
            'hold classes, not objects. Then set data.kind = "semantic", or number each object by itself.',
            tuple(fact.stem for fact in facts if fact.scattered and not fact.soft),
        ),
        *(
            Caution(
                f"Masks where {mark}, the highest value of its type and apart from the others, is an object or class",
                f"Where it marks what nobody has annotated, set data.ignore_value = {mark} (in the recipe, or --set).",
                tuple(fact.stem for fact in facts if fact.mark == mark),
            )
            for mark in sorted({fact.mark for fact in facts} - {0})
        ),
    ]
    return [caution for caution in found if caution.stems]


def warn_of_misread(images: Sequence[AnnotatedImage], recipe: Recipe) -> list[Caution]:
    """Return what :func:`misread` says of images that a net is judged by, and say it in the log."""
    found = misread([image_facts(image, recipe, validates=False) for image in images])
    for caution in found:
        _log.warning("%s", caution)
    return found
