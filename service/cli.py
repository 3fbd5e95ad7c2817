"""``unet-service``: serve, segment files, list packages, check one, show a plan, measure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from model.commands import add_commands
from service.interrupts import once_in_order, status_of

_COMMANDS = {
    "serve": "answer over HTTP",
    "segment": "segment image files",
    "describe": "say how results were made, and how to make them again",
    "models": "list the model packages",
    "check": "check a model package",
    "plan": "show how an image would be tiled, with time and memory",
    "bench": "measure speed and latency on this machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 something failed, 2 wrongly called."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(given).parse_args(given)
    from service.commands.common import fail
    from service.settings import load_settings

    with once_in_order(terminable=options.command != "serve"):  # a server drains
        try:
            settings = load_settings({**options.defaults, **vars(options)})
            status: int = options.run(settings, options)
        except KeyboardInterrupt as end:
            return fail("interrupted", status_of(end))
        except Exception as error:
            expected = _status_of(error)
            if expected is None:
                raise
            return fail(str(error), expected)
        return status


def _status_of(error: Exception) -> int | None:
    """Exit status of a command that failed for a reason that its message tells; None for a fault of the program."""
    from model.errors import ModelError
    from model.images import FormatError
    from service.batch.images import NoImages
    from service.batch.ledger import NoRoomForResults
    from service.batch.shard import BadShard
    from service.batch.targets import BadTarget
    from service.client import ServiceProblem, ServiceUnreachable
    from service.engine.errors import EngineError
    from service.request_errors import InvalidParameter
    from service.server import CannotListen
    from service.settings import InvalidSettings

    if isinstance(error, InvalidSettings | InvalidParameter | FormatError | NoImages | BadTarget | BadShard):
        return 2
    if isinstance(
        error, ServiceProblem | ServiceUnreachable | CannotListen | ModelError | EngineError | NoRoomForResults
    ):
        return 1
    return None


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unet-service", description="Segment microscopy images with U-Nets.")
    parser.add_argument("--version", action="version", version=f"unet-service {version('unet-service')}")
    add_commands(parser, "service.commands", _COMMANDS, given)
    return parser


if __name__ == "__main__":
    sys.exit(main())
