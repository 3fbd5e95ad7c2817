"""``unet-service segment``: segment files in this process, or on a server."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import AbstractContextManager, closing
from pathlib import Path
from tempfile import TemporaryFile

from model.wording import counted
from service.api.parameters import SegmentParameters, combined
from service.batch.failures import lists
from service.batch.files import write_alone
from service.batch.images import find_images
from service.batch.ledger import Ledger, NoRoomForResults
from service.batch.progress import Progress
from service.batch.receipts import made_by_any
from service.batch.segmenters import Segmenter, by_server, in_process, notes_of
from service.batch.shard import WHOLE, parse_shard
from service.batch.targets import OME_ZARR, BadTarget, Work, check_case, choose_format, is_file_name, plan
from service.batch.work import (
    NOT_REPLACED,
    Failure,
    Finish,
    Notes,
    Tally,
    as_answered,
    failure_of,
    folder_failure,
    left_to_do,
    nowhere_failure,
    segment_all,
    size_bytes,
)
from service.batch.zarr_labels import ANSWER_FORMAT, as_store, check_alone, check_writable
from service.batch.zarr_labels import write_alone as write_store
from service.client import ServiceGone
from service.commands.common import UNHURRIED, add_local_options, fail, say, shown
from service.formats import ENCODERS, FORMAT_OF_MEDIA
from service.formats.negotiate import choose_format as negotiated
from service.interrupts import status_of
from service.settings import Settings
from service.telemetry import configure_logging

_IN_FLIGHT = {"here": 2, "server": 4}
_SHOWN_FAILURES = 20
_FIGURES = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_SHOWN_LEFT_OUT = 3


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Segment files in this process, or on a server with --url. Goes on after a bad file; called again, "
        "does what is left. Exit status 1 where an image failed: FOLDER/failures.json lists them."
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="file, folder or pattern ('plates/**/*.tif')")
    parser.add_argument("--list", metavar="FILE", dest="listed", help="images, one path on each line; - for stdin")
    parser.add_argument("-o", "--out", required=True, type=Path, help="result file (one image) or folder")
    parser.add_argument("--url", help="segment on this server; UNET_API_KEY holds its key, if any")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="only share I, from 0, of N; auto in a SLURM array, auto/N in a Kubernetes Indexed Job",
    )
    parser.add_argument(
        "--in-flight", type=int, metavar="N", help="images at a time (default: 2, with --url 4; a fleet takes more)"
    )
    parser.add_argument("--redo", action="store_true", help="do again what is finished")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results that were changed, and files not made here"
    )
    for name, field in SegmentParameters.model_fields.items():
        if name != "timeout":  # nobody waits, so it could only make images fail
            text = (field.description or "").replace("`", "")
            if name == "format":
                text += f" Here also {OME_ZARR}: a label image in OME-Zarr."
            flag = f"--{name.replace('_', '-')}"
            if field.annotation is bool:
                parser.add_argument(flag, action="store_const", const="true", help=text)
            else:
                parser.add_argument(flag, metavar="VALUE", help=text)
    add_local_options(parser, "threads", "memory_budget_mb", "cache_dir")
    # nobody else waits: one image may take as long as it takes
    parser.set_defaults(run=run, defaults={**UNHURRIED, "tile_ms": 0.0})


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Segment files; exit status 1 where one failed."""
    configure_logging("warning", "text")
    texts = {name: str(value) for name, value in vars(options).items() if name in SegmentParameters.model_fields}
    given = {name: text for name, text in texts.items() if getattr(options, name) is not None}
    parameters = combined(SegmentParameters(), given)
    in_flight = (
        options.in_flight if options.in_flight is not None else _IN_FLIGHT["here" if options.url is None else "server"]
    )
    if in_flight < 1:
        return fail(f"--in-flight is {in_flight}; use a number above 0", 2)
    if not options.images and not options.listed:
        return fail("there is nothing to segment; name files, folders or patterns, or give --list FILE", 2)
    if parameters.respond_async and options.url is None:
        return fail("--respond-async is for a server, which works on a job of it; give --url, or leave it out", 2)
    shard = parse_shard(options.shard, os.environ) if options.shard else WHOLE
    out, made = options.out.absolute(), made_by_any()
    found = find_images(
        options.images, options.listed, lambda file: file.absolute().is_relative_to(out) or made(file), out
    )
    single = is_file_name(found, options.out)
    asked = choose_format(options.out, parameters.output, parameters.format, single=single)
    format_name = negotiated(None, asked, [*ENCODERS, OME_ZARR], FORMAT_OF_MEDIA)
    store = format_name == OME_ZARR
    if store:
        check_writable(parameters.output)
        if single:
            check_alone(options.out)
    request = parameters.request(ANSWER_FORMAT if store else format_name)
    ledger = Ledger(options.out, shard, overwrite=options.overwrite)
    receipts = ledger.receipts
    work = plan(found.images, options.out, parameters.output, format_name, receipts, single=single)
    others = [path for path in found.like_results if not receipts.made(path)]
    _say_some("left out, called as results are", others, "; name them one by one or in a --list")
    own_lists = lists(out).values()
    inside = [path for path in found.in_results if not receipts.made(path) and path.absolute() not in own_lists]
    _say_some("left out, in the folder of results", inside, "; name them one by one or in a --list")
    _say_some("left out, links to folders that are looked into otherwise", found.links)
    opened = (
        in_process(settings, request)
        if options.url is None
        else by_server(options.url, request, _say_aside, as_jobs=parameters.respond_async)
    )
    astray = [
        *(folder_failure(error) for error in found.unreadable),
        *map(nowhere_failure, found.nowhere),
    ]
    if not single:
        finish = as_store if store else as_answered
        return _folder(work, astray, ledger, opened, in_flight, redo=options.redo, finish=finish)
    if shard.count > 1:
        raise BadTarget(f"{str(options.out)!r} is one file, --shard is {shard}; name a folder for the results")
    for failure in astray:
        _say_failure(failure)
    return _single(work[0], opened, store=store) or int(bool(astray))


def _single(item: Work, opened: AbstractContextManager[Segmenter], *, store: bool) -> int:
    """One image to one file, every time anew."""
    with opened as segmenter, TemporaryFile() as result:
        try:
            receipt = segmenter.segment(item.source, result)
            result.seek(0)
            if store:
                write_store(item, result, receipt)
            else:
                write_alone(item.target, result)
        except KeyboardInterrupt as end:
            return fail(
                f"interrupted; {shown(item.target)} is not written, the same command begins anew", status_of(end)
            )
        except Exception as error:
            return fail(f"{shown(item.source)}: {failure_of(item.source, error).message}", 1)
    _say_notes({note: [item.source] for note in notes_of(receipt)})
    say(f"wrote {shown(item.target)}")
    return 0


def _say_aside(text: str) -> None:
    say(text, sys.stderr)


def _say_failure(failure: Failure) -> None:
    _say_aside(f"{shown(failure.image)}: {failure.message}")


def _say_notes(notes: Notes) -> None:
    """What receipts note of images, those of most images first; notes that differ in their figures count as one."""
    kinds: dict[str, Notes] = {}
    for note, images in notes.items():
        kinds.setdefault(_FIGURES.sub("0", note), {})[note] = images
    for kind in sorted(kinds.values(), key=lambda kind: -sum(map(len, kind.values()))):
        (first, note), *others = sorted((image, note) for note, images in kind.items() for image in images)
        more = f" and {len(others)} more" if others else ""
        differ = ", with other figures" if len(kind) > 1 else ""
        _say_aside(f"note on {shown(first)}{more}{differ}: {note}")


def _say_some(what: str, files: list[Path], remedy: str = "") -> None:
    if files:
        some = ", ".join(shown(file) for file in files[:_SHOWN_LEFT_OUT])
        more = f" and {len(files) - _SHOWN_LEFT_OUT} more" if len(files) > _SHOWN_LEFT_OUT else ""
        _say_aside(f"{what}: {some}{more}{remedy}")


def _folder(
    work: list[Work],
    astray: list[Failure],
    ledger: Ledger,
    opened: AbstractContextManager[Segmenter],
    in_flight: int,
    *,
    redo: bool,
    finish: Finish,
) -> int:
    """A share of images to a folder, but for those that are finished; what was named and leads nowhere fails, too."""
    share = "" if ledger.shard == WHOLE else f"shard {ledger.shard}: "
    end: KeyboardInterrupt | ServiceGone | NoRoomForResults | None = None
    report: Path | None = None
    mine = [item for item in work if ledger.shard.takes(item.image.name)]
    with ledger.opened(_say_aside) as interrupted, opened as segmenter:
        check_case(work, ledger.receipts.folder)
        todo, corrected = (mine, 0) if redo else left_to_do(mine, ledger, segmenter.identity, interrupted)
        tally = Tally(Progress(len(todo), sum(size_bytes(item) for item in todo)))
        try:
            with closing(tally.progress):
                segment_all(todo, segmenter, ledger, in_flight, tally, finish=finish)
        except (KeyboardInterrupt, ServiceGone, NoRoomForResults) as early:
            end = early
        # many results may be spared each night: what failed for another reason comes first
        failed = sorted(tally.failures, key=lambda failure: (failure.type == NOT_REPLACED, failure.image))
        failures = [*astray, *failed]
        left = {item.source for item in todo} - set(tally.images)
        try:
            report = ledger.report(
                [failure.as_json() for failure in failures], [item.source for item in mine if item.source not in left]
            )
        except NoRoomForResults:
            if end is None:
                raise
    if end is None:
        _say_notes(tally.notes)
    for failure in failures[:_SHOWN_FAILURES]:
        _say_failure(failure)
    lists_them = f"{shown(report)} lists them" if report else "no room is left for a list of them"
    if end is not None:
        some = f"; {len(failures)} failed, {lists_them}" if failures else ""
        return _ended(end, share, tally.progress.counts(), some, redo=redo)
    there = len(mine) - len(todo)
    before = f", {there} {'was' if there == 1 else 'were'} there" if there else ""
    before += f", {corrected} of them changed since they were made" if corrected else ""
    say(f"{share}wrote {counted(len(todo) - len(failed), 'result')} to {shown(ledger.out)}{before}")
    if failures:
        what = [f"{len(failed)} of {counted(len(mine), 'image')} failed"] if failed else []
        if kept := sum(failure.type == NOT_REPLACED for failure in failed):
            what[0] += f", {kept} of them so as not to replace what was changed, not made here or of another image"
        if astray:
            names = "folder or name leads" if len(astray) == 1 else "folders or names lead"
            what.append(f"{len(astray)} {names} to no image")
        return fail(f"{share}{' and '.join(what)}; {lists_them}", 1)
    return 0


def _ended(
    end: KeyboardInterrupt | ServiceGone | NoRoomForResults, share: str, counts: str, failures: str, *, redo: bool
) -> int:
    """Say why a batch has ended before its last image; returns the exit status."""
    how = f"the same command {'begins anew' if redo else 'goes on with the rest'}{failures}"
    if isinstance(end, KeyboardInterrupt):
        return fail(f"{share}interrupted after {counts}; {how}", status_of(end))
    return fail(f"{share}{end}; it ended after {counts}; {how}", 1)
