"""``unet-service describe``: in words, how results were made, and the command that makes them again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model.errors import ModelError
from model.package import read_package
from model.spec import Citation
from service.batch.described import receipts_of
from service.commands.common import add_local_options, fail, say, shown
from service.engine.packages.finding import find_packages, package_folders
from service.methods import Made, made_alike
from service.settings import Settings

_UNET = Citation(
    text="Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation (2015)",
    doi="10.1007/978-3-319-24574-4_28",
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Say how results were made: a paragraph for the methods of a paper, the command that makes them again, what to "
        "cite, and what to know of them. Exit status 1 where one has no receipt."
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="result, or folder of results")
    add_local_options(parser)
    parser.set_defaults(run=run, defaults={})


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Describe all results, those that were made alike together."""
    receipts, without = [], []
    for given in options.results:
        try:
            found = list(receipts_of(given))
        except OSError as error:
            without.append(f"{shown(given)} cannot be read: {error.strerror or error}")
            continue
        receipts += [receipt for _, receipt in found if receipt is not None]
        without += [
            f"{shown(path)} has no receipt: PNG, TIFF, JSON and GeoJSON files that the service made have one, and all "
            "results in a folder that unet-service segment filled"
            for path, receipt in found
            if receipt is None
        ]
    for number, made in enumerate(made_alike(receipts)):
        if number:
            say("")
        say(made.summary())
        say(f"\n{made.paragraph()}\n\nAgain: {made.command()}")
        for citation in _citations(settings, made):
            say(f"Cite:  {_line(citation)}")
        for note in made.notes():
            say(f"Note:  {note}")
    for line in without:
        say(f"unet-service: {line}", sys.stderr)
    if not receipts:
        return fail("there is nothing to describe", 1)
    return 1 if without else 0


def _citations(settings: Settings, made: Made) -> list[Citation]:
    """What the package names, where it is at hand as it was; else the paper."""
    for path in find_packages(package_folders(settings.models_dir)).values():
        try:
            package = read_package(path)
        except (ModelError, OSError):
            continue
        if package.sha256 == made.model.get("sha256") and package.spec.cite:
            return list(package.spec.cite)
    return [_UNET]


def _line(citation: Citation) -> str:
    where = f"doi:{citation.doi}" if citation.doi else citation.url
    return f"{citation.text}, {where}" if where else citation.text
