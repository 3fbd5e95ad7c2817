"""What a run's net began with, and which images that net and its forerunners have been trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.package import Package
from training.names import composed

DIGEST_BYTES = 6
"""Of a digest of pixels or of a name: among a thousand images two are taken for one in 1 of 10^8 cases."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The net that a run began with.

    Parameters
    ----------
    name
        ``name@version`` of a package; a run as it was given.
    sha256
        Of the package's weights; None for a run.
    seen
        What the net, and those that it began with itself, were trained on: of each image the digest of its pixels
        (:meth:`.AnnotatedImage.pixels_digest`), or of its name where an older version kept no other.
    unknown
        Names of those of these nets whose training images are not known here.

    """

    name: str
    sha256: str | None = None
    seen: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def seen_among(self, pixels: Mapping[str, str]) -> list[str]:
        """Return the stems, in the given order, of the images that were trained on; ``pixels`` has their digests."""
        seen = set(self.seen)
        return [stem for stem, digest in pixels.items() if digest in seen or name_digest(stem) in seen]

    def as_facts(self) -> dict[str, Any]:
        """Return name, hash and what is not known, JSON-able, for a package's description."""
        return {"name": self.name, "sha256": self.sha256, "unknown": list(self.unknown)}


def copies_told(split: Mapping[str, Sequence[str]], pixels: Mapping[str, str]) -> str:
    """Say how many validation images of a split are training images under a second name; nothing where none is.

    Parameters
    ----------
    split
        Stems of the ``training`` and of the ``validation`` images.
    pixels
        Digests of their pixels; empty where an older version kept none.

    """
    taught = {pixels[stem] for stem in split["training"] if stem in pixels}
    copies = [stem for stem in split["validation"] if pixels.get(stem) in taught]
    if not copies:
        return ""
    return (
        f"{len(copies)} of {len(split['validation'])} validation images are the same pictures as training images "
        f"({copies[0]} is the first): their figures flatter"
    )


def name_digest(stem: str) -> str:
    """Twelve hexadecimal digits that stand for the name of an image, however it is written."""
    return hashlib.blake2b(composed(stem).encode(), digest_size=DIGEST_BYTES).hexdigest()


def package_origin(package: Package) -> Origin:
    """Return what is known of a package as the net to begin with, from its description.

    Packages of older versions, and of others, do not say what they were trained on: they are ``unknown`` themselves.
    """
    name = f"{package.spec.name}@{package.spec.version}"
    seen, began = package.spec.facts.get("seen"), package.spec.facts.get("origin")
    if not isinstance(seen, str):
        return Origin(name, package.sha256, (), (name,))
    before = began.get("unknown") if isinstance(began, dict) else None
    unknown = tuple(map(str, before)) if isinstance(before, list) else ()
    return Origin(name, package.sha256, tuple(seen.split()), unknown)
