"""What ``bioimageio.spec`` says of a package: of its description before any work, and of the whole at the end."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from model.rdf import to_rdf
from model.spec import ModelSpec
from training.errors import ExportError


def require_description(spec: ModelSpec) -> None:
    """Hold a description against the specification, before there are files that it could name.

    Raises
    ------
    ExportError
        Names what is refused, and what gives it.

    """
    library = _library()
    from bioimageio.spec.generic.v0_3 import Version

    try:
        Version(spec.version)
    except ValueError as error:
        raise ExportError(
            f"{spec.version!r} is no version that bioimage.io reads, such as 1.0.0; correct --version"
        ) from error
    context = library.ValidationContext(perform_io_checks=False)
    description = library.build_description(to_rdf(spec), context=context)
    if not isinstance(description, library.InvalidDescr):
        return
    found = {str(entry.loc[0]) if entry.loc else "": entry.msg for entry in description.validation_summary.errors}
    if "license" in found:
        raise ExportError(
            f"{spec.license!r} is no SPDX identifier of a licence (https://spdx.org/licenses), such as MIT or "
            "CC-BY-4.0; correct card.license in a copy of the recipe and name that (--recipe)"
        )
    # what it calls the name is the title
    listed = "; ".join(f"{'title' if field == 'name' else field}: {message}" for field, message in found.items())
    raise ExportError(
        f"bioimage.io takes no such description: {listed}; correct --author, --version or --channels, or [card] in a "
        "copy of the recipe and name that (--recipe)"
    )


def validate(path: Path) -> None:
    """Hold a package against ``bioimageio.spec``.

    Raises
    ------
    ExportError
        With the specification's own words where it is not valid.

    """
    library = _library()
    description = library.load_description(path, perform_io_checks=True)
    if isinstance(description, library.InvalidDescr):
        raise ExportError(f"{path.name} is no valid bioimage.io package:\n{description.validation_summary.format()}")
    # for a package that has no covers it draws some, and leaves them in a temporary folder of their own
    drawn = {Path(cover.source).parent for cover in description.covers if isinstance(cover.source, Path)}
    for folder in drawn:
        if folder.parent == Path(tempfile.gettempdir()):
            shutil.rmtree(folder, ignore_errors=True)


def _library() -> Any:  # noqa: ANN401 - a module
    """``bioimageio.spec``, which takes seconds to import and talks much."""
    import bioimageio.spec

    logging.getLogger("bioimageio").setLevel(logging.ERROR)
    return bioimageio.spec
