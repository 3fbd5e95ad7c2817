"""``unet-service models``: list the model packages."""

from __future__ import annotations

import argparse
import sys

from model.package import read_package
from model.spec import ModelSpec
from service.client import Client
from service.commands.common import add_local_options, fail, say, table
from service.engine.packages.finding import find_packages, missing_folders, none_in, package_folders, twins_among
from service.engine.packages.loading import refusal_of
from service.settings import Settings


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--url", help="those of this server; UNET_API_KEY holds its key, if any")
    add_local_options(parser)
    parser.set_defaults(run=run, defaults={})


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Print a table, if there is a row; exit status 1 where a package is not served, or not yet."""
    rows: list[tuple[str, ...]] = [("MODEL", "CHANNELS", "CLASSES", "TITLE")]
    refused: dict[str, str] = {}
    waits: list[str] = []
    if options.url is not None:
        with Client(options.url) as client:
            listed = client.models()
        refused = listed["refused"]
        # of services before they told of these there are none
        if loading := listed.get("loading"):
            waits.append(f"being loaded, or waiting for it: {', '.join(loading)}; ask again in a few seconds")
        elif not listed["models"] and not refused:
            waits.append(f"no model is served: {listed.get('problem') or 'GET /readyz says why'}")
        rows += [
            (f"{m['name']}@{m['version']}", ",".join(m["channels"]), ",".join(m["classes"]), m["title"])
            for m in listed["models"]
        ]
    else:
        folders = package_folders(settings.models_dir)
        if not (packages := find_packages(folders)):
            return fail(f"no model package is there: {none_in(folders)}", 2)
        refused = missing_folders(folders)
        found: dict[str, ModelSpec] = {}
        for name, path in packages.items():
            try:
                package = read_package(path)
                package.check_files()
            except Exception as error:
                refused[name] = refusal_of(error)
            else:
                found[name] = package.spec
        refused |= twins_among({name: spec.reference for name, spec in found.items()})
        rows += [
            (spec.reference, ",".join(spec.channels), ",".join(spec.classes), spec.title)
            for name, spec in found.items()
            if name not in refused
        ]
    for line in table(rows) if len(rows) > 1 else ():
        say(line)
    for name, reason in refused.items():
        say(f"{name} is not served: {reason}", sys.stderr)
    for line in waits:
        say(line, sys.stderr)
    if options.url is None:
        say("hashes were checked, no net was run: unet-service check PACKAGE runs a package's test input", sys.stderr)
    return 1 if refused or waits else 0
