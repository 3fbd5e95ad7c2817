"""Images as files hold them, read the same way where nets are served and where they are trained."""

from __future__ import annotations

from model.images.axes import parse_axes
from model.images.errors import AxesMismatch, FormatError, ImageTooLarge, UndecodableImage, UnsupportedImageFormat
from model.images.image import MOST_NAME_CHARACTERS, PIXEL_SIZE_LIMITS_UM, ImageHeader, ImageReader, ReadLimits
from model.images.reader import open_image

__all__ = [
    "MOST_NAME_CHARACTERS",
    "PIXEL_SIZE_LIMITS_UM",
    "AxesMismatch",
    "FormatError",
    "ImageHeader",
    "ImageReader",
    "ImageTooLarge",
    "ReadLimits",
    "UndecodableImage",
    "UnsupportedImageFormat",
    "open_image",
    "parse_axes",
]
