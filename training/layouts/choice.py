"""Which layout a data folder has: the recipe's word, or the only one that fits what lies there."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from model.wording import counted
from training.errors import DatasetError, MissingFile
from training.layouts import coco, ctc, folders, geojson, rois, volumes
from training.layouts.nested import describe_nested
from training.layouts.source import Layout, tell_once
from training.options import Data

LAYOUTS: dict[str, Layout] = {
    "folders": folders,
    "ctc": ctc,
    "volume": volumes,
    "coco": coco,
    "rois": rois,
    "geojson": geojson,
}
_SUSPECTS = {"coco": coco.suspect, "rois": rois.suspect, "geojson": geojson.suspect}
"""What says in words that files may be meant as a layout, by name; they count where nothing else fits."""

_MOST_NAMES = 8

_OTHER_FOLDERS = ({"masks": "masks"}, {"masks": "images"}, {"images": "."}, {"images": ".", "masks": "."})
"""Where images and masks lie for StarDist; side by side, as for Cellpose and results beside their images; and where
images lie in the data folder itself."""


def layout_of(folder: Path, data: Data) -> tuple[Layout, Data]:
    """Return the layout that the recipe names, or recognise it; the log says what was recognised.

    ``data`` comes back with the folders that the layout is read from: where nothing lies in those that it names by
    default, images and masks are looked for where other programs keep them.

    Raises
    ------
    MissingFile
        Where the folder is missing, or with ``auto`` no layout fits it, or two do.

    """
    if not folder.is_dir():
        raise MissingFile(f"{folder} is not a folder; expected annotated images in it")
    if data.layout != "auto":
        return LAYOUTS[data.layout], data
    fitting, data = _fitting_anywhere(folder, data)
    if len(fitting) > 1:
        listed = "\n".join(f"  {name}: {found}" for name, found in fitting.items())
        raise MissingFile(
            f"{folder} fits {len(fitting)} layouts; name one of them as data.layout (in the recipe, or --set "
            f"data.layout={next(iter(fitting))}):\n{listed}"
        )
    suspected = {
        name: found
        for name, suspect in _SUSPECTS.items()
        if name not in fitting and (found := suspect(folder, data)) is not None
    }
    if not fitting:
        if len(suspected) != 1:
            raise MissingFile(_fits_none(folder, data))
        fitting = suspected
    ((name, found),) = fitting.items()
    tell_once(logging.INFO, f"{folder}: layout {name}, {found}")
    for other in sorted(suspected.keys() - {name}):
        tell_once(
            logging.WARNING,
            f"{folder}: left out: {suspected[other]}. Where they are meant, set data.layout (in the recipe, or --set "
            f"data.layout={other})",
        )
    return LAYOUTS[name], data


def has_layout(folder: Path, data: Data) -> bool:
    """Whether something of a layout lies in a folder: of the one that the recipe names, or of any."""
    if data.layout != "auto":
        return LAYOUTS[data.layout].recognise(folder, data) is not None
    return bool(_fitting_anywhere(folder, data)[0])


def _may_be_read(folder: Path, data: Data) -> bool:
    with suppress(DatasetError):  # of a folder that nobody has named
        return has_layout(folder, data)
    return False


def _fitting_anywhere(folder: Path, data: Data) -> tuple[dict[str, str], Data]:
    """What the layouts that fit say that they found, by their names, and ``data`` with the folders that they fit in."""
    fitting = _fitting(folder, data, LAYOUTS)
    if fitting or (data.images, data.masks) != (Data().images, Data().masks):
        return fitting, data
    for places in _OTHER_FOLDERS:
        moved = data.model_copy(update=places)
        fitting = _fitting(folder, moved, ("folders", "volume"))
        if fitting:
            return fitting, moved
    return {}, data


def _fits_none(folder: Path, data: Data) -> str:
    expected = "\n".join(f"  {name}: {layout.EXPECTS}" for name, layout in LAYOUTS.items())
    nested = describe_nested(folder / data.images, folder / data.masks)
    own = next((path for path in _entries(folder) if path.is_dir() and _may_be_read(path, data)), None)
    inner = None if own is None else f"{own.name}/ fits one: to read it alone give --data {own}"
    hints = "".join(f"\n{hint}" for hint in (nested, inner) if hint)
    return f"{folder} fits no layout; found {_listing(folder)}; expected one of\n{expected}{hints}"


def _fitting(folder: Path, data: Data, names: Iterable[str]) -> dict[str, str]:
    """What the layouts that fit say that they found, by their names."""
    said = {name: LAYOUTS[name].recognise(folder, data) for name in names}
    return {name: found for name, found in said.items() if found is not None}


def _listing(folder: Path) -> str:
    """Name what lies in a folder, with the number of entries of its sub-folders."""
    names = [
        f"{path.name}/ ({counted(len(_entries(path)), 'file')})" if path.is_dir() else path.name
        for path in _entries(folder)
    ]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) or "nothing") + more


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
