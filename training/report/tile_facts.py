"""What the tiles of a run show, and what a person should look at in it before training."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.datasets import AnnotatedImage
from training.data.tiles import share_with_objects
from training.recipe import Recipe
from training.report.facts import Caution, cautions, folder_facts

_FEW = 0.25


def all_cautions(images: Sequence[AnnotatedImage], training: Sequence[AnnotatedImage], recipe: Recipe) -> list[Caution]:
    """Return what a person would want to know of a folder before hours are spent on those of its images that train."""
    return [*cautions(folder_facts(images, recipe), recipe), *tile_cautions(training, recipe)]


def tile_cautions(training: Sequence[AnnotatedImage], recipe: Recipe) -> list[Caution]:
    """Whether few tiles of a run would show an object."""
    share = share_with_objects(training, recipe)
    if share >= _FEW:
        return []
    return [
        Caution(
            f"Only {share:.0%} of the tiles show an object",
            "The others teach what background is alone. Have a share of the tiles drawn around objects, such as "
            "augmentation.foreground_share = 0.5, or choose a larger tile_output_px.",
        )
    ]
