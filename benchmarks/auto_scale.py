"""How often ``scale=auto`` is right: annotated images, resampled, as if another microscope had taken them.

    python -m benchmarks.auto_scale --data FOLDER [--recipe nuclei] [--images 22] [--factors 0.5 1 2 3 4 6]

Of the images that the recipe holds out, and that hold a dozen objects, so many are taken, evenly by the size of these.
For each factor the table says in how many of them the median object, at the scale that was found, is of a size that the
package knows (within a factor of 1.25), and the mean average precision at an IoU of 0.5: at that scale, with the
resampling undone (``scale`` of one over the factor), and at the scale of the resampled image.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving import measured_service
from training.data.datasets import AnnotatedImage, load_images
from training.data.object_sizes import areas_of, percentiles_px
from training.data.splits import take_side
from training.measures.objects import match_objects
from training.recipe import read_recipe

_LEAST_OBJECTS = 12
_MOST_PX = 4_000_000  # of a resampled image; larger ones lose their rim
_MARGIN = 1.25
_IOU = (0.5,)


@dataclass(frozen=True, slots=True)
class Resampled:
    """An image (y, x) with its labels, and the median diameter of its objects in px, all of them at one factor."""

    image_yx: NDArray[np.uint16]
    labels_yx: NDArray[np.int32]
    diameter_px: float


def median_px(labels_yx: NDArray[np.int32]) -> float:
    """Median of the diameters of circles as large as the objects, px."""
    return percentiles_px(*areas_of(labels_yx)[1:])[1]


def chosen_images(folder: Path, recipe_name: str, count: int) -> list[AnnotatedImage]:
    """Return images that the recipe holds out, evenly by the size of their objects."""
    recipe = read_recipe(recipe_name)
    images = load_images(folder, recipe.data, recipe.net.in_channels, len(recipe.targets.classes))
    held_out = take_side(images, recipe.data, "validation", folder)
    among = sorted(
        (image for image in held_out if len(areas_of(image.labels_yx)[0]) >= _LEAST_OBJECTS),
        key=lambda image: median_px(image.labels_yx),
    )
    return [among[round(place)] for place in np.linspace(0, len(among) - 1, min(count, len(among)))]


def resampled(source: AnnotatedImage, factor: float) -> Resampled:
    """Return the middle of an image at another magnification, in 16 bits with a little noise."""
    side = int(_MOST_PX**0.5 / factor)
    rows, columns = (slice(max(0, (length - side) // 2), (length + side) // 2) for length in source.labels_yx.shape)
    image, labels = source.image_yxc[rows, columns, 0].astype(np.float32), source.labels_yx[rows, columns]
    size_xy = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    method = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    grey = np.asarray(Image.fromarray(image).resize(size_xy, method)) * (30_000 / max(1.0, float(image.max())))
    noise = np.random.default_rng(0).normal(0, 30, grey.shape)
    numbers = np.asarray(Image.fromarray(labels).resize(size_xy, Image.Resampling.NEAREST))
    return Resampled((grey + noise).clip(0, 65535).astype(np.uint16), numbers, median_px(labels) * factor)


def precision(client: httpx.Client, model: str, shown: Resampled, scale: str) -> tuple[float, float]:
    """Average precision of the objects at a scale, and that scale as the receipt has it."""
    body = io.BytesIO()
    np.save(body, shown.image_yx)
    query = {"model": model, "output": "labels", "format": "tiff", "scale": scale}
    answer = client.post("/segment", params=query, content=body.getvalue()).raise_for_status()
    found = tifffile.imread(io.BytesIO(answer.content))
    scored = match_objects(found, shown.labels_yx, _IOU)[0].ap
    return scored, float(json.loads(answer.headers["x-unet-receipt"])["output"].get("scale", 1))


def compared(
    client: httpx.Client, model: str, images: Sequence[AnnotatedImage], factors: Sequence[float]
) -> Iterator[tuple[float, int, list[float]]]:
    """For each factor, how many scales suit the package, and the three mean precisions."""
    low, _, high = client.get(f"/models/{model}").raise_for_status().json()["object_diameter_px"]
    for factor in factors:
        suits, precisions = 0, []
        for image in images:
            shown = resampled(image, factor)
            found, scale = precision(client, model, shown, "auto")
            suits += low / _MARGIN <= shown.diameter_px * scale <= high * _MARGIN
            undone, own = (precision(client, model, shown, each)[0] for each in (f"{1 / factor:.4g}", "1"))
            precisions.append((found, undone, own))
        yield factor, suits, np.mean(precisions, axis=0).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="nuclei", help="of the shipped package of that name")
    parser.add_argument("--images", type=int, default=22)
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2, 3, 4, 6])
    arguments = parser.parse_args()
    images = chosen_images(arguments.data, arguments.recipe, arguments.images)
    with measured_service(UNET_MODELS_DIR="zoo") as url, httpx.Client(base_url=url, timeout=600) as client:
        print(f"{'factor':>6} {'suits':>8} {'auto':>6} {'undone':>7} {'own':>6}")
        for factor, suits, (found, undone, own) in compared(client, arguments.recipe, images, arguments.factors):
            print(f"{factor:6g} {suits:4} /{len(images):2} {found:6.3f} {undone:7.3f} {own:6.3f}", flush=True)


if __name__ == "__main__":
    main()
