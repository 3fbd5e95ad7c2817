"""``unet-service segment``: segment files in this process, or on a server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from service import batch
from service.api.parameters import SegmentParameters, combined
from service.commands.common import add_local_options, fail, say
from service.engine.request import SegmentRequest
from service.formats import negotiate
from service.settings import Settings
from service.telemetry import configure_logging

_DAY_S = 86_400.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser(
        "segment",
        help="segment image files",
        description="Segment files in this process, or on a server with --url. Goes on after a bad file.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or pattern")
    parser.add_argument("-o", "--out", required=True, type=Path, help="result file (one image) or folder")
    parser.add_argument("--url", help="segment on this server")
    for name, field in SegmentParameters.model_fields.items():
        if name not in ("pixel_size", "timeout"):
            text = (field.description or "").replace("`", "")
            parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
    add_local_options(parser)
    # nobody else waits: one image may take as long as it takes
    parser.set_defaults(run=run, defaults={"deadline_s": _DAY_S, "max_backlog_s": _DAY_S, "tile_ms": 0.0})


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Segment files; exit status 1 where one failed."""
    configure_logging("warning", "text")
    texts = {name: str(value) for name, value in vars(options).items() if name in SegmentParameters.model_fields}
    given = {name: text for name, text in texts.items() if getattr(options, name) is not None}
    parameters = combined(SegmentParameters(), given)
    images = batch.find_images(options.images)
    format_name = negotiate(None, batch.choose_format(images, options.out, parameters.output, parameters.format))
    request = SegmentRequest(
        model=parameters.model,
        output=parameters.output,
        format=format_name,
        threshold=parameters.threshold,
        min_area=parameters.min_area,
        channel=parameters.channel,
    )
    work = batch.plan(images, options.out, parameters.output, format_name)
    opened = batch.by_server(options.url, request) if options.url else batch.in_process(settings, request)
    with opened as segment:
        failures = batch.run(work, segment)
    for image, reason in failures.items():
        say(f"{image}: {reason}", sys.stderr)
    if failures:
        return fail(f"{len(failures)} of {len(work)} images failed", 1)
    say(f"wrote {work[0].target}" if len(work) == 1 else f"wrote {len(work)} results to {options.out}")
    return 0
