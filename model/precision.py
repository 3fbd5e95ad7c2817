"""Which precision a package runs in: the fastest whose answers agree with fp32, measured on every device it runs on.

Whatever is chosen, the net is opened in fp32 first and must reproduce the package's golden pair within its own
tolerance. A lower precision is then run on the same input and compared with the golden output. It is used only where
both differences keep within its limit: :data:`model.agreement.LIMIT` for fp16 and bf16, which round the package's own
net; for int8, a graph of its own, the limit that the package names. The receipt of every answer says which precision
it was, and by how much it differed.

The order, int8, bf16, fp32, on a GPU fp16, fp32, is fixed and not timed, so that equal machines give equal answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from model.agreement import LIMIT, Agreement, agreement
from model.devices import SpreadSession
from model.errors import InvalidPackage, ModelError, UnsupportedPackage
from model.halo import with_measured_halo
from model.package import Package
from model.session import (
    GPU_BACKENDS,
    InferenceSession,
    Precision,
    SessionOptions,
    golden_outputs,
    has_fast_int8,
    open_session,
    runnable_precisions,
    self_test,
)

_LOG = logging.getLogger("unet.model")

InTurn: TypeAlias = Callable[[InferenceSession], InferenceSession]
"""Makes a session wait for others that compute, where there are some."""


@dataclass(frozen=True, slots=True)
class OpenedNet:
    """A package's net, opened and found to do what the package says."""

    package: Package
    session: InferenceSession
    self_test_difference: float
    """Largest difference of the fp32 net from the golden output, on this machine."""
    agreement: Agreement | None
    """Of the precision that runs; None for fp32."""


def open_checked(package: Package, options: SessionOptions, in_turn: InTurn = lambda session: session) -> OpenedNet:
    """Open a net in the precision that ``options`` ask for, ``auto`` included, and check it.

    Each of several GPUs is checked by itself; all run in the precision that the first one was found good for.

    Parameters
    ----------
    package, options
        What to open, and how.
    in_turn
        What the net is checked through.

    Raises
    ------
    BackendUnavailable
        Where the backend or the precision is not there.
    InvalidPackage
        Where the fp32 net does not reproduce the golden pair.
    UnsupportedPackage
        Where the precision asked for does not agree with fp32, or the package has no weights for it.

    """
    first = _open_on_one(package, options, in_turn)
    if first.session.backend not in GPU_BACKENDS or len(options.devices) == 1:
        return first
    precision = cast("Precision", first.session.precision)
    others = [
        _open_on_one(first.package, replace(options, devices=(device,), precision=precision), in_turn)
        for device in options.devices[1:]
    ]
    return _together([first, *others])


def _together(opened: Sequence[OpenedNet]) -> OpenedNet:
    """One net on several devices, its figures those of the worst."""
    agreements = [net.agreement for net in opened if net.agreement is not None]
    return OpenedNet(
        opened[0].package,
        SpreadSession([net.session for net in opened]),
        max(net.self_test_difference for net in opened),
        Agreement(max(found.other_class for found in agreements), max(found.largest_difference for found in agreements))
        if agreements
        else None,
    )


def _open_on_one(package: Package, options: SessionOptions, in_turn: InTurn) -> OpenedNet:
    fp32 = open_session(package, replace(options, precision="fp32"))
    difference = self_test(in_turn(fp32), package)
    # rounding may hide how far a net reaches, and seams would show: always measured in fp32
    package = with_measured_halo(in_turn(fp32), package)
    for precision in _wanted(package, fp32.backend, options):
        if precision == "fp32":
            break
        try:
            lower, found = _open_lower(package, options, precision, in_turn)
        except ModelError as error:
            if options.precision == precision:
                raise
            _LOG.warning("%s runs in another precision than %s: %s", package.spec.reference, precision, error)
        else:
            return OpenedNet(package, lower, difference, found)
    return OpenedNet(package, fp32, difference, None)


def _open_lower(
    package: Package, options: SessionOptions, precision: Precision, in_turn: InTurn
) -> tuple[InferenceSession, Agreement]:
    """Open a net below fp32, held against the golden output."""
    lower = open_session(package, replace(options, precision=precision))
    output, golden = golden_outputs(in_turn(lower), package)
    if output.shape != golden.shape:
        raise InvalidPackage(
            f"{package.path}: the {precision} net returns shape {output.shape} for the test input, not {golden.shape}"
        )
    found, limit = agreement(output, golden), limit_of(package, precision)
    if not found.within(limit):
        remedy = "" if options.precision == "auto" else "; choose precision auto or fp32"
        raise UnsupportedPackage(
            f"{package.path}: {precision} does not agree with fp32 on the test input: {found}; the limits are "
            f"{limit.other_class:.2%} and {limit.largest_difference:.2g}{remedy}"
        )
    return lower, found


def limit_of(package: Package, precision: str) -> Agreement:
    """What a lower precision may differ by from the golden output."""
    variant = package.spec.variant(precision)
    return LIMIT if variant is None else variant.limit


def _wanted(package: Package, backend: str, options: SessionOptions) -> tuple[Precision, ...]:
    """Precisions to try, in order."""
    if options.precision != "auto":
        return (options.precision,)
    return tuple(name for name in runnable_precisions(package, backend) if name != "int8" or has_fast_int8(backend))
