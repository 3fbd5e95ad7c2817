"""Which channel of an image a package is given."""

from __future__ import annotations

from collections.abc import Iterable

from model.errors import ImageMismatch
from model.images import ImageHeader
from model.spec import ModelSpec
from model.wording import counted
from service.engine.errors import BadParameter

_MOST_LISTED = 20


def check_one_channel(spec: ModelSpec, asked: int | str | None) -> None:
    """Refuse to choose a channel for a package that takes several.

    Raises
    ------
    BadParameter

    """
    if asked is not None and len(spec.channels) != 1:
        raise BadParameter(
            f"model {spec.name} takes {len(spec.channels)} channels ({', '.join(spec.channels)}); leave channel out"
        )


def taken_channel(header: ImageHeader, spec: ModelSpec, asked: int | str | None) -> int | None:
    """Return the number of the channel that is asked for by number or name; None for all of them.

    Raises
    ------
    BadParameter
        Where there is no such channel, its name is that of several, or the package takes several.
    ImageMismatch
        Where the numbers differ and nothing says which channel to take.

    """
    check_one_channel(spec, asked)
    if asked is not None:
        return _found(header, asked)
    if header.channels != len(spec.channels) and (len(spec.channels), header.channels) != (1, 3):
        raise mismatch(spec, header)
    return None


def channel_notes(header: ImageHeader, asked: int | str | None) -> tuple[str, ...]:
    """For the receipt: a number that was taken as one, where another channel has it for a name."""
    others = [number for number, name in enumerate(header.channel_names) if name == str(asked) and number != asked]
    if not others or not isinstance(asked, int) or asked >= header.channels:
        return ()
    return (f"channel {asked} is taken by its number, from 0; the file calls channel {others[0]} {str(asked)!r}",)


def mismatch(spec: ModelSpec, header: ImageHeader) -> ImageMismatch:
    """Error that names what the package takes, and how to choose it."""
    wanted, found = len(spec.channels), header.channels
    remedy = f"choose one with channel={_choices(header)}, or " if wanted == 1 and found > 1 else ""
    return ImageMismatch(
        f"the image has {counted(found, 'channel')}, model {spec.name} takes {wanted} ({', '.join(spec.channels)}); "
        f"{remedy}send an image with {wanted}"
    )


def _found(header: ImageHeader, asked: int | str) -> int:
    """Number of the channel; digits are a number wherever there are so many channels, and else a name: 405 (nm)."""
    if isinstance(asked, int) and asked < header.channels:
        return asked
    wanted = str(asked).strip().casefold()
    alike = [number for number, name in enumerate(header.channel_names) if name.casefold() == wanted]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise BadParameter(
            f"channel {asked!r} is the name of {len(alike)} channels: {_listed(header, alike)}; give the number of one"
        )
    raise BadParameter(
        f"channel {asked!r} is asked for, the image has {header.channels}; use {_choices(header)}"
        + ("" if header.channel_names or isinstance(asked, int) else ": the file names none")
    )


def _choices(header: ImageHeader) -> str:
    """Numbers of the channels, and what the file calls them."""
    named = f" or a name ({_listed(header, range(header.channels))})" if header.channel_names else ""
    return f"{'0 to ' * (header.channels > 1)}{header.channels - 1}{named}"


def _listed(header: ImageHeader, numbers: Iterable[int]) -> str:
    named = [f"{number} {header.channel_names[number]!r}" for number in numbers]
    more = [f"and {len(named) - _MOST_LISTED} more"] if len(named) > _MOST_LISTED else []
    return ", ".join([*named[:_MOST_LISTED], *more])
