"""Which file of labels belongs to which image: by the names."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from training.errors import MaskMismatch, MissingFile
from training.layouts.files import IMAGE_SUFFIXES
from training.layouts.names import composed, stem_of

CLASSES, OBJECTS = "_mask", "_labels"
"""How the service ends the names of its results: class of each pixel, numbered objects."""

ENDINGS = (OBJECTS, CLASSES, "_cp_masks", "_masks")
"""How names of labels may end after the image's stem; the last two are Cellpose's."""

BUNDLE = "_seg"
"""How the stems of Cellpose's own files end, which are .npy (:mod:`training.layouts.cellpose`)."""

IMAGE_ENDING = "_img"
"""What Cellpose lets follow the name that an image shares with its labels."""


def ending_of(path: Path) -> str:
    """Return what makes a file the labels of the image whose name stands before it; empty for any other name."""
    endings = (BUNDLE,) if path.suffix.lower() == ".npy" else ENDINGS
    return next((ending for ending in endings if stem_of(path).endswith(ending)), "")


def image_of(path: Path, images: Container[str]) -> str:
    """Return the stem of the image that a file of labels is named after, whether or not there is that image.

    It is the file's own stem, or what stands before its ending. QuPath's scripts name an export after the image's whole
    file name, cell.tif.geojson.
    """
    stem = stem_of(path)
    if stem in images:
        return stem
    stem = stem.removesuffix(ending_of(path))
    if Path(stem).suffix.lower() in IMAGE_SUFFIXES:
        stem = Path(stem).stem
    return stem if stem in images else stem.removesuffix(IMAGE_ENDING)


def labels_by_stem(paths: Iterable[Path], images: Container[str]) -> dict[str, Path]:
    """Files of labels by the stem of their image.

    Raises
    ------
    MaskMismatch
        Where two are of the same image.

    """
    found: dict[str, Path] = {}
    for path in paths:
        stem = image_of(path, images)
        if stem in found:
            raise MaskMismatch(
                f"{found[stem]} and {path} are of the same image, {stem}; expected one of them. "
                f"{_which_to_remove(found[stem], path)}"
            )
        found[stem] = path
    return found


def require_one_kind(labels: Mapping[str, Path]) -> None:
    """Refuse the service's masks among its numbered objects: what is one class there would be learnt as one object.

    Raises
    ------
    MaskMismatch
        Names one of each.

    """
    first = {ending_of(path): path for stem, path in labels.items() if stem != stem_of(path)}
    if CLASSES in first and OBJECTS in first:
        raise MaskMismatch(
            f"{first[CLASSES]} is named as a mask of classes, {first[OBJECTS]} as numbered objects; expected the same "
            "for every image. Segment all of them with output=labels, or all with output=mask; rename the former where "
            f"they are numbered too, to NAME{OBJECTS}"
        )


def _which_to_remove(one: Path, other: Path) -> str:
    by_ending = {ending_of(one): one, ending_of(other): other}
    if by_ending.keys() == {CLASSES, OBJECTS}:
        classes, objects = by_ending[CLASSES].name, by_ending[OBJECTS].name
        return f"Remove {classes} to learn objects, or {objects} to learn classes"
    return f"Keep the one that was corrected last, and remove the other, {one.name} or {other.name}"


def require_partners(
    stems: Sequence[str], have: dict[str, Path], where: Path, what: str, suffixes: tuple[str, ...]
) -> None:
    """Require a file of every stem.

    Raises
    ------
    MissingFile
        Names the first that is missing.

    """
    missing = [stem for stem in stems if stem not in have]
    if missing:
        raise MissingFile(
            f"{len(missing)} of {len(stems)} have no {what}: expected {where / missing[0]} with suffix "
            f"{', '.join(suffixes)}; found none. Add the file or take its partner away"
        )


def require_images(
    labels: dict[str, Path], images: dict[str, Path], where: Path, what: str, suffixes: tuple[str, ...]
) -> None:
    """Require an image for every file of labels, so that no annotation is dropped without a word.

    Raises
    ------
    MissingFile
        Names the first without image, and an image of its name that is not read for its suffix.

    """
    lonely = sorted(labels.keys() - images.keys())
    if not lonely:
        return
    first = labels[lonely[0]]
    unread = [
        path
        for path in sorted(where.iterdir())
        if lonely[0] in {stem_of(path), composed(path.name)}
        and path.suffix.lower() != first.suffix.lower()
        and path.is_file()
    ]
    found, remedy = "none", f"Add the image, or move {first.name} out of the folder"
    if unread:
        found, remedy = f"{unread[0]}, which is of a kind that is not read", "Convert it to one of these"
    raise MissingFile(
        f"{len(lonely)} of {len(labels)} {what} have no image, {first} is the first: expected {where / lonely[0]} with "
        f"suffix {', '.join(suffixes)}; found {found}. {remedy}"
    )
