"""``unet-train preview``: show what a run will see, before hours are spent on it."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys

import numpy as np

from model.wording import counted
from training.data.datasets import load_for
from training.data.splits import split_for_run
from training.data.tiles import class_weights, require_tile
from training.errors import RecipeError
from training.paths import given_path
from training.recipe import Recipe, read_recipe, shipped_recipes
from training.report.charts import histogram, number
from training.report.facts import ImageFacts, cautions, class_shares, folder_facts
from training.report.page import Table, table_of, write_page
from training.report.pictures import FOUND, GRID, class_colour, css, png_bytes, viridis_stops
from training.report.preview import strip, view_tiles
from training.report.tile_facts import tile_cautions
from training.writing import replacing, require_folder

_log = logging.getLogger(__name__)
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--recipe", required=True, help=f"a TOML file, or one of: {', '.join(shipped_recipes())}")
    parser.add_argument("--data", type=given_path, required=True, metavar="DIR", help="folder of images and masks")
    parser.add_argument(
        "--out", type=given_path, required=True, metavar="DIR", help="folder for index.html and pictures"
    )
    parser.add_argument("--count", type=int, default=8, help="tiles to show (default: %(default)s)")
    parser.add_argument("--fold", metavar="K/N", help="validate on part K of N instead of the recipe's own split")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write ``index.html`` and one PNG a tile, and say what a person should look at.

    Raises
    ------
    RecipeError
        Where no tile is asked for, or one that the images cannot fill.
    Unwritable
        Where the folder to write is a file, or cannot be written.

    """
    require_folder(options.out)
    if options.count < 1:
        raise RecipeError(f"--count {options.count} shows nothing; ask for 1 tile or more")
    recipe = read_recipe(options.recipe).for_folder(options.data)
    if options.fold is not None:
        recipe = recipe.with_fold(options.fold)
    images = load_for(recipe, options.data)
    require_tile(images, recipe)
    training, _ = split_for_run(images, recipe.data, options.data)
    facts = folder_facts(images, recipe)
    wc = class_weights(training, recipe)
    tiles, highest_weight = view_tiles(training, recipe, wc, options.count)
    found = [*cautions(facts, recipe), *tile_cautions(training, recipe)]

    for tile in tiles:
        with replacing(options.out / f"tile-{tile.number:04d}.png") as file:
            file.write(png_bytes(strip(tile, highest_weight)))
    classes = [
        (name, css(class_colour(index)), share, weight)
        for index, (name, share, weight) in enumerate(
            zip(recipe.targets.classes, class_shares(training, recipe).tolist(), wc.tolist(), strict=True)
        )
    ]
    diameters = [diameter for fact in facts for diameter in fact.diameters_px]
    page = options.out / "index.html"
    write_page(
        page,
        "preview.html",
        recipe=recipe,
        data=options.data,
        command=_command(options),
        facts=facts,
        training=len(training),
        numbers=_numbers(facts, recipe),
        cautions=found,
        tiles=tiles,
        highest_weight=highest_weight,
        classes=classes,
        colours={"grid": css(GRID), "found": css(FOUND)},
        viridis=", ".join(viridis_stops()),
        class_table=table_of(
            [{"class": name, "share": share, "weight": float(weight)} for name, _, share, weight in classes],
            "Classes",
            sortable=False,
            bars=False,
        ),
        objects=len(diameters),
        object_table=_object_table(facts) if diameters else None,
        diameters=histogram(diameters, title="Diameter of the objects", x_label="px"),
        counts=histogram(
            [float(len(fact.diameters_px)) for fact in facts], title="Objects in an image", x_label="objects"
        ),
        image_table=_image_table(facts),
    )
    for caution in found:
        _log.warning("%s", caution)
    sys.stdout.write(f"{page}: {counted(len(tiles), 'tile')} of {counted(len(training), 'training image')}\n")


def _command(options: argparse.Namespace) -> str:
    parts = ["unet-train", "preview", "--recipe", options.recipe, "--data", str(options.data), "--out"]
    parts += [str(options.out), "--count", str(options.count)]
    return shlex.join([*parts, "--fold", options.fold] if options.fold else parts)


def _numbers(facts: list[ImageFacts], recipe: Recipe) -> list[tuple[str, str, str]]:
    """What stands in large figures on top: name, value, unit."""
    heights, widths = zip(*(fact.size_yx for fact in facts), strict=True)
    size = " × ".join(_range(sides) for sides in (heights, widths))  # noqa: RUF001 - the sign that it is
    diameters = [diameter for fact in facts for diameter in fact.diameters_px]
    dtypes = "/".join(sorted({fact.dtype for fact in facts}))
    return [
        ("Images", str(len(facts)), f"{sum(fact.validates for fact in facts)} validate"),
        ("Size", size, "px"),
        ("Grey values", f"{number(min(f.lowest for f in facts))} to {number(max(f.highest for f in facts))}", dtypes),
        ("Objects", str(len(diameters)), f"{len(diameters) / len(facts):.3g} an image"),
        ("Diameter, median", f"{np.median(diameters):.3g}" if diameters else "-", "px"),
        ("Tile", f"{recipe.tile_input_px} → {recipe.tile_output_px}", "px"),
    ]


def _range(values: tuple[int, ...]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)}-{max(values)}"


def _object_table(facts: list[ImageFacts]) -> Table:
    measures: dict[str, list[float]] = {
        "diameter in px": [diameter for fact in facts for diameter in fact.diameters_px],
        "objects in an image": [len(fact.diameters_px) for fact in facts],
    }
    rows = [
        {"": name}
        | {
            {0: "least", 50: "median", 100: "most"}.get(at, f"{at} %"): float(f"{np.percentile(values, at):.4g}")
            for at in _PERCENTILES
        }
        for name, values in measures.items()
    ]
    return table_of(rows, "Objects: percentiles", sortable=False)


def _image_table(facts: list[ImageFacts]) -> Table:
    rows = [
        {
            "image": fact.stem,
            "used for": "validation" if fact.validates else "training",
            "height": fact.size_yx[0],
            "width": fact.size_yx[1],
            "channels": fact.channels,
            "stored as": fact.dtype,
            "lowest": fact.lowest,
            "highest": fact.highest,
            "at highest": fact.at_highest,
            "annotated": fact.annotated,
            "foreground": fact.foreground,
            "objects": len(fact.diameters_px),
            "median diameter": float(np.median(fact.diameters_px)) if fact.diameters_px else None,
            "longest side": fact.longest_px,
        }
        for fact in facts
    ]
    return table_of(rows, f"{counted(len(facts), 'image')}; lengths in pixels")
