"""The errors of ``model``, one tree.

::

    ModelError
    ├── PackageError            a model package that cannot be served
    │   ├── InvalidPackage      damaged or contradictory: hash, size, golden pair
    │   └── UnsupportedPackage  sound, but beyond what this software runs
    ├── BackendUnavailable      the asked-for execution provider is not there
    ├── ImageMismatch           the image does not fit the package (channels)
    ├── NonFiniteImage          NaN or infinity among the pixels
    ├── ExtremePixels           pixels with which the net cannot compute
    ├── PlanError               no legal tile fits the memory budget
    └── InferenceFailed         the runtime refused or failed on a batch
        ├── NonFiniteOutput     ... or returned NaN or infinity
        └── OutOfDeviceMemory   ... for want of memory

Every message gives the number found, the limit and the remedy.
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of every error that ``model`` raises on purpose."""


class PackageError(ModelError):
    """A model package that cannot be served."""


class InvalidPackage(PackageError):
    """The package is damaged or contradicts itself."""


class UnsupportedPackage(PackageError):
    """The package is sound, but asks for something that is not supported here."""


class BackendUnavailable(ModelError):
    """The execution provider that was asked for cannot be used on this machine."""


class ImageMismatch(ModelError):
    """The image does not have what the package needs."""


class NonFiniteImage(ModelError):
    """The image holds NaN or infinite pixels."""


class ExtremePixels(ModelError):
    """The net returned NaN or infinity for pixels that are very large even when normalised."""


class PlanError(ModelError):
    """No legal tile shape fits the memory budget."""


class InferenceFailed(ModelError):
    """The runtime failed on a batch of tiles."""


class NonFiniteOutput(InferenceFailed):
    """The net returned NaN or infinity."""


class OutOfDeviceMemory(InferenceFailed):
    """The runtime failed on a batch for want of memory."""
