"""Synthetic fluorescence microscopy of nuclei, with labels: the demo's picture, the tutorial's and CI's training set.

A picture comes about as under the microscope, one step after the other:

1. a nucleus: an ellipse with an irregular outline, filled with chromatin, nucleoli and chromocentres;
2. the field: nuclei are placed one by one, alone or against a neighbour that they touch or partly cover;
3. litter: debris and nuclei out of focus, which no label mentions;
4. the camera: blur, haze, uneven illumination, Poisson noise of the photons, read noise, counts.

Sizes and contrasts follow the grey fluorescence images of the 2018 Data Science Bowl (BBBC038): nuclei of 9-50 px
diameter, brightness varying by 0.27 between the nuclei of an image and by 0.22 inside one (coefficients of variation),
17 % of the nuclei touching another, a background of 2-15 counts out of 255.

The bytes depend on scene and seed alone: nothing runs in threads, and light is computed in float64 and rounded once, so
that the last bits, in which processors differ, do not reach the counts (``test_bytes_do_not_depend_on_the_cpu``).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.nuclei import ObjectPlane, litter, populate
from training.paths import given_path
from training.scene import NucleiScene, SceneError

__all__ = ["NucleiScene", "SceneError", "main", "render_nuclei", "write_dataset"]

STRIP_ROWS = 256  # rows exposed at a time: bounds the memory that photons and noise take
HAZE_STEP = 4  # haze is smooth: it is computed on every fourth pixel of each axis


def render_nuclei(
    scene: NucleiScene, seed: int
) -> tuple[NDArray[np.uint8 | np.uint16], NDArray[np.uint16 | np.uint32]]:
    """Render one picture and its labels.

    The labels depend on what is in the scene and on ``seed``, not on how the picture is taken: the same field may be
    rendered with other optics, noise or bit depth.

    Parameters
    ----------
    scene
        What to show, and how it is taken.
    seed
        Any non-negative integer. The same scene and seed give the same bytes.

    Returns
    -------
    image_yx
        Shape ``scene.size_yx``; ``uint8`` for 8 bits, else ``uint16`` with values below ``2**scene.bit_depth``.
    labels_yx
        Shape ``scene.size_yx``; 0 is background, the nuclei are 1 to n without gaps, each one 4-connected piece;
        ``uint16``, or ``uint32`` for more than 65,535 nuclei.
    """
    layout_rng, camera_rng = (default_rng(stream) for stream in SeedSequence(seed).spawn(2))
    plane = ObjectPlane(
        labels_yx=np.zeros(scene.size_yx, dtype=np.int32), light_yx=np.zeros(scene.size_yx, dtype=np.float64)
    )
    populate(plane, scene, layout_rng)
    litter(plane, scene, layout_rng)
    image_yx = _expose(_through_optics(plane.light_yx, scene), scene, camera_rng)
    labels_dtype = np.uint16 if len(plane.placed) <= np.iinfo(np.uint16).max else np.uint32
    return image_yx, plane.labels_yx.astype(labels_dtype)


def _through_optics(light_yx: NDArray[np.float64], scene: NucleiScene) -> NDArray[np.float64]:
    """Blur by the point spread function, and spread a share of the light widely, as a widefield microscope does."""
    height, width = light_yx.shape
    sharp_yx: NDArray[np.float64] = ndimage.gaussian_filter(light_yx, scene.blur_px)
    spread_px = 3 * math.sqrt(scene.radius_px[0] * scene.radius_px[1])
    coarse_yx = ndimage.gaussian_filter(sharp_yx[::HAZE_STEP, ::HAZE_STEP], spread_px / HAZE_STEP)
    haze_yx = ndimage.zoom(coarse_yx, HAZE_STEP, order=1, mode="nearest", grid_mode=True)[:height, :width]
    sharp_yx *= 1 - scene.haze
    sharp_yx += scene.haze * haze_yx
    sharp_yx += scene.background
    return sharp_yx


def _expose(light_yx: NDArray[np.float64], scene: NucleiScene, rng: Generator) -> NDArray[np.uint8 | np.uint16]:
    """Light to counts: uneven illumination, photons, read noise, gain, offset, quantisation."""
    height, width = light_yx.shape
    full_scale = 2**scene.bit_depth - 1
    counts_per_photon = scene.exposure * full_scale / scene.photons
    middle_y, middle_x = rng.uniform(0.35, 0.65, 2)
    fall_y = ((np.arange(height) + 0.5) / height - middle_y) ** 2
    fall_x = ((np.arange(width) + 0.5) / width - middle_x) ** 2
    image_yx = np.empty((height, width), dtype=np.uint8 if scene.bit_depth == 8 else np.uint16)
    for start in range(0, height, STRIP_ROWS):
        strip = slice(start, start + STRIP_ROWS)
        illumination_yx = 1 - 2 * scene.shading * np.minimum(fall_y[strip, None] + fall_x[None, :], 0.5)
        photons_yx = rng.poisson(light_yx[strip] * illumination_yx * scene.photons)
        signal_yx = photons_yx + scene.read_noise * rng.standard_normal(photons_yx.shape)
        counts_yx = np.rint(scene.dark_offset * full_scale + counts_per_photon * signal_yx)
        image_yx[strip] = np.clip(counts_yx, 0, full_scale).astype(image_yx.dtype)
    return image_yx


def _varied(scene: NucleiScene, rng: Generator) -> NucleiScene:
    """Return the scene under another slide and another setting of the microscope."""
    size, crowd, blur, haze, exposure = np.exp(rng.uniform(-1, 1, 5) * (0.45, 0.5, 0.3, 0.6, 0.5))
    return replace(
        scene,
        radius_px=(max(2.0, size * scene.radius_px[0]), max(2.0, size * scene.radius_px[1])),
        coverage=min(0.5, crowd * scene.coverage),
        chromocentres=scene.chromocentres + (6.0 if rng.random() < 0.25 else 0.0),
        blur_px=blur * scene.blur_px,
        haze=min(1.0, haze * scene.haze),
        exposure=min(1.0, exposure * scene.exposure),
    )


def write_dataset(folder: Path, count: int, scene: NucleiScene, seed: int) -> None:
    """Write pictures and labels as training reads them: ``images/`` and ``labels/``, paired by name.

    From picture to picture the size and number of the nuclei, focus, haze and exposure vary around ``scene``, as from
    slide to slide. A longer set begins with the pictures of a shorter one of the same scene and seed.

    Parameters
    ----------
    folder
        Where to write; made if missing. Files of the same names are replaced.
    count
        Number of pictures, at least 1.
    scene
        The scene to vary. Pictures are PNG for 8 bits and TIFF for more; labels are 16-bit PNG, and TIFF only where
        more than 65,535 nuclei ask for ``uint32``.
    seed
        Any non-negative integer.

    Raises
    ------
    SceneError
        If ``count`` is below 1.
    """
    if count < 1:
        raise SceneError(f"count is {count}; ask for at least 1 picture")
    for index, image_seed in enumerate(SeedSequence(seed).generate_state(count)):
        image_yx, labels_yx = render_nuclei(_varied(scene, default_rng(image_seed)), int(image_seed))
        _write(folder / "images" / f"nuclei-{index:04d}", image_yx, as_png=image_yx.dtype == np.uint8)
        _write(folder / "labels" / f"nuclei-{index:04d}", labels_yx, as_png=labels_yx.dtype == np.uint16)


def _write(stem: Path, plane_yx: NDArray[np.uint8 | np.uint16 | np.uint32], *, as_png: bool) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    if as_png:
        Image.fromarray(plane_yx).save(stem.with_suffix(".png"))
    else:
        _write_tiff(stem.with_suffix(".tif"), plane_yx)


def _write_tiff(path: Path, plane_yx: NDArray[np.uint8 | np.uint16 | np.uint32]) -> None:
    # No software tag, no description: the file's bytes depend on the pixels alone.
    tifffile.imwrite(path, plane_yx, photometric="minisblack", metadata=None, software=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a dataset (``--out``) or a single picture (``--single``).

    Parameters
    ----------
    arguments
        The command line without the program's name; ``sys.argv`` where None.

    Returns
    -------
    int
        Exit status: 0, or 2 where a value is out of range or a file cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.synthetic", description=(__doc__ or "").partition("\n")[0]
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=given_path, metavar="DIR", help="write a dataset: DIR/images and DIR/labels")
    target.add_argument(
        "--single", type=given_path, metavar="FILE.tif", help="write one picture, and FILE-labels.tif beside it"
    )
    parser.add_argument("--count", type=int, default=8, help="pictures in the dataset (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(256, 256),
        metavar=("HEIGHT", "WIDTH"),
        help="in pixels (default: 256 256)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: %(default)s)")
    parser.add_argument(
        "--bit-depth", type=int, choices=(8, 12, 16), default=16, help="of the camera (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        scene = NucleiScene(size_yx=tuple(options.size), bit_depth=options.bit_depth)
        if options.out is not None:
            write_dataset(options.out, options.count, scene, options.seed)
        else:
            single: Path = options.single
            image_yx, labels_yx = render_nuclei(scene, options.seed)
            single.parent.mkdir(parents=True, exist_ok=True)
            _write_tiff(single, image_yx)
            _write_tiff(single.with_name(f"{single.stem}-labels.tif"), labels_yx)
    except (SceneError, OSError) as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
