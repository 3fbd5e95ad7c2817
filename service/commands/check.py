"""``unet-service check``: would a package be served, and if not, why."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.channels import in_words
from service.commands.common import add_local_options, fail, say
from service.engine.options import budget_of, plan_limits, session_options
from service.engine.packages.loading import load_model, refusal_of
from service.settings import Settings
from service.telemetry import configure_logging


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Read a package, check its hashes, run its test input; exit status 1 where it would not be served."
    )
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="folder or zip")
    add_local_options(parser)
    parser.set_defaults(run=run, defaults={})


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Check one package and say what it is; exit status 1 where it would not be served."""
    configure_logging("warning", "text")
    budget = budget_of(settings)
    try:
        found = load_model(options.package, session_options(settings, budget), plan_limits(settings, budget))
    except Exception as error:
        return fail(f"refused: {refusal_of(error)}", 1)
    spec, geometry = found.package.spec, found.package.spec.geometry
    say(f"{spec.reference}: {spec.title}")
    say(f"  channels   {', '.join(spec.channels)}")
    say(f"  classes    {', '.join(spec.classes)}")
    whose = "of the package" if spec.label_rule_note is None else "of the channels' names; the package has none"
    say(f"  labels     {in_words(spec.label_rule, spec.classes)} (rule {whose})")
    say(f"  weights    sha256 {found.sha256}")
    say(f"  geometry   input {geometry.y.minimum} + k * {geometry.y.step} px, output {geometry.y.shrink} px less")
    say(f"  provider   {found.session.provider}")
    say(f"  precision  {found.session.precision}" + (f": {found.agreement}" if found.agreement else ""))
    say(f"  self-test  largest difference {found.self_test_difference:.2g}")
    say(f"  speed      {found.throughput.pixels_per_second / 1e6:.2f} Mpx/s")
    return 0
