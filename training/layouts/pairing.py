"""Which file of labels belongs to which image: by the names."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

from training.errors import MaskMismatch, MissingFile
from training.layouts.files import IMAGE_SUFFIXES, JPEG_SUFFIXES
from training.layouts.source import tell_once
from training.names import composed, stem_of

CLASSES, OBJECTS = "_mask", "_labels"
"""How the service ends the names of its results: class of each pixel, numbered objects."""

_CELLPOSES = ("_cp_masks", "_masks")

ENDINGS = (OBJECTS, CLASSES, *_CELLPOSES, "_label")
"""How names of labels may end after the image's stem, in capitals or not."""

BUNDLE = "_seg"
"""How the stems of Cellpose's own files end, which are .npy (:mod:`training.layouts.cellpose`)."""

_WRITTEN = (OBJECTS, CLASSES, *_CELLPOSES, BUNDLE)
"""Endings that the service and Cellpose write."""

CELLPOSE_ROIS = "_rois"
"""How Cellpose ends the names of outlines that it writes beside its masks, which are .zip."""

IMAGE_ENDING = "_img"
"""What Cellpose lets follow the name that an image shares with its labels."""

_ENDINGS_OF = {".npy": (BUNDLE,), **dict.fromkeys((".zip", ".roi"), (*ENDINGS, CELLPOSE_ROIS, "_roiset"))}
"""Endings by suffix, where those of pictures are not all."""

_PICTURES = ("_flows", "_outlines", "_dp")
"""Endings of what Cellpose writes beside masks for people to look at; ``_cp_masks`` may follow."""

_OME = ".ome"
_SERIES = " - "
"""What QuPath puts between the names of an image's file and of the series in it."""

_MOST_NAMED = 3
_NOT_READ, _CONVERT = "which is of a kind that is not read", "Convert it to one of these"


def ending_of(path: Path) -> str:
    """Return what makes a file the labels of the image whose name stands before it; empty for any other name."""
    return _ending(_bare(path), _ENDINGS_OF.get(path.suffix.lower(), ENDINGS))


def images_named_as_masks(paths: Sequence[Path]) -> set[Path]:
    """Files of one folder that are named as masks are, and are images, for others are named as their masks.

    ``a_label.tif`` is an image beside ``a_label_labels.tif``. What ends as the service and Cellpose write it never is.
    """
    named = {_parted(path)[0] for path in paths}
    return {path for path in paths if _parted(path)[1] not in _WRITTEN and _bare(path) in named}


def image_of(path: Path, images: Container[str]) -> str:
    """Return the stem of the image that a file of labels is named after, whether or not there is that image.

    It is the file's own stem, or what stands before its ending. QuPath's scripts name an export after the image's whole
    file name, cell.tif.geojson, and where that file has a series after both, "cell.ome.tif - cell.geojson"; of
    cell.ome.tif the mask may be cell.tif, and the other way round.
    """
    stem = stem_of(path)
    if stem in images:
        return stem
    bare, _ = _parted(path)
    bare = _without_series(bare)
    if Path(bare).suffix.lower() in IMAGE_SUFFIXES:
        bare = Path(bare).stem
    names = (bare, bare + _OME, bare.removesuffix(_OME))
    return next((name for name in names if name in images), bare.removesuffix(IMAGE_ENDING))


def _without_series(bare: str) -> str:
    """Name of the image's file where QuPath names a series of it, "cell.ome.tif - cell"; any other name as it is."""
    parts = bare.split(_SERIES)
    files = (_SERIES.join(parts[:count]) for count in range(1, len(parts)))
    return next((file for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES), bare)


def without_pictures(images: Mapping[str, Path], labels: Container[str]) -> dict[str, Path]:
    """Images by their stems, without labels and pictures of Cellpose that lie among them; the log says so.

    They have no labels of their own, and the name of another image stands before their ending.
    """
    others = {
        stem: path
        for stem, path in images.items()
        if stem not in labels
        and (ending := _ending(stem, (*_PICTURES, *ENDINGS)))
        and stem[: len(stem) - len(ending)] in images
    }
    _tell_left_out(list(others.values()))
    return {stem: path for stem, path in images.items() if stem not in others}


def _bare(path: Path) -> str:
    return stem_of(path).removesuffix(_OME)


def _parted(path: Path) -> tuple[str, str]:
    """What stands before the ending of a file's name, and the ending as it is written."""
    bare = _bare(path)
    at = len(bare) - len(ending_of(path))
    return bare[:at], bare[at:]


def _ending(stem: str, endings: Iterable[str]) -> str:
    return next((ending for ending in endings if stem[-len(ending) :].lower() == ending), "")


def _is_picture(stem: str, images: Container[str]) -> bool:
    """Whether labels of an image that is not there are one of Cellpose's pictures of an image that is."""
    ending = _ending(stem, _PICTURES)
    return stem not in images and bool(ending) and stem[: len(stem) - len(ending)] in images


def _tell_left_out(paths: Sequence[Path]) -> None:
    if paths:
        tell_once(
            logging.INFO,
            f"{paths[0].parent}: files such as {paths[0].name} are labels of other images, or pictures that Cellpose "
            "wrote with them: left out",
        )


def labels_by_stem(paths: Iterable[Path], images: Mapping[str, Path]) -> dict[str, Path]:
    """Files of labels by the stem of their image; pictures of Cellpose are left out; the log says so.

    Raises
    ------
    MaskMismatch
        Where two are of the same image.

    """
    found: dict[str, Path] = {}
    pictures = []
    for path in paths:
        stem = image_of(path, images)
        if _is_picture(stem, images):
            pictures.append(path)
            continue
        if stem in found:
            mixed = path.suffix.lower() in IMAGE_SUFFIXES and path.parent in {image.parent for image in images.values()}
            raise MaskMismatch(
                f"{found[stem]} and {path} are of the same image, {stem}; expected one of them. "
                f"{_which_to_remove(found[stem], path)}"
                f"{'; where one of them is an image, move images and masks apart, to images/ and labels/' * mixed}"
            )
        found[stem] = path
    _tell_left_out(pictures)
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
    stems: Sequence[str],
    have: Mapping[str, Path],
    where: Path,
    what: str,
    suffixes: tuple[str, ...],
    *,
    images: Mapping[str, Path] | None = None,
) -> None:
    """Require a file of every stem.

    Raises
    ------
    MissingFile
        Names the first that is missing, a file of its name that is not read for its suffix, and files of ``have`` that
        belong to none of ``images``, where that is given.

    """
    missing = [stem for stem in stems if stem not in have]
    if not missing:
        return
    known = {*have.values(), *(images or {}).values()}
    unread = [path for path in _unread(where, known) if image_of(path, {missing[0]}) == missing[0]]
    place = f"{where / missing[0]} with suffix {', '.join(suffixes)}"
    expected = f"{len(missing)} of {len(stems)} have no {what}: expected {place}"
    if unread and unread[0].suffix.lower() in JPEG_SUFFIXES and images is not None:
        raise MissingFile(
            f"{expected}; found {unread[0]}, and JPEG changes the numbers that it stores, so that no labels are read "
            f"from it. Save it as {suffixes[0]} where it was drawn"
        )
    if unread:
        raise MissingFile(f"{expected}; found {unread[0]}, {_NOT_READ}. {_CONVERT}")
    strangers = [have[stem].name for stem in sorted(have) if images is not None and stem not in images]
    found = "none"
    if strangers:
        more = f" and {len(strangers) - _MOST_NAMED} more" if len(strangers) > _MOST_NAMED else ""
        found = f"{', '.join(strangers[:_MOST_NAMED])}{more}, named after no image"
    raise MissingFile(
        f"{expected}; found {found}. {'Rename it, add' if strangers else 'Add'} the file or take its partner away"
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
        for path in _unread(where, set(labels.values()))
        if lonely[0] in {stem_of(path), composed(path.name)} and path.suffix.lower() != first.suffix.lower()
    ]
    found, remedy = "none", f"Add the image, or move {first.name} out of the folder"
    if unread:
        found, remedy = f"{unread[0]}, {_NOT_READ}", _CONVERT
    raise MissingFile(
        f"{len(lonely)} of {len(labels)} {what} have no image, {first} is the first: expected {where / lonely[0]} with "
        f"suffix {', '.join(suffixes)}; found {found}. {remedy}"
    )


def _unread(folder: Path, known: Container[Path]) -> list[Path]:
    """Files of a folder that are none of ``known``; of one that is not there none."""
    return (
        [path for path in sorted(folder.iterdir()) if path not in known and path.is_file()] if folder.is_dir() else []
    )
