"""One package: read, checked, opened, self-tested and warmed up before anybody may ask for it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.agreement import Agreement
from model.devices import each_device
from model.errors import ModelError, UnsupportedPackage
from model.package import Package, read_package
from model.planner import Planner
from model.precision import InTurn, open_checked
from model.session import InferenceSession, SessionOptions
from model.views import ViewPlan
from service.engine.admission.ticket import Throughput
from service.engine.packages.finding import Fingerprint, fingerprint
from service.engine.packages.finishing import Finishing
from service.engine.packages.found_scales import FoundScales
from service.engine.packages.planning import PlanLimits, make_planner
from service.engine.resources import give_memory_back
from service.engine.scheduling.between import BetweenBatches

_LOG = logging.getLogger("unet.engine")
_TYPICAL_SIZE_YX = (768, 768)
_SMALL_TEST_BYTES = 128 << 20  # less is taken whatever the budget is: half of it is enough for packages that ship
_KEPT = 2.5  # bytes that a net takes for each of its package's graphs: 1.1 to 2.8 were seen (docs/speed.md)
_LOADING = 6  # bytes of memory for each of a package's files while it is loaded: 5 to 8 were seen for fp16 weights
CALIBRATION_S = 1.5  # of all packages together: readiness waits for it


# a key of batches: each package is loaded once, its parts do not hash
@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedModel:
    """A package that is served."""

    package: Package
    session: InferenceSession
    sha256: str
    variants: Mapping[str, str]
    """Hash of the graph of each lower precision that has one of its own."""
    planner: Planner
    """Cuts images into tiles, by what they cost on this machine."""
    typical_yx: tuple[int, int]
    """Input of a tile of an image of usual size: its pixels are the unit of :meth:`work`."""
    throughput: Throughput
    finishing: Finishing
    found_scales: FoundScales
    self_test_difference: float
    """Largest difference of the net in fp32 from the golden output on this machine."""
    agreement: Agreement | None
    """Of the precision that runs with fp32; None where that is fp32."""
    readme: str
    """The package's documentation as it was when the net was loaded."""
    working_bytes: int
    """Memory that loading it takes, most of which the net keeps."""
    net_bytes: int
    """What the net keeps of it."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from every other package, fit for JSON: name, version and the hashes of its graphs."""
        spec = self.package.spec
        return {"name": spec.name, "version": spec.version, "sha256": self.sha256, "variants": dict(self.variants)}

    def tile_work(self, input_yx: tuple[int, int]) -> int:
        """What one tile takes of the net: the input pixels of typical tiles that take as long.

        A net without padding works less for each pixel of a small tile than of a large one: by pixels as they are,
        whoever has sent small images would be promised a slide in half of its time.
        """
        return self.planner.pixels_like(self.typical_yx, input_yx)

    def work(self, plan: ViewPlan) -> int:
        """Likewise of all tiles of a plan."""
        return len(plan) * self.tile_work(plan.tiles.input_yx)


def working_bytes(files: Fingerprint) -> int:
    """Bytes of memory that loading a package of these files takes."""
    return _LOADING * sum(mark[1] for mark in files)


def net_bytes(files: Fingerprint) -> int:
    """Bytes of memory that the net of a package of these files keeps."""
    return int(_KEPT * sum(size for name, size, *_ in files if not name or ".onnx" in name))


def refusal_of(error: Exception) -> str:
    """Say why a package is refused, odd as it may be in a way that nobody has thought of."""
    return str(error) if isinstance(error, ModelError) else f"it cannot be loaded: {type(error).__name__}: {error}"


def pixels_per_second(session: InferenceSession, tile_work: int, tile_seconds: float) -> float:
    """Speed of a net on all its devices, of which each takes so long for a tile of so much work."""
    return len(each_device(session)) * tile_work / tile_seconds


def load_model(
    path: Path,
    options: SessionOptions,
    limits: PlanLimits,
    calibration_s: float = CALIBRATION_S,
    *,
    between: BetweenBatches | None = None,
    opened: Callable[[], None] | None = None,
) -> LoadedModel:
    """Read, check, open, self-test and warm up one package, and measure what tiles cost.

    Parameters
    ----------
    path
        The package.
    options
        How to open its net.
    limits
        What plans keep within.
    calibration_s
        Seconds that measuring should take, where no earlier start has left its figures.
    between
        Batches of others that the net runs between; None where there are none.
    opened
        Called once the net is open and has passed its test: it takes no more memory from then on than it keeps, and
        tiles while they are measured, which go between batches.

    Raises
    ------
    ModelError
        Where it cannot be served.

    """
    package, files = read_package(path), fingerprint(path)
    package.check_files()
    _check_test_input(package, limits)
    in_turn: InTurn = between.of if between else lambda session: session
    net = open_checked(package, options, in_turn)
    package, session = net.package, net.session
    give_memory_back()  # files, graphs and activations took several times what the net does
    if opened:
        opened()
    if package.spec.label_rule_note is not None:
        _LOG.warning("%s: %s", package.spec.reference, package.spec.label_rule_note)
    clock = between.clock if between else time.perf_counter
    planner = make_planner(package, in_turn(session), options, limits, calibration_s, clock=clock)
    typical = planner.expected(planner.plan(_TYPICAL_SIZE_YX))
    throughput = Throughput(pixels_per_second(session, math.prod(typical.plan.input_yx), typical.tile_seconds))
    _LOG.info(
        "serving %s on %s in %s: self-test within %.2g, %.2f Mpx/s",
        package.spec.reference,
        session.provider,
        session.precision,
        net.self_test_difference,
        throughput.pixels_per_second / 1e6,
    )
    return LoadedModel(
        package=package,
        session=session,
        sha256=package.sha256,
        variants=package.variant_hashes,
        planner=planner,
        typical_yx=typical.plan.input_yx,
        throughput=throughput,
        finishing=Finishing(),
        found_scales=FoundScales(),
        self_test_difference=net.self_test_difference,
        agreement=net.agreement,
        readme=package.readme(),
        working_bytes=working_bytes(files),
        net_bytes=net_bytes(files),
    )


def _check_test_input(package: Package, limits: PlanLimits) -> None:
    """Refuse a test input that takes more memory while the net runs than any tile may: it is run as a whole."""
    height, width = package.golden_pair()[0].shape[2:]
    per_pixel, limit = package.spec.activation_bytes_per_pixel, max(limits.tile_memory_bytes, _SMALL_TEST_BYTES)
    if (needed := height * width * per_pixel) > limit:
        raise UnsupportedPackage(
            f"{package.path}: the test input of {height} x {width} px needs {needed / 1e6:.0f} MB while the net runs, "
            f"{per_pixel} bytes a pixel, the limit is {limit / 1e6:.0f} MB; write the package with a smaller one, as "
            "unet-train export does, or raise UNET_MEMORY_BUDGET_MB"
        )
