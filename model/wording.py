"""Counts in what people read."""

from __future__ import annotations


def counted(number: float, noun: str, form: str = "") -> str:
    """A number with its noun: ``1 image``, ``2 images``.

    Parameters
    ----------
    number
        How many.
    noun
        In the singular; its plural ends in s.
    form
        How the number is written (:func:`format`).

    """
    text = format(number, form)
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"
