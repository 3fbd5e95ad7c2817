"""Nuclei, and the field that they fill: the object plane of :mod:`training.synthetic`.

Each nucleus is drawn in a patch of its own and placed by comparing that patch with the field beneath, so that time and
memory grow with the nuclei's area, never with nuclei times pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from training.scene import NucleiScene

GAP_PX = 2  # clear pixels around a nucleus that stands alone
LEAST_VISIBLE_PX = 12  # a nucleus of which less is seen is not placed
NEIGHBOURHOOD_PX = 128  # side of the squares within which nuclei are equally dense
ATTEMPTS = 40  # places tried for one nucleus


@dataclass(frozen=True, slots=True)
class _Nucleus:
    """One nucleus in a square patch around its centre."""

    inside_yx: NDArray[np.bool_]
    kept_clear_yx: NDArray[np.bool_]  # inside, and GAP_PX around
    light_yx: NDArray[np.float64]

    @property
    def half(self) -> int:
        """Pixels from the centre of the patch to its edge."""
        return len(self.inside_yx) // 2


@dataclass(slots=True)
class ObjectPlane:
    """The object plane while it fills: labels, light, and the centres of the nuclei with their patches' half sizes."""

    labels_yx: NDArray[np.int32]
    light_yx: NDArray[np.float64]
    placed: list[tuple[int, int, int]] = field(default_factory=list)

    def windows(self, centre_yx: tuple[int, int], half: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where a patch lies in the field, clipped to it, and that part in the patch's own frame."""
        spans = [(max(c - half, 0), min(c + half + 1, n)) for c, n in zip(centre_yx, self.labels_yx.shape, strict=True)]
        frame = tuple(slice(start, stop) for start, stop in spans)
        patch = tuple(slice(a - c + half, b - c + half) for (a, b), c in zip(spans, centre_yx, strict=True))
        return frame, patch

    def holds(self, centre_yx: tuple[int, int]) -> bool:
        """Whether a point lies in the field."""
        return all(0 <= c < n for c, n in zip(centre_yx, self.labels_yx.shape, strict=True))

    def is_clear(self, nucleus: _Nucleus, centre_yx: tuple[int, int]) -> bool:
        """Whether nothing lies under the nucleus, nor close to it."""
        frame, patch = self.windows(centre_yx, nucleus.half)
        return not np.any(self.labels_yx[frame][nucleus.kept_clear_yx[patch]])

    def hidden_share(self, nucleus: _Nucleus, centre_yx: tuple[int, int]) -> float:
        """Share of the nucleus, as far as it is in the field, where another one lies already."""
        frame, patch = self.windows(centre_yx, nucleus.half)
        inside_yx = nucleus.inside_yx[patch]
        area = int(np.count_nonzero(inside_yx))
        return int(np.count_nonzero(self.labels_yx[frame][inside_yx])) / area if area else 0.0

    def place(self, nucleus: _Nucleus, centre_yx: tuple[int, int]) -> bool:
        """Add the nucleus under those already there, if what stays visible is one piece and not too small."""
        frame, patch = self.windows(centre_yx, nucleus.half)
        inside_yx = nucleus.inside_yx[patch]
        visible_yx = inside_yx & (self.labels_yx[frame] == 0)
        if np.count_nonzero(visible_yx) < LEAST_VISIBLE_PX or ndimage.label(visible_yx)[1] != 1:
            return False
        # Where two nuclei lie on each other their light adds up, less what is out of focus.
        self.light_yx[frame] += nucleus.light_yx[patch] * np.where(visible_yx, 1.0, 0.4)
        self.placed.append((*centre_yx, nucleus.half))
        self.labels_yx[frame][visible_yx] = len(self.placed)
        return True

    def add_spot(self, centre_yx: tuple[int, int], sigma_px: float, light: float) -> None:
        """Add unlabelled light, Gaussian in shape."""
        half = math.ceil(3.5 * sigma_px)
        frame, patch = self.windows(centre_yx, half)
        axis = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
        self.light_yx[frame] += light * (axis[:, None] * axis[None, :])[patch]


def _draw_nucleus(scene: NucleiScene, rng: Generator) -> _Nucleus:
    low, high = scene.radius_px
    radius = low * (high / low) ** rng.beta(1.5, 1.7)
    aspect = 1 + rng.beta(1.7, 2.2)  # long axis over short axis
    brightness = math.exp(0.27 * rng.standard_normal())
    if rng.random() < scene.mitotic:
        radius, aspect, brightness = max(2.0, 0.65 * radius), aspect + 0.6, 2.2 * brightness
    order = np.arange(2, 7)
    amplitude = scene.irregularity * rng.uniform(0.4, 2.2) * rng.standard_normal(5) * 1.6 / order
    amplitude = np.clip(amplitude, -0.15, 0.15)
    phase, turn = rng.uniform(0, 2 * math.pi, 5), rng.uniform(0, math.pi)
    centre_y, centre_x = rng.uniform(-0.5, 0.5, 2)

    half = math.ceil(radius * math.sqrt(aspect) * (1 + float(np.abs(amplitude).sum()))) + GAP_PX + 1
    axis = np.arange(-half, half + 1, dtype=np.float64)
    y, x = axis[:, None] - centre_y, axis[None, :] - centre_x
    distance, angle = np.hypot(y, x), np.arctan2(y, x) - turn
    ellipse = radius / np.sqrt(np.cos(angle) ** 2 / aspect + np.sin(angle) ** 2 * aspect)
    outline = ellipse * (1 + sum(a * np.cos(k * angle + p) for a, k, p in zip(amplitude, order, phase, strict=True)))
    inside_yx = distance <= outline
    return _Nucleus(
        inside_yx=inside_yx,
        kept_clear_yx=distance <= outline + GAP_PX,
        light_yx=inside_yx * brightness * _interior(scene, rng, radius, np.minimum(distance / outline, 1.0)),
    )


def _interior(scene: NucleiScene, rng: Generator, radius: float, depth_yx: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light inside a nucleus of mean brightness 1; ``depth_yx`` is 0 at the centre and 1 at the outline."""
    light_yx = 0.78 + 0.33 * np.sqrt(1 - depth_yx**2)  # flat on the slide, thinner towards the rim
    for grain_px, share in ((max(0.8, radius / 9), 0.8), (radius / 2.5, 0.6)):
        noise_yx = ndimage.gaussian_filter(rng.standard_normal(depth_yx.shape), grain_px)
        light_yx += scene.texture * share * noise_yx * 2 * math.sqrt(math.pi) * grain_px  # back to unit variance
    half = depth_yx.shape[0] // 2
    nucleoli = [(rng.uniform(0.1, 0.2), -rng.uniform(0.1, 0.35)) for _ in range(rng.integers(0, 4))]
    chromocentres = [(rng.uniform(0.08, 0.16), rng.uniform(0.4, 1.0)) for _ in range(rng.poisson(scene.chromocentres))]
    axis = np.arange(-half, half + 1, dtype=np.float64)
    for width, contrast in (*nucleoli, *chromocentres):
        spot_y, spot_x = rng.uniform(-0.55, 0.55, 2) * radius
        sigma = max(0.7, width * radius)
        light_yx += contrast * (
            np.exp(-0.5 * ((axis - spot_y) / sigma) ** 2)[:, None] * np.exp(-0.5 * ((axis - spot_x) / sigma) ** 2)
        )
    return np.maximum(light_yx, 0.2)


def populate(plane: ObjectPlane, scene: NucleiScene, rng: Generator) -> None:
    """Place as many nuclei as the scene's coverage asks for; one that finds no room is left out."""
    height, width = scene.size_yx
    mean_radius = math.sqrt(scene.radius_px[0] * scene.radius_px[1])
    count = math.ceil(scene.coverage * height * width / (math.pi * mean_radius**2))
    crowding = rng.beta(1.2, 0.8, (height // NEIGHBOURHOOD_PX + 1, width // NEIGHBOURHOOD_PX + 1))
    crowding /= crowding.max()
    for _ in range(count):
        nucleus = _draw_nucleus(scene, rng)
        beside = bool(plane.placed) and rng.random() < scene.touching
        for centre_yx in _places_beside(plane, scene, nucleus, rng) if beside else _places_apart(crowding, scene, rng):
            if (beside or plane.is_clear(nucleus, centre_yx)) and plane.place(nucleus, centre_yx):
                break


def _places_apart(crowding: NDArray[np.float64], scene: NucleiScene, rng: Generator) -> Iterator[tuple[int, int]]:
    for _ in range(ATTEMPTS):
        y, x = int(rng.integers(scene.size_yx[0])), int(rng.integers(scene.size_yx[1]))
        if rng.random() < crowding[y // NEIGHBOURHOOD_PX, x // NEIGHBOURHOOD_PX]:
            yield y, x


def _places_beside(
    plane: ObjectPlane, scene: NucleiScene, nucleus: _Nucleus, rng: Generator
) -> Iterator[tuple[int, int]]:
    """Centres from which the nucleus, moved towards one that is there already, lies under it as far as drawn."""
    for _ in range(ATTEMPTS):
        y, x, half = plane.placed[rng.integers(len(plane.placed))]
        angle, wanted = rng.uniform(0, 2 * math.pi), rng.uniform(0, scene.overlap)
        for reach in range(half + nucleus.half, 0, -1):
            centre_yx = round(y + reach * math.sin(angle)), round(x + reach * math.cos(angle))
            share = plane.hidden_share(nucleus, centre_yx) if plane.holds(centre_yx) else 0.0
            if 0 < share >= wanted:
                if share <= scene.overlap:
                    yield centre_yx
                break


def litter(plane: ObjectPlane, scene: NucleiScene, rng: Generator) -> None:
    """Add debris and nuclei far out of focus: light that no label mentions."""
    height, width = scene.size_yx
    radius = math.sqrt(scene.radius_px[0] * scene.radius_px[1])
    specks = int(rng.poisson(scene.debris_per_megapixel * height * width / 1e6))
    for sigma_px, light in [
        *((rng.uniform(0.5, 1.3), 0.15 * math.exp(0.7 * rng.standard_normal())) for _ in range(specks)),
        *((radius * rng.uniform(0.5, 1.0), rng.uniform(0.02, 0.08)) for _ in range(len(plane.placed) // 10)),
    ]:
        plane.add_spot((int(rng.integers(height)), int(rng.integers(width))), sigma_px, light)
