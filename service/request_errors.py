"""The errors that only a request can cause: what is wrong with it before the engine sees it, one tree."""

from __future__ import annotations


class RequestError(Exception):
    """Base of what is wrong with a request before the engine sees it."""


class EmptyBody(RequestError):
    """The request has no body."""


class MissingImage(RequestError):
    """The multipart body has no file part called ``image``."""


class BrokenMultipart(RequestError):
    """The multipart body cannot be taken apart."""


class BodyTooLarge(RequestError):
    """The body is larger than the service takes."""

    def __init__(self, found: str, limit_bytes: int) -> None:
        super().__init__(
            f"the body {found}, the limit is {limit_bytes} bytes; compress the image (TIFF with Deflate or ZSTD), crop "
            "it, or raise UNET_MAX_BODY_MB"
        )
        self.limit_bytes = limit_bytes


class UploadTooSlow(RequestError):
    """The body did not arrive in the time allowed."""


class NoRoomForUpload(RequestError):
    """Other uploads hold the room for them, or the temporary folder is full."""

    retry_after_s = 5


class RangeNotSatisfiable(RequestError):
    """What is asked for lies behind the end of the result."""

    def __init__(self, asked: str, size_bytes: int) -> None:
        super().__init__(
            f"the range is {asked[:60]!r}, the result has {size_bytes} bytes, from 0 to {size_bytes - 1}; ask for some "
            "of these, or without Range"
        )
        self.size_bytes = size_bytes


class EncodedBody(RequestError):
    """The body is compressed as a whole."""


class BrokenInference(RequestError):
    """A request of the Open Inference Protocol is not as the protocol wants it."""


class Unauthorized(RequestError):
    """The request came without a key, or with one that is not known."""


class InvalidParameter(RequestError):
    """A parameter does not exist, or has a value that it cannot have."""
