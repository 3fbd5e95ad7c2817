"""A package's net in int8: made from training images, judged on images held out, written into the package."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.agreement import LIMIT, MOST, Agreement, agreement
from model.normalization import fit
from model.package import Package, read_package, write_package
from model.planner import Planner
from model.session import SessionOptions, golden_outputs, open_session
from model.spec import PackageFile, Variant
from model.stitching import read_tile
from training.data.datasets import AnnotatedImage, load_for
from training.data.splits import split_images
from training.errors import ExportError, ForeignPackage, NothingToLearn
from training.packaging.drafts import drafted, require_place
from training.packaging.judging import Judged, judge
from training.packaging.onnx_weights import read_unet
from training.packaging.quantize import quantise
from training.packaging.specification import validate
from training.recipe import Recipe

_log = logging.getLogger(__name__)
CALIBRATION_IMAGES = 32
_TILE_PIXELS = 600 * 600
INT8_FILE = "weights_int8.onnx"
"""Its name in a package."""
_SLACK = 2.0  # other machines round otherwise: the test input may differ so many times as much as it did here


def add_int8(
    package: Package, recipe: Recipe, training: Sequence[AnnotatedImage], held_out: Sequence[AnnotatedImage]
) -> tuple[Package, Judged]:
    """Add the int8 variant to a package of ours.

    The package is replaced as a whole once everything has been found sound; until then, and where anything fails, it
    stays as it was.

    Parameters
    ----------
    package
        Written by :func:`training.packaging.export.export_package`; a variant that it has already is replaced.
    recipe
        How the images are scored.
    training
        Images that the ranges are taken from, :data:`CALIBRATION_IMAGES` of them at most.
    held_out
        Images on which int8 is compared with fp32.

    Raises
    ------
    ExportError
        Where int8 differs from fp32 by more than 0.1 % of the pixels, 0.002 in IoU (of all classes or of one) or 0.005
        in AP, or the package cannot be replaced.
    NothingToLearn
        Without an image on either side.
    ForeignPackage
        Where the net is not ours.
    InvalidPackage
        Where a file of the package is missing or damaged.

    """
    if not training or not held_out:
        raise NothingToLearn(
            f"int8 needs images to take ranges from and others to be judged on; there are {len(training)} and "
            f"{len(held_out)}: give a recipe that holds some out (data.validation_fraction), or leave int8 out"
        )
    require_place(package.path)
    files, spec = package.own_files(), package.spec
    if spec.activation != "none" or INT8_FILE in files:
        raise ForeignPackage(
            f"{package.path} was not written by unet-train export: its graph ends before the {spec.activation}, or a "
            f"file of its own is called {INT8_FILE}; only our packages get int8 weights"
        )
    net = read_unet(package.weights(), str(package.path))
    made = quantise(net, calibration_tiles(package, training))
    _log.info("int8: ranges at percentile %g; on the calibration %s", made.percentile, made.agreement)
    variant = Variant(precision="int8", weights=PackageFile(source=INT8_FILE), measured=LIMIT, images=1, limit=LIMIT)
    files[INT8_FILE] = made.weights
    with tempfile.TemporaryDirectory() as folder:
        draft = write_package(Path(folder) / "draft", spec.model_copy(update={"variants": (variant,)}), files)
        judged = judge(draft, recipe, held_out, SessionOptions(backend="cpu", precision="int8"))
        int8 = open_session(draft, SessionOptions(backend="cpu", precision="int8"))
        golden = agreement(*golden_outputs(int8, draft))
    limit = Agreement(
        max(LIMIT.other_class, _SLACK * golden.other_class),
        max(LIMIT.largest_difference, _SLACK * golden.largest_difference),
    )
    problem = judged.problem()
    if problem is None and not limit.within(MOST):
        problem = f"on the test input {golden}"
    if problem is not None:
        raise ExportError(f"int8 does not agree with fp32 on {len(held_out)} held-out images: {problem}")
    variant = variant.model_copy(update={"measured": judged.agreement, "images": len(held_out), "limit": limit})
    if spec.documentation is not None:
        text = files[spec.documentation.source].decode("utf-8", errors="replace")
        files[spec.documentation.source] = _with_section(text, judged, len(held_out)).encode()
    with drafted(package.path, spec.model_copy(update={"variants": (variant,)}), files) as draft:
        validate(draft.path)
    return read_package(package.path), judged


def add_int8_by(recipe: Recipe, package: Package, data: Path) -> str:
    """Add int8 to a package by a recipe's split of a data folder; returns in words how it compares with fp32."""
    training, held_out = split_images(load_for(recipe, data), recipe.data)
    package, judged = add_int8(package, recipe, training, held_out)
    return f"{package.path}: int8 against fp32 on {len(held_out)} held-out images: {judged}"


def calibration_tiles(package: Package, images: Sequence[AnnotatedImage]) -> list[NDArray[np.float32]]:
    """One tile (1, c, y, x) of each of some images, evenly spread over them; normalised as served."""
    y, x = package.spec.geometry.y, package.spec.geometry.x
    planner = Planner(package.spec.geometry, max(_TILE_PIXELS, y.input_for(1) * x.input_for(1)))
    places = np.unique(np.linspace(0, len(images) - 1, min(CALIBRATION_IMAGES, len(images))).round().astype(int))
    tiles = []
    for turn, place in enumerate(places):
        image_yxc = images[place].image_yxc
        cut = list(planner.plan((image_yxc.shape[0], image_yxc.shape[1])))
        normalization = fit(package.spec.normalization, image_yxc)
        tiles.append(read_tile(image_yxc, cut[turn % len(cut)], normalization)[np.newaxis])
    return tiles


def _with_section(readme: str, judged: Judged, images: int) -> str:
    """Return the README with a section on int8, in place of one that it has."""
    title = "## In 8-bit integers"
    before, _, rest = readme.partition(f"\n{title}\n")
    _, heading, after = rest.partition("\n## ")
    return (
        f"{before.rstrip()}\n\n{title}\n\n`{INT8_FILE}` is the same net with int8 weights and uint8 activations, "
        f"for CPUs. On the {images} held-out images, compared with fp32: {judged.agreement}.\n\n"
        f"{judged.table('int8')}\n{heading}{after}"
    )
