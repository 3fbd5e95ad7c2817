"""Choose the output format from the query and the Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from service.formats.errors import UnknownFormat


def choose_format(
    accept: str | None, format_name: str | None, known: Collection[str], of_media: Mapping[str, str]
) -> str:
    """Name the output format.

    Parameters
    ----------
    accept
        The Accept header; None or empty accepts everything.
    format_name
        The query's ``format``; it beats the header.
    known
        Formats that exist.
    of_media
        Which of them is sent as a media type, in the order of preference.

    Raises
    ------
    UnknownFormat
        ``format_name`` does not exist, or nothing that exists is acceptable.
    """
    if format_name is not None:
        if format_name in known:
            return format_name
        msg = f"format {format_name[:40]!r} does not exist; ask for one of {', '.join(sorted(known))}"
        raise UnknownFormat(msg)
    ranges = _ranges(accept or "*/*")
    ranked = [(*_quality(media, ranges), -rank, name) for rank, (media, name) in enumerate(of_media.items())]
    quality, _, _, name = max(ranked)
    if quality <= 0:
        msg = f"nothing acceptable: {(accept or '')[:100]!r} allows none of {', '.join(of_media)}"
        raise UnknownFormat(f"{msg}; name one, or ask with format=")
    return name


def _ranges(accept: str) -> dict[str, float]:
    """Quality by media range; a range that cannot be understood is ignored."""
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        if "/" in media:
            found[media] = quality if 0 <= quality <= 1 else 0.0
    return found


def _quality(media: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """Quality of ``media`` by the most specific range that covers it, and how specific that is."""
    for specific, media_range in ((2, media), (1, media.partition("/")[0] + "/*"), (0, "*/*")):
        if media_range in ranges:
            return ranges[media_range], specific
    return 0.0, 0
