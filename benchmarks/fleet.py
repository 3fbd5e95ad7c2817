"""What an autoscaled fleet does in a day: load, replicas, backlog, refusals, machine-hours.

    python -m benchmarks.fleet [--sweep] [--plots docs/images] [--trace cluster.csv] [--reach] [--json out.json]

``--sweep`` varies target, cool-down, minimum replicas and time to ready one at a time. ``--trace`` replays the load of
a real run and sets both side by side; the file has the columns ``t_s,replicas,backlog_s,accepted,refused,mpx``:
seconds, ready replicas, mean of ``unet_backlog_seconds`` over them, and since the start requests accepted, requests
refused, and the size of those accepted. ``--up`` and ``--down`` are the autoscaler's policies, such as
``100%/15,2/15``: at most that change in so many seconds, the wider counts. ``--reach`` says how far a fleet can grow
before something else is full.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass as checked

from benchmarks.fleet_autoscaler import Hpa, NotNegative, Policy, Positive
from benchmarks.fleet_load import MOST_IMAGES, Load, arrivals
from benchmarks.fleet_model import Fleet, Outcome, simulate
from benchmarks.fleet_trace import compare, read_trace, replay

_SWEEP: dict[str, dict[str, Any]] = {
    "target_s": {"5": 5.0, "10": 10.0, "40": 40.0},
    "down_window_s": {"60": 60.0, "900": 900.0},
    "min_replicas": {"1": 1, "4": 4},
    "down": {
        "1 pod/60 s": (Policy(pods=1, period_s=60),),
        "100 %/15 s": (Policy(percent=100, period_s=15),),
    },
    "start_s": {"60": 60.0},
}
_KIOSK_HOURS, _KIOSK_DOLLARS = 5.5, 250  # a million images of 1 Mpx: Bannon et al., Nature Methods 18, 2021
_LINKS_GBIT = (10, 25, 100)


@checked(frozen=True, slots=True)
class Terms:
    """Of one run of the command.

    Parameters
    ----------
    hours
        Simulated time.
    seed
        Of arrivals and dispatch.
    bytes_per_pixel
        Of an upload: a 16-bit TIFF that is not compressed.
    dollars_per_hour
        Price of a replica's machine.

    """

    hours: Annotated[float, Field(ge=0.1, le=168, allow_inf_nan=False)] = 24.0
    seed: Annotated[int, Field(ge=0)] = 0
    bytes_per_pixel: Positive = 2.0
    dollars_per_hour: NotNegative = 0.0


_Kind = TypeVar("_Kind", Fleet, Hpa, Load, Terms)
_Used = TypeVar("_Used")


def main() -> None:
    """Print the tables, draw the plots."""
    parser, options = _options()
    try:
        fleet, hpa, load = _made(Fleet, options), _made(Hpa, options), _made(Load, options)
        terms = _made(Terms, options)
    except ValidationError as error:
        parser.error(_told(error))
    try:
        changed = variants(fleet, hpa) if options.sweep else []
    except ValidationError as error:
        parser.error(f"a row of --sweep: {_told(error)}")
    seconds = terms.hours * 3600
    if (images := load.all_images_per_s * seconds) > MOST_IMAGES:
        parser.error(
            f"--images-per-s, --bursts-per-day and --burst-images make {images:.3g} images in --hours {terms.hours:g}, "
            f"the limit is {MOST_IMAGES}; lower one of them"
        )
    day = simulate(fleet, hpa, arrivals(load, seconds, terms.seed), seconds, seed=terms.seed)
    print(f"replica {fleet.mpx_per_s:g} Mpx/s, ready {fleet.start_s:g} s after it is asked for; {fleet.dispatch}")
    mpx_per_s = load.all_images_per_s * load.mean_mpx
    print(f"load    {mpx_per_s:.2f} Mpx/s on average, {load.mean_mpx:.2f} Mpx an image, {terms.hours:g} h")
    print(HEADER)
    print(line("as given", day, seconds))
    for name, other, scaled in changed:
        outcome = simulate(other, scaled, arrivals(load, seconds, terms.seed), seconds, seed=terms.seed)
        print(line(name, outcome, seconds))
    hours = 1e6 / fleet.mpx_per_s / 3600
    paid = f"{hours / day.use:.1f} paid" if day.use else "no image came to pay for"
    if day.use and terms.dollars_per_hour:
        paid += f", {hours / day.use * terms.dollars_per_hour:.0f} dollars"
    print(f"machine-hours per million images of 1 Mpx: {hours:.1f} computing, {paid}")
    print(f"DeepCell Kiosk: {_KIOSK_HOURS:g} h of a whole cluster, {_KIOSK_DOLLARS} dollars")
    if options.reach:
        for text in reach(fleet.mpx_per_s, terms.bytes_per_pixel):
            print(text)
    if options.plots:
        from benchmarks.fleet_plots import plot_day

        plot_day(day, options.plots / "fleet-day.png")
    if seen := options.trace:
        replayed = simulate(fleet, hpa, replay(seen), seen[-1].t_s, every_s=1.0, seed=terms.seed)
        print(f"against the trace: {compare(seen, replayed.samples)}")
        if options.plots:
            from benchmarks.fleet_plots import plot_trace

            plot_trace(seen, replayed.samples, options.plots / "fleet-trace.png")
    if options.json:
        options.json.write_text(json.dumps(figures(day, seconds), indent=2) + "\n")


HEADER = (
    f"{'':22}{'use':>6}{'replicas':>10}{'most':>6}{'wait p50':>10}{'p95':>8}{'p99 s':>8}{'refused':>9}{'gave up':>9}"
)


def variants(fleet: Fleet, hpa: Hpa) -> list[tuple[str, Fleet, Hpa]]:
    """Rows of ``--sweep``: one thing changed in each."""
    rows = []
    for name, values in _SWEEP.items():
        for text, value in values.items():
            change = {name: value}
            if hasattr(fleet, name):
                rows.append((f"{name} {text}", replace(fleet, **change), hpa))
            else:
                rows.append((f"{name} {text}", fleet, replace(hpa, **change)))
    return rows


def figures(outcome: Outcome, seconds: float) -> dict[str, float]:
    """What a run comes to."""
    return {
        "use": outcome.use,
        "replicas": outcome.replica_s / seconds,
        "most": max(sample.replicas for sample in outcome.samples),
        "p50_s": outcome.wait_s(0.5),
        "p95_s": outcome.wait_s(0.95),
        "p99_s": outcome.wait_s(0.99),
        "refused": outcome.refused / max(1, outcome.accepted + outcome.gave_up),
        "gave_up": outcome.gave_up,
    }


def line(name: str, outcome: Outcome, seconds: float) -> str:
    """One row of the table."""
    found = figures(outcome, seconds)
    return (
        f"{name:22}{found['use']:>6.0%}{found['replicas']:>10.2f}{found['most']:>6.0f}{found['p50_s']:>10.2f}"
        f"{found['p95_s']:>8.1f}{found['p99_s']:>8.1f}{found['refused']:>9.2%}{found['gave_up']:>9.0f}"
    )


def reach(mpx_per_s: float, bytes_per_pixel: float) -> Iterator[str]:
    """How many replicas fill the proxy's line: each image passes it twice, in and out, on a line of both directions."""
    megabytes = mpx_per_s * bytes_per_pixel
    yield f"a replica takes in {megabytes:.1f} MB/s of images at {bytes_per_pixel:g} bytes a pixel"
    for gbit in _LINKS_GBIT:
        yield f"  one proxy on {gbit:>3} Gbit/s feeds {gbit * 125 / megabytes:>8.0f} replicas"
    yield f"  1,000 replicas need {1000 * megabytes * 8 / 1000:.0f} Gbit/s"


def _options() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        usage="python -m benchmarks.fleet [OPTION ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for kind in (Fleet, Hpa, Load, Terms):
        for name, value in asdict(kind()).items():
            if isinstance(value, (int, float, str)):
                parser.add_argument(f"--{name.replace('_', '-')}", default=value)
    for name in ("up", "down"):
        parser.add_argument(f"--{name}", type=_policies, default=getattr(Hpa(), name), metavar="POLICIES")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--reach", action="store_true")
    parser.add_argument("--plots", type=_usable(_folder), metavar="FOLDER")
    parser.add_argument("--trace", type=_usable(read_trace), metavar="CSV")
    parser.add_argument("--json", type=_usable(_file), metavar="FILE")
    return parser, parser.parse_args()


def _usable(use: Callable[[Path], _Used]) -> Callable[[str], _Used]:
    """Type of an option that is a path: what is wrong with it is told before the run and not after."""

    def used(text: str) -> _Used:
        try:
            return use(Path(text))
        except OSError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error.strerror}; name another") from error
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from error

    return used


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        return path


def _file(path: Path) -> Path:
    with path.open("a"):
        return path


def _policies(text: str) -> tuple[Policy, ...]:
    found = []
    for policy in text.split(","):
        amount, _, seconds = policy.partition("/")
        kind = "percent" if amount.endswith("%") else "pods"
        if not (re.fullmatch("[1-9][0-9]{,3}%?", amount) and re.fullmatch("[1-9][0-9]{,3}", seconds)):
            raise argparse.ArgumentTypeError(
                f"{policy!r} is no policy; write 2/15 or 100%/15, numbers from 1 to 9999, with commas between"
            )
        found.append(Policy(**{kind: int(amount.removesuffix("%"))}, period_s=float(seconds)))
    return tuple(found)


def _told(error: ValidationError) -> str:
    return "; ".join(_item(item) for item in error.errors())


def _item(item: Mapping[str, Any]) -> str:
    if not item["loc"]:
        return str(item["msg"]).removeprefix("Value error, ")
    option = f"--{str(item['loc'][0]).replace('_', '-')}"
    return f"{option} is {item['input']}, it {str(item['msg']).removeprefix('Input ')}"


def _made(kind: type[_Kind], options: argparse.Namespace) -> _Kind:
    given = {field.name: getattr(options, field.name) for field in fields(kind) if hasattr(options, field.name)}
    return kind(**given)


if __name__ == "__main__":
    main()
