"""``unet-service``: serve, segment files, list packages, check one, show a plan, measure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from model.errors import ModelError
from model.images import FormatError
from service.batch.images import NoImages
from service.batch.ledger import NoRoomForResults
from service.batch.shard import BadShard
from service.batch.targets import BadTarget
from service.client import ServiceProblem, ServiceUnreachable
from service.commands import bench, check, models, plan, segment, serve
from service.commands.common import fail
from service.engine.errors import EngineError
from service.interrupts import once_in_order, status_of
from service.request_errors import InvalidParameter
from service.server import CannotListen
from service.settings import InvalidSettings, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 something failed, 2 wrongly called."""
    options = _parser().parse_args(arguments)
    with once_in_order(terminable=options.run is not serve.run):  # a server drains
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        settings = load_settings({**options.defaults, **vars(options)})
        status: int = options.run(settings, options)
    except (InvalidSettings, InvalidParameter, FormatError, NoImages, BadTarget, BadShard) as error:
        return fail(str(error), 2)
    except (ServiceProblem, ServiceUnreachable, CannotListen, ModelError, EngineError, NoRoomForResults) as error:
        return fail(str(error), 1)
    except KeyboardInterrupt as end:
        return fail("interrupted", status_of(end))
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unet-service", description="Segment microscopy images with U-Nets.")
    parser.add_argument("--version", action="version", version=f"unet-service {version('unet-service')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, segment, models, check, plan, bench):
        command.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
