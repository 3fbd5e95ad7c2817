"""From values to one file of HTML: templates, tables, and pictures held by the file itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from training.report.charts import number
from training.report.pictures import Picture, data_uri, png_bytes
from training.writing import write_text

_TITLES = {"iou": "IoU", "dice": "Dice", "pooled_iou": "IoU, pixels pooled", "seg": "SEG"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What a table shows at one place: a text, the number that it is sorted by, and the share of a bar behind it."""

    text: str
    order: float | None = None
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its caption, names of the columns, and rows of as many cells; the first cell of a row names it."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = True

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether a column holds nothing but numbers."""
        return tuple(
            all(row[index].order is not None or row[index].text == "-" for row in self.rows)
            for index in range(len(self.columns))
        )


def table_of(rows: Sequence[Mapping[str, Any]], caption: str, *, sortable: bool = True, bars: bool = True) -> Table:
    """Make a table of records that share their keys; nested ones become columns of their own (``ap@0.5``).

    With ``bars``, numbers of a column that all lie between 0 and 1 have a bar behind them.
    """
    flat = [flatten(row) for row in rows]
    columns = tuple(dict.fromkeys(name for row in flat for name in row))
    shares = {name for name in columns if bars and _is_share([row.get(name) for row in flat])}
    cells = [tuple(_cell(row.get(name), bar=name in shares) for name in columns) for row in flat]
    return Table(caption, tuple(map(title_of, columns)), tuple(cells), sortable)


def flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without nesting: ``{"ap": {"0.5": 1}}`` becomes ``{"ap@0.5": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}@{inner}": one for inner, one in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def title_of(name: str) -> str:
    """Name of a figure as people write it; of anything else as it is, but for underscores."""
    measure, at, of_class = name.partition("iou@")
    if at and not measure:
        return f"IoU {of_class}"
    return _TITLES.get(name, name.replace("ap@", "AP@").replace("_", " "))


def write_page(path: Path, template: str, **values: Any) -> None:  # noqa: ANN401 - what a template takes
    """Render a template of this package to a file; every text is escaped.

    Raises
    ------
    Unwritable
        Where the file cannot be written; one that lies there stays as it was.

    """
    html = _environment().get_template(template).render(**values)
    write_text(path, html)


def picture_uri(picture: Picture) -> str:
    """Return a picture as a link that holds it."""
    return data_uri(png_bytes(picture))


@cache
def _environment() -> Environment:
    loader = PackageLoader("training.report", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["title_of"] = title_of
    environment.filters["picture"] = picture_uri
    # style and script are the package's own and stand in the page as they are
    environment.globals["inline"] = lambda name: Markup(loader.get_source(environment, name)[0])  # noqa: S704
    return environment


def _is_share(values: Iterable[Any]) -> bool:
    numbers = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    return bool(numbers) and all(0 <= value <= 1 for value in numbers)


def _cell(value: object, *, bar: bool) -> Cell:
    match value:
        case None:
            return Cell("-")
        case bool():
            return Cell("yes" if value else "no")
        case int():
            return Cell(str(value), float(value))
        case float():
            if not math.isfinite(value):
                return Cell("-")
            digits = 6 if 0 < value < 0.01 else 4  # warping errors are a few pixels in a hundred thousand
            return Cell(f"{value:.{digits}f}" if bar else number(value), value, value if bar else None)
        case _:
            return Cell(str(value))
