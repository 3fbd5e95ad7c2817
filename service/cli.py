"""``unet-service``: serve, segment files, list packages, check one."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from model.errors import ModelError
from model.package import read_package
from model.session import SessionOptions
from service import batch
from service.api.parameters import SegmentParameters, combined
from service.client import Client, ServiceProblem, ServiceUnreachable
from service.engine.registry import ZOO, find_packages, load_model
from service.engine.request import SegmentRequest
from service.engine.resources import available_cpus
from service.errors import InvalidParameter
from service.formats import FormatError, negotiate
from service.server import CannotListen, serve
from service.settings import InvalidSettings, Settings, add_options, load_settings, unknown_variables
from service.telemetry import configure_logging

_DAY_S = 86_400.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 something failed, 2 wrongly called."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings({**options.defaults, **vars(options)})
        status: int = options.run(settings, options)
    except (InvalidSettings, InvalidParameter, FormatError, batch.NoImages, batch.BadTarget) as error:
        return _fail(str(error), 2)
    except (ServiceProblem, ServiceUnreachable, CannotListen) as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unet-service", description="Segment microscopy images with U-Nets.")
    parser.add_argument("--version", action="version", version=f"unet-service {version('unet-service')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("serve", help="answer over HTTP", description="Serve until SIGTERM.")
    add_options(command)
    command.set_defaults(run=_serve, defaults={})

    command = commands.add_parser(
        "segment",
        help="segment image files",
        description="Segment files in this process, or on a server with --url. Goes on after a bad file.",
    )
    command.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or pattern")
    command.add_argument("-o", "--out", required=True, type=Path, help="result file (one image) or folder")
    command.add_argument("--url", help="segment on this server")
    for name, field in SegmentParameters.model_fields.items():
        if name not in ("pixel_size", "timeout"):
            text = (field.description or "").replace("`", "")
            command.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text)
    _add_local_options(command)
    # nobody else waits: one image may take as long as it takes
    command.set_defaults(run=_segment, defaults={"deadline_s": _DAY_S, "max_backlog_s": _DAY_S})

    command = commands.add_parser("models", help="list the model packages")
    command.add_argument("--url", help="those of this server")
    _add_local_options(command)
    command.set_defaults(run=_models, defaults={})

    command = commands.add_parser(
        "check",
        help="check a model package",
        description="Read a package, check its hashes, run its test input; exit status 1 where it would not be served.",
    )
    command.add_argument("package", type=Path, metavar="PACKAGE", help="folder or zip")
    _add_local_options(command)
    command.set_defaults(run=_check, defaults={})
    return parser


def _add_local_options(command: argparse.ArgumentParser) -> None:
    for name in ("models_dir", "backend"):
        text = Settings.model_fields[name].description
        command.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", default=argparse.SUPPRESS, help=text
        )


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    configure_logging(settings.log_level, settings.log_format)
    for warning in unknown_variables(os.environ):
        logging.getLogger("unet.settings").warning(warning)
    serve(settings)
    return 0


def _segment(settings: Settings, options: argparse.Namespace) -> int:
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
        _say(f"{image}: {reason}", sys.stderr)
    if failures:
        return _fail(f"{len(failures)} of {len(work)} images failed", 1)
    _say(f"wrote {work[0].target}" if len(work) == 1 else f"wrote {len(work)} results to {options.out}")
    return 0


def _models(settings: Settings, options: argparse.Namespace) -> int:
    rows = [("MODEL", "CHANNELS", "CLASSES", "TITLE")]
    refused: dict[str, str] = {}
    if options.url:
        with Client(options.url) as client:
            listed = client.models()
        refused = listed["refused"]
        rows += [
            (f"{m['name']}@{m['version']}", ",".join(m["channels"]), ",".join(m["classes"]), m["title"])
            for m in listed["models"]
        ]
    else:
        folder = settings.models_dir or ZOO
        if not (packages := find_packages(folder)):
            found = "holds no model package" if folder.is_dir() else "is no folder"
            return _fail(f"{str(folder)!r} {found}; name a folder of packages (--models-dir, UNET_MODELS_DIR)", 2)
        for path in packages:
            try:
                spec = read_package(path).spec
            except ModelError as error:
                refused[path.name] = str(error)
            else:
                rows.append((spec.reference, ",".join(spec.channels), ",".join(spec.classes), spec.title))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        _say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for name, reason in refused.items():
        _say(f"{name} is not served: {reason}", sys.stderr)
    return 1 if refused else 0


def _check(settings: Settings, options: argparse.Namespace) -> int:
    configure_logging("warning", "text")
    session = SessionOptions(settings.backend, settings.require_gpu, settings.threads or available_cpus())
    try:
        found = load_model(options.package, session, settings.memory_budget_mb << 20)
    except ModelError as error:
        return _fail(f"refused: {error}", 1)
    spec, geometry = found.package.spec, found.package.spec.geometry
    _say(f"{spec.reference}: {spec.title}")
    _say(f"  channels   {', '.join(spec.channels)}")
    _say(f"  classes    {', '.join(spec.classes)}")
    _say(f"  weights    sha256 {found.sha256}")
    _say(f"  geometry   input {geometry.y.minimum} + k * {geometry.y.step} px, output {geometry.y.shrink} px less")
    _say(f"  provider   {found.session.provider}")
    _say(f"  self-test  largest difference {found.self_test_difference:.2g}")
    _say(f"  speed      {found.throughput.pixels_per_second / 1e6:.2f} Mpx/s")
    return 0


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(text + "\n")


def _fail(text: str, status: int) -> int:
    _say(f"unet-service: {text}", sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
