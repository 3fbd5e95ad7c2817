"""Layout ``ctc``: the Cell Tracking Challenge's.

::

    01/t000.tif                    frames of sequence 01
    01_GT/SEG/man_seg000.tif       gold truth: drawn by hand, of some frames, sometimes of some cells only
    01_ST/SEG/man_seg000.tif       silver truth: computed from the challenge's best entries
    02/, 02_GT/, 02_ST/            more sequences

A frame is taken where it has a mask of the truth that is asked for. Its stem is sequence and frame, ``01-t012``.
Naming: "Cell Tracking Challenge, Naming and file content conventions", celltrackingchallenge.net.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.wording import counted
from training.errors import MaskMismatch, MissingFile
from training.layouts.files import TIFF_SUFFIXES, list_files, read_array, read_image
from training.layouts.folders import mask_source
from training.layouts.source import Labels, Source, choose, tell_once, whole_numbers
from training.options import Data

_log = logging.getLogger(__name__)

EXPECTS = "01/t000.tif, with masks in 01_GT/SEG/man_seg000.tif or 01_ST/SEG/man_seg000.tif; likewise 02, ..."

_SEQUENCE = re.compile(r"\d\d")
_FRAME = re.compile(r"t(\d{3,})\.tiff?", re.IGNORECASE)
_MASK = re.compile(r"man_seg(\d{3,})\.tiff?", re.IGNORECASE)
_TRUTHS = ("GT", "ST")
_WORDS = {"ignore": "unknown", "silver": "silver truth has them"}
_SLICE = re.compile(r"man_seg_\d+_\d+\.tiff?", re.IGNORECASE)


def recognise(folder: Path, data: Data) -> str | None:
    """Say which sequences with truth there are; None where there is none."""
    if data.sequences is None and not _sequences(folder):
        return None
    found = [_read_sequence(folder, name) for name in data.sequences or _sequences(folder)]
    return "; ".join(
        f"sequence {sequence.name}, {len(sequence.gold)} gold and {len(sequence.silver)} silver masks"
        for sequence in found
    )


def list_sources(folder: Path, data: Data, wanted: Sequence[str] | None) -> list[Source]:
    """List the frames that have a mask of the truth that ``data`` asks for.

    Raises
    ------
    MissingFile
        Where a sequence, its truth, or the frame of a mask is missing.
    MaskMismatch
        Where masks are slices of volumes, or two files are of one frame.

    """
    sequences = [_read_sequence(folder, name) for name in data.sequences or _sequences(folder)]
    by_hand = data.truth != "silver" and any(sequence.gold for sequence in sequences)
    digits = max((len(str(number)) for sequence in sequences for number in sequence.frames), default=1)
    sources: list[Source] = []
    for sequence in sequences:
        masks = sequence.asked(data.truth)
        _name_passed_over(sequence.name, folder)
        if not masks and data.sequences is not None:
            raise MissingFile(_no_truth(sequence, folder, data.truth))
        for number in sorted(masks):
            frame = sequence.frames.get(number)
            if frame is None:
                odd = _misnamed(folder / sequence.name, _FRAME, "t000.tif")
                raise MissingFile(
                    f"{masks[number]} has no image: expected {folder / sequence.name / f't{number:03d}.tif'}, found "
                    f"{len(sequence.frames)} other frames{odd}. {'Rename them' if odd else 'Add the frame'} or "
                    "take the mask away"
                )
            stem = f"{sequence.name}-t{number:0{max(3, digits)}d}"
            gold, silver = sequence.gold.get(number), sequence.silver.get(number)
            if masks[number] != gold:
                sources.append(mask_source(stem, frame, masks[number], training_only=by_hand))
            elif silver is None or data.lacking == "background":
                sources.append(mask_source(stem, frame, gold))
            else:
                read = partial(_read_gold, gold, silver, stem, data.lacking)
                sources.append(Source(stem, str(frame), str(gold), partial(read_image, frame), read))
    if not sources:
        raise MissingFile(
            "; ".join(_no_truth(sequence, folder, data.truth) for sequence in sequences)
            or f"{folder} holds no sequence; expected {EXPECTS}"
        )
    computed = sum(source.training_only for source in sources)
    if computed:
        _log.info("%d frames with silver truth are for training alone, they never validate", computed)
    return choose(sources, wanted, folder)


def has_silver_alone(folder: Path) -> bool:
    """Whether there are sequences with silver truth, and none with gold truth.

    Raises
    ------
    MaskMismatch
        As :func:`list_sources`.

    """
    sequences = [_read_sequence(folder, name) for name in _sequences(folder)]
    return any(sequence.silver for sequence in sequences) and not any(sequence.gold for sequence in sequences)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Files of one sequence by the number of the frame."""

    name: str
    frames: dict[int, Path]
    gold: dict[int, Path]
    silver: dict[int, Path]

    def asked(self, truth: str) -> dict[int, Path]:
        """Masks of the truth that is asked for; gold ones before silver ones."""
        return {"gold": self.gold, "silver": self.silver}.get(truth, self.silver | self.gold)


def _sequences(folder: Path) -> list[str]:
    """Names of the sequences that have frames and a folder of truth."""
    return sorted(
        path.name
        for path in (folder.iterdir() if folder.is_dir() else ())
        if _SEQUENCE.fullmatch(path.name) and any((folder / f"{path.name}_{kind}" / "SEG").is_dir() for kind in _TRUTHS)
    )


def _read_sequence(folder: Path, name: str) -> _Sequence:
    if not (folder / name).is_dir():
        raise MissingFile(
            f"{folder / name} is not a folder; expected the frames of sequence {name}, found the sequences "
            f"{_sequences(folder)}. Correct data.sequences"
        )
    gold, silver = (_numbered(folder / f"{name}_{kind}" / "SEG", _MASK) for kind in _TRUTHS)
    return _Sequence(name, _numbered(folder / name, _FRAME), gold, silver)


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Files whose names have the pattern, by their number."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if _SLICE.fullmatch(path.name):
            raise MaskMismatch(f"{path} is a slice of a volume; expected man_seg000.tif: whole frames (y, x)")
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        number = int(match.group(1))
        if number in found:
            raise MaskMismatch(f"{found[number]} and {path} are the same frame; keep one of them")
        found[number] = path
    return found


def _no_truth(sequence: _Sequence, folder: Path, truth: str) -> str:
    """Say that a sequence has no mask of the truth asked for, and which it has."""
    places = [f"{sequence.name}_{kind}/SEG" for kind in _TRUTHS]
    odd = [_misnamed(folder / place, _MASK, "man_seg000.tif") for place in places]
    remedy = "Rename them, or change data.truth" if any(odd) else "Change data.truth"
    return (
        f"sequence {sequence.name} of {folder} has no {truth} truth; found {len(sequence.gold)} gold masks in "
        f"{places[0]}{odd[0]} and {len(sequence.silver)} silver ones in {places[1]}{odd[1]}. {remedy}"
    )


def _misnamed(folder: Path, pattern: re.Pattern[str], example: str) -> str:
    """Say how many TIFF files of a folder are not named as frames or masks are; nothing where all are."""
    others = [path.name for path in list_files(folder, TIFF_SUFFIXES) if not pattern.fullmatch(path.name)]
    return f" ({counted(len(others), 'file')} there not named {example}, such as {others[0]})" if others else ""


def _name_passed_over(sequence: str, folder: Path) -> None:
    """Warn of files that have another name than masks have: masks of the other truth, or none, stand for them."""
    for kind in _TRUTHS:
        place = folder / f"{sequence}_{kind}" / "SEG"
        if odd := _misnamed(place, _MASK, "man_seg000.tif"):
            tell_once(logging.WARNING, f"{place}: masks are passed over{odd}; rename them, or move them away")


def _read_gold(gold: Path, silver: Path, stem: str, lacking: str, _size_yx: tuple[int, int]) -> Labels:
    """Read gold truth, and treat what silver truth shows beyond it as ``lacking`` says."""
    values, computed = read_array(gold), read_array(silver)
    if computed.shape != values.shape:
        raise MaskMismatch(f"{silver} has shape {computed.shape}, {gold} has {values.shape}; expected the same")
    values, computed = whole_numbers(values, str(gold)), whole_numbers(computed, str(silver))
    lacked = lacked_objects(values, computed)
    if not lacked:
        return Labels(values)
    beyond = np.isin(computed, lacked) & (values == 0)
    lack = counted(len(lacked), "object")
    _log.info("%s: gold truth lacks %s of silver truth: taken as %s", stem, lack, _WORDS[lacking])
    if lacking == "ignore":
        return Labels(values, beyond)
    completed = values.astype(np.int64)
    completed[beyond] = computed[beyond].astype(np.int64) + int(values.max())
    return Labels(completed.astype(np.int32))


def lacked_objects(gold_yx: NDArray[Any], silver_yx: NDArray[Any]) -> list[int]:
    """Numbers of the silver objects that lie by more than half of their pixels on gold background."""
    numbers, index = np.unique(silver_yx, return_inverse=True)
    areas = np.bincount(index.ravel(), minlength=numbers.size)
    on_background = np.bincount(index.ravel(), weights=(gold_yx == 0).ravel(), minlength=numbers.size)
    return [int(number) for number in numbers[(numbers > 0) & (2 * on_background > areas)]]
