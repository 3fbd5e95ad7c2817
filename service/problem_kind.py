"""What clients know a failure by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of failure as clients know it.

    Parameters
    ----------
    slug
        Last part of the problem's ``type``, ``/problems/<slug>``; it never changes.
    status
        HTTP status.
    title
        The kind in a few words, the same for every occurrence.
    remedy
        What to do about it, in Markdown.

    """

    slug: str
    status: int
    title: str
    remedy: str

    @property
    def uri(self) -> str:
        """``type`` of the problem: a URI reference that the service answers with an explanation."""
        return f"/problems/{self.slug}"
