"""GeoJSON files of a folder, each parsed once, whatever is asked of it: categories, regions, shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.errors import DatasetError
from training.layouts.geojson_document import Feature, Outline, outlines_of, read_features, role_of


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a file shows.

    Parameters
    ----------
    outlines
        Of the features that have a geometry.
    bare
        Number of features that have none.

    """

    outlines: list[Outline]
    bare: int


class Files:
    """Parses files when they are first asked for, and keeps what is in them until its shapes are taken."""

    def __init__(self) -> None:
        self._categories: dict[Path, set[str]] = {}
        self._drawn: dict[Path, Drawn | DatasetError] = {}

    def categories(self, path: Path) -> set[str]:
        """Names of the categories that the objects of a file have; none of one that is no GeoJSON."""
        if path not in self._categories:
            self._parse(path)
        return self._categories[path]

    def look(self, path: Path) -> Drawn:
        """What a file shows, which stays here.

        Raises
        ------
        UnreadableFile
            Where the file is not JSON or no GeoJSON, or a feature has no area.
        MaskMismatch
            Where a feature belongs to another plane than the first.

        """
        if path not in self._drawn:
            self._parse(path)
        drawn = self._drawn[path]
        if isinstance(drawn, DatasetError):
            raise drawn
        return drawn

    def take(self, path: Path) -> Drawn:
        """As :meth:`look`, but for the last time: a folder's outlines need not all stay in memory."""
        try:
            return self.look(path)
        finally:
            self._drawn.pop(path, None)

    def _parse(self, path: Path) -> None:
        features: list[Feature] = []
        try:
            features = read_features(path)
            outlines = outlines_of(features, path)
            self._drawn[path] = Drawn(outlines, len(features) - len(outlines))
        except DatasetError as error:
            self._drawn[path] = error.with_traceback(None)
        found = {feature.category for feature in features}
        self._categories[path] = {name for name in found if name is not None and role_of(name) == "object"}
