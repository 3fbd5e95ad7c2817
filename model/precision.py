"""Which precision a package runs in: the fastest whose answers agree with fp32, measured on this machine.

Whatever is chosen, the net is opened in fp32 first and must reproduce the package's golden pair within its own
tolerance. A lower precision is then run on the same input and compared with the golden output. It is used only where
both differences keep within :data:`LIMIT`; the receipt of every answer says which precision it was, and by how much it
differed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.errors import UnsupportedPackage
from model.halo import with_measured_halo
from model.package import Package
from model.session import InferenceSession, SessionOptions, golden_outputs, has_bf16, open_session, self_test

_LOG = logging.getLogger("unet.model")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far probabilities of a lower precision stand from those of fp32."""

    other_class: float
    """Fraction of pixels whose likeliest class is another."""
    largest_difference: float
    """Largest difference of a probability."""

    def within(self, limit: Agreement) -> bool:
        """Whether both keep within a limit; NaN does not."""
        return self.other_class <= limit.other_class and self.largest_difference <= limit.largest_difference

    def __str__(self) -> str:
        return (
            f"another class in {self.other_class:.3%} of pixels, probabilities differ by {self.largest_difference:.2g}"
        )


LIMIT = Agreement(other_class=0.001, largest_difference=0.05)
"""What a lower precision may differ by."""


@dataclass(frozen=True, slots=True)
class OpenedNet:
    """A package's net, opened and found to do what the package says."""

    package: Package
    session: InferenceSession
    self_test_difference: float
    """Largest difference of the fp32 net from the golden output, on this machine."""
    agreement: Agreement | None
    """Of the precision that runs; None for fp32."""


def agreement(probabilities: NDArray[np.float32], reference: NDArray[np.float32]) -> Agreement:
    """Compare probabilities (b, c, y, x); the class of a net of one channel is whether it exceeds one half."""
    if probabilities.shape[1] == 1:
        differs = (probabilities > 0.5) != (reference > 0.5)
    else:
        differs = probabilities.argmax(axis=1) != reference.argmax(axis=1)
    return Agreement(float(differs.mean()), float(np.abs(probabilities - reference).max()))


def open_checked(package: Package, options: SessionOptions) -> OpenedNet:
    """Open a net in the precision that ``options`` ask for, ``auto`` included, and check it.

    Raises
    ------
    BackendUnavailable
        Where the backend or the precision is not there.
    InvalidPackage
        Where the fp32 net does not reproduce the golden pair.
    UnsupportedPackage
        Where the precision asked for does not agree with fp32.

    """
    fp32 = open_session(package, replace(options, precision="fp32"))
    difference = self_test(fp32, package)
    # rounding may hide how far a net reaches, and seams would show: always measured in fp32
    package = with_measured_halo(fp32, package)
    if options.precision == "fp32" or (options.precision == "auto" and not has_bf16(fp32.backend)):
        return OpenedNet(package, fp32, difference, None)
    bf16 = open_session(package, replace(options, precision="bf16"))
    found = agreement(*golden_outputs(bf16, package))
    if found.within(LIMIT):
        return OpenedNet(package, bf16, difference, found)
    if options.precision == "bf16":
        raise UnsupportedPackage(
            f"{package.path}: bf16 does not agree with fp32 on the test input: {found}; the limits are "
            f"{LIMIT.other_class:.1%} and {LIMIT.largest_difference}; choose precision auto or fp32"
        )
    _LOG.warning("%s runs in fp32, bf16 does not agree on the test input: %s", package.spec.reference, found)
    return OpenedNet(package, fp32, difference, None)
