"""The errors of ``service.engine``, one tree.

::

    EngineError
    ├── UnknownModel       no such package is served
    ├── NotReady           no package is served yet, its net is broken, or the scheduler does not run
    ├── Draining           the service is about to stop and takes nothing new
    ├── Overloaded         more work or memory is asked for than can be promised now; comes with a time to wait
    │   └── ShareExceeded  by a user who has an equal share, or would with this, while others with less wait
    ├── TooLargeForMemory  this image alone is beyond the memory budget, or beyond the spool's limit
    ├── SpoolFull          the disk of the spool folder has no room
    ├── DeadlineExceeded   not finished, or not to be finished, in the time allowed
    └── BadParameter       a parameter does not fit this image or package

Every message gives the number found, the limit and the remedy.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error that ``service.engine`` raises on purpose."""


class UnknownModel(EngineError):
    """No package of that name and version is served."""

    def __init__(self, reference: str, known: tuple[str, ...], remedy: str = "") -> None:
        there_are = f"there are {', '.join(known) or 'none'}"
        super().__init__("; ".join(filter(None, (f"no model {reference[:100]!r} is served", there_are, remedy))))
        self.reference = reference
        self.known = known


class NotReady(EngineError):
    """No package is served yet, its net fails its examinations, or the scheduler has not begun or has stopped."""

    retry_after_s = 5


class Draining(EngineError):
    """The service is about to stop."""

    retry_after_s = 1


class Overloaded(EngineError):
    """The work in hand fills the limit."""

    def __init__(self, message: str, reason: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.reason = reason
        """``backlog``, ``memory`` or ``disk``."""
        self.retry_after_s = retry_after_s
        """Seconds after which a place should be free, by measured speed, or by how long answers take."""


class ShareExceeded(Overloaded):
    """The user who asks has an equal share of what may wait, or would have more of memory or disk; others wait."""


class TooLargeForMemory(EngineError):
    """The image alone needs more memory than the budget, however empty the service is."""


class SpoolFull(EngineError):
    """The spool folder cannot take what it should."""

    retry_after_s = 30


class DeadlineExceeded(EngineError):
    """The answer was not, or could not be, ready in the time allowed."""


class BadParameter(EngineError):
    """A parameter of the request does not fit the image or the package."""
