"""``unet-service models``: list the model packages."""

from __future__ import annotations

import argparse
import sys

from model.errors import ModelError
from model.package import read_package
from service.client import Client
from service.commands.common import add_local_options, fail, say, table
from service.engine.finding import find_packages, missing_folders, none_in, package_folders
from service.engine.loading import unforeseen
from service.settings import Settings


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    parser = commands.add_parser("models", help="list the model packages")
    parser.add_argument("--url", help="those of this server; UNET_API_KEY holds its key, if any")
    add_local_options(parser)
    parser.set_defaults(run=run, defaults={})


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Print a table; exit status 1 where a package is not served."""
    rows: list[tuple[str, ...]] = [("MODEL", "CHANNELS", "CLASSES", "TITLE")]
    refused: dict[str, str] = {}
    served: dict[str, str] = {}
    if options.url is not None:
        with Client(options.url) as client:
            listed = client.models()
        refused = listed["refused"]
        rows += [
            (f"{m['name']}@{m['version']}", ",".join(m["channels"]), ",".join(m["classes"]), m["title"])
            for m in listed["models"]
        ]
    else:
        folders = package_folders(settings.models_dir)
        if not (packages := find_packages(folders)):
            return fail(f"no model package is there: {none_in(folders)}", 2)
        refused = missing_folders(folders)
        for name, path in packages.items():
            try:
                package = read_package(path)
                package.check_files()
            except ModelError as error:
                refused[name] = str(error)
                continue
            except Exception as error:
                refused[name] = unforeseen(error)
                continue
            spec = package.spec
            if spec.reference in served:
                refused[name] = f"{spec.reference} is served from {served[spec.reference]} already"
            else:
                served[spec.reference] = name
                rows.append((spec.reference, ",".join(spec.channels), ",".join(spec.classes), spec.title))
    for line in table(rows):
        say(line)
    for name, reason in refused.items():
        say(f"{name} is not served: {reason}", sys.stderr)
    return 1 if refused else 0
