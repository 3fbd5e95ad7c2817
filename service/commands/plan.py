"""``unet-service plan``: how an image would be cut into tiles on this machine, and what that would take."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any, get_args

from model.planner import Choice, Planner, batch_room
from model.session import activation_bytes_per_pixel
from model.tiling import plan_whole, plan_with_stride
from model.views import mirrored_views, planner_of_views
from model.wording import counted
from service.api.pairs import parse_size
from service.api.parameters import SegmentParameters, combined
from service.commands.common import add_local_options, say, table
from service.engine.admission.series import SINGLE
from service.engine.images.scaling import AUTO, check_scale, scaled_size
from service.engine.options import budget_of, plan_limits, session_options
from service.engine.packages.finding import locate_package
from service.engine.packages.loading import LoadedModel, load_model
from service.engine.packages.machine import this_machine
from service.engine.packages.planning import PlanLimits, most_batch_pixels
from service.engine.request import SegmentRequest
from service.engine.stages.forecast import imagined, usual_part_bytes
from service.engine.stages.needs import Needs, needs
from service.engine.stages.scale_search import search_of
from service.formats import OutputKind
from service.request_errors import InvalidParameter
from service.settings import Settings
from service.telemetry import configure_logging

_CALIBRATION_S = 5.0  # nobody waits for readiness here
_ALTERNATIVES = 4
_PAPER_STRIDE_PX = 384  # of the paper's 388 px of output: its 572 px tile, on the pooling grid


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Show the tiles for an image size on this machine, with the time and memory expected, and the "
        "plans that were weighed against it. Measures the net first, where no earlier start has."
    )
    parser.add_argument("size", type=_size, metavar="HEIGHTxWIDTH", help="of the image, px: 4096x4096")
    parser.add_argument("--model", metavar="NAME", help="name or name@version; the default model where not given")
    parser.add_argument("--mirror", action="store_true", help="for the mean of all mirrored and turned views")
    parser.add_argument(
        "--scale",
        metavar="SCALE",
        help=f"for the image resampled by this number; {AUTO} counts the search of the scale that an image without "
        "pixel sizes needs, and the plan is for scale 1",
    )
    parser.add_argument("--output", choices=get_args(OutputKind), default="mask", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_local_options(parser, "memory_budget_mb", "tile_ms", "cache_dir")
    parser.set_defaults(run=run, defaults={})


def _size(text: str) -> tuple[int, int]:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Print the plan for one image size."""
    configure_logging("warning", "text")
    size_yx: tuple[int, int] = options.size
    pixels = math.prod(size_yx)
    if pixels > settings.max_pixels:
        raise InvalidParameter(
            f"{size_yx[0]} x {size_yx[1]} = {pixels} pixels, the limit is {settings.max_pixels}; raise UNET_MAX_PIXELS"
        )
    given = {"output": options.output, "mirror": str(options.mirror).lower(), "scale": options.scale or ""}
    request = combined(SegmentParameters(), given).request("tiff")
    check_scale(size_yx, request.scale, settings.max_pixels)
    budget = budget_of(settings)
    limits = plan_limits(settings, budget)
    path = locate_package(settings.models_dir, options.model or settings.default_model)
    loaded = load_model(path, session_options(settings, budget), limits, _CALIBRATION_S)
    most = Needs(budget.images, settings.spool_limit_mb << 20)
    report = describe(loaded, limits, size_yx, request, most)
    if options.json:
        say(json.dumps(report, indent=2))
    else:
        for line in _lines(report):
            say(line)
    return 0


def describe(
    loaded: LoadedModel, limits: PlanLimits, size_yx: tuple[int, int], request: SegmentRequest, most: Needs
) -> dict[str, Any]:
    """Return the plan for one image size and what it was weighed against, fit for JSON.

    Parameters
    ----------
    loaded, limits
        The package, and what plans keep within.
    size_yx
        Of a 16 bit image, px.
    request
        What is wanted of it.
    most
        What there is for images and results.

    """
    planner = planner_of_views(loaded.planner) if request.mirror else loaded.planner
    views = len(mirrored_views(loaded.planner.geometry)) if request.mirror else 1
    most_pixels = most_batch_pixels(loaded.session.backend, planner.max_tile_pixels)
    chosen = planner.expected(planner.plan(scaled_size(size_yx, request.scale)))

    def row(choice: Choice) -> dict[str, Any]:
        tile_pixels = math.prod(choice.plan.input_yx)
        batch = min(len(choice.plan) * views, batch_room(tile_pixels, limits.batch_tiles, most_pixels))
        return {
            "tiles": len(choice.plan) * views,
            "input_yx": list(choice.plan.input_yx),
            "stride_yx": list(choice.plan.stride_yx),
            "batch": batch,
            "tile_ms": round(choice.tile_seconds * 1000, 2),
            "seconds": round(choice.seconds * views, 4),
            "memory_bytes": batch * tile_pixels * activation_bytes_per_pixel(loaded.package.spec, loaded.session),
            "notes": _notes(planner, choice, chosen),
        }

    spec = loaded.package.spec
    header = imagined(size_yx, 1, len(spec.channels))
    part_bytes = usual_part_bytes(header)
    rooms = [needs(header, spec, [request], part_bytes, most)]
    search: dict[str, Any] | None = None
    if request.auto_scale:
        crops, _, asked = search_of(header, request, loaded, part_bytes, math.inf, most=most, series=SINGLE)
        rooms.append(asked.room)
        tried = [loaded.planner.expected(crop.plan.tiles) for crop in crops]
        search = {
            "tiles": sum(len(choice.plan) for choice in tried),
            "seconds": round(sum(choice.seconds for choice in tried), 4),
        }
    return {
        "model": spec.reference,
        "backend": loaded.session.backend,
        "provider": loaded.session.provider,
        "precision": loaded.session.precision,
        "machine": this_machine().as_json(),
        "image": {
            "size_yx": list(size_yx),
            "views": views,
            "scale": request.scale or 1.0,
            "pixels_per_second": round(math.prod(size_yx) / (chosen.seconds * views)),
            "output": request.output,
            "finishing_seconds": round(loaded.finishing.seconds(request, math.prod(size_yx)), 4),
            "memory_bytes": max(room.memory_bytes for room in rooms),
            "disk_bytes": max(room.disk_bytes for room in rooms),
        },
        "search": search,
        "limits": {
            "tile_pixels": planner.max_tile_pixels,
            "tile_memory_bytes": limits.tile_memory_bytes,
            "tile_ms": None if math.isinf(planner.tile_seconds) else planner.tile_seconds * 1000,
        },
        "plan": row(chosen),
        "alternatives": [row(choice) for choice in _alternatives(planner, chosen)],
    }


def _alternatives(planner: Planner, chosen: Choice) -> list[Choice]:
    """The fastest others within memory, the paper's tile, and the whole image at once."""
    size_yx = chosen.plan.size_yx
    others = planner.choices(size_yx, _ALTERNATIVES + 1)
    geometry = planner.geometry
    if planner.shapes is None and geometry.y.step and geometry.x.step:
        others.append(planner.expected(plan_whole(size_yx, geometry)))
        if _PAPER_STRIDE_PX % geometry.y.grid == _PAPER_STRIDE_PX % geometry.x.grid == 0:
            others.append(planner.expected(plan_with_stride(size_yx, geometry, (_PAPER_STRIDE_PX, _PAPER_STRIDE_PX))))
    distinct = {choice.plan.stride_yx: choice for choice in others if choice.plan.stride_yx != chosen.plan.stride_yx}
    return sorted(distinct.values(), key=lambda choice: choice.seconds)


def _notes(planner: Planner, choice: Choice, chosen: Choice) -> list[str]:
    notes = ["chosen"] if choice.plan == chosen.plan else []
    if len(choice.plan) == 1:
        notes.append("the whole image at once")
    if math.prod(choice.plan.input_yx) > planner.max_tile_pixels:
        notes.append("beyond the memory budget")
    if choice.tile_seconds > planner.tile_seconds:
        notes.append(f"a tile takes longer than {planner.tile_seconds * 1000:g} ms")
    return notes


def _lines(report: dict[str, Any]) -> list[str]:
    plan, image, limits = report["plan"], report["image"], report["limits"]
    machine = this_machine()
    tile_ms = "no limit" if limits["tile_ms"] is None else f"{limits['tile_ms']:g} ms where it costs little"
    header: tuple[str, ...] = ("TILES", "INPUT", "STRIDE", "TILE MS", "SECONDS", "MEMORY MB", "")
    rows = [header, *(_cells(row) for row in (plan, *report["alternatives"]))]
    return [
        f"{report['model']} on {report['provider']} in {report['precision']}",
        f"machine   {machine}",
        f"image     {image['size_yx'][0]} rows x {image['size_yx'][1]} columns"
        + (f", {image['views']} views of it" if image["views"] > 1 else "")
        + (f", at scale {image['scale']:g}" if image["scale"] != 1 else ""),
        f"plan      {counted(plan['tiles'], 'tile')} of {_shape(plan['input_yx'])} px, "
        f"{_shape(plan['stride_yx'])} px apart, {plan['batch']} at a time",
        f"expected  {plan['seconds']:.3g} s, {image['pixels_per_second'] / 1e6:.3g} Mpx/s; {plan['tile_ms']:.3g} ms a "
        f"tile; {plan['memory_bytes'] / 1e6:.0f} MB while the net runs",
        *_search_lines(report["search"]),
        f"beside it {image['finishing_seconds']:.2g} s or so to read, finish and write, "
        f"{image['memory_bytes'] / 1e6:.0f} MB for a 16-bit image and its {image['output']}"
        + (f", and {image['disk_bytes'] / 1e6:.0f} MB on disk" if image["disk_bytes"] else ""),
        f"limits    {limits['tile_memory_bytes'] / 1e6:.0f} MB and {limits['tile_pixels']} pixels a tile; {tile_ms}",
        "",
        *table(rows),
    ]


def _search_lines(search: dict[str, Any] | None) -> list[str]:
    if search is None:
        return []
    return [
        f"search    {counted(search['tiles'], 'tile')} before it, {search['seconds']:.3g} s, to find the scale; "
        "the plan is for scale 1, half of it takes a quarter of the time"
    ]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["tiles"]),
        _shape(row["input_yx"]),
        _shape(row["stride_yx"]),
        f"{row['tile_ms']:.0f}",
        f"{row['seconds']:.2f}",
        f"{row['memory_bytes'] / 1e6:.0f}",
        ", ".join(row["notes"]),
    )


def _shape(pair: list[int]) -> str:
    return f"{pair[0]} x {pair[1]}"
