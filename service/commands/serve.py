"""``unet-service serve``: answer over HTTP."""

from __future__ import annotations

import argparse
import logging
import os

from service import server
from service.settings import Settings, add_options, unknown_variables
from service.telemetry import configure_logging


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = "Serve until SIGTERM."
    add_options(parser)
    parser.set_defaults(run=run, defaults={})


def run(settings: Settings, _: argparse.Namespace) -> int:
    """Serve until SIGTERM."""
    configure_logging(settings.log_level, settings.log_format)
    for warning in unknown_variables(os.environ):
        logging.getLogger("unet.settings").warning(warning)
    server.serve(settings)
    return 0
