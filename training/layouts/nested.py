"""Images in sub-folders of a folder of images: they are not read, and nobody should think that they are."""

from __future__ import annotations

import logging
from pathlib import Path

from model.wording import counted
from training.layouts.files import IMAGE_SUFFIXES, list_files
from training.layouts.source import tell_once
from training.options import Data


def warn_of_nested(images: Path, folder: Path, data: Data) -> None:
    """Log images in sub-folders of ``images``, unless that is the data folder itself, where masks have theirs."""
    said = describe_nested(images, folder / data.masks) if images != folder else None
    if said is not None:
        tell_once(logging.WARNING, said)


def describe_nested(images: Path, masks: Path) -> str | None:
    """Say how many images lie in sub-folders, in which first, and what helps; None where none do.

    ``masks`` may be one of the sub-folders, and does not count.
    """
    counts = {
        place: len(list_files(place, IMAGE_SUFFIXES))
        for place in sorted(images.rglob("*/"))
        if not any(part.startswith(".") for part in place.relative_to(images).parts)
        and (masks == images or not place.is_relative_to(masks))
    }
    nested = [place for place, count in counts.items() if count]
    if not nested:
        return None
    return (
        f"{images}: not read, in sub-folders: {counted(sum(counts.values()), 'image')}, the first {counts[nested[0]]} "
        f"in {nested[0].relative_to(images)}/. Move images and masks up, or name one sub-folder of each as data.images "
        "and data.masks"
    )
