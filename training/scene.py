"""What a synthetic picture of nuclei shows, and how it is taken: the parameters of :mod:`training.synthetic`."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import TrainingError

LARGEST_RADIUS_PX = 512.0
MOST_PHOTONS = 1e9
_LIMITS = {
    "coverage": 0.5,
    "touching": 1,
    "overlap": 0.5,
    "irregularity": 1,
    "texture": 1,
    "chromocentres": 100,
    "mitotic": 1,
    "debris_per_megapixel": 1e5,
    "blur_px": 100,
    "haze": 1,
    "background": 100,
    "shading": 1,
    "read_noise": MOST_PHOTONS,
    "dark_offset": 1,
}  # each from 0 to this


class SceneError(TrainingError):
    """The scene cannot be rendered: a value is out of its range."""


@dataclass(frozen=True, slots=True)
class NucleiScene:
    """What is in the picture and how it is taken. *Light* is measured in the mean light of a typical nucleus.

    Attributes
    ----------
    size_yx
        Height and width, in pixels.
    radius_px
        Smallest and largest radius of a nucleus (of the circle of equal area), in pixels.
    coverage
        Share of the image's area that nuclei are to cover, 0 to 0.5; it sets their number. Where no room is left for
        a further nucleus, fewer are placed.
    touching
        Share of the nuclei that are placed against another, 0 to 1. With 0 none touch.
    overlap
        Largest share of its area by which a nucleus may lie under its neighbours, 0 to 0.5.
    irregularity
        Deviation of the outline from an ellipse, relative to the radius.
    texture
        Contrast of the chromatin, as a coefficient of variation.
    chromocentres
        Mean number of bright spots in a nucleus: 0 as in human, about 8 as in mouse cells.
    mitotic
        Share of the nuclei that are condensed: smaller, longer and brighter.
    debris_per_megapixel
        Bright specks that no label mentions, per 10**6 pixels.
    blur_px
        Standard deviation of the Gaussian that stands for the point spread function, in pixels.
    haze
        Share of the light that is spread over three radii around, 0 to 1.
    background
        Light outside the nuclei.
    shading
        Loss of light towards the corners, 0 to 1.
    photons
        Photons per pixel in a typical nucleus: sets the Poisson noise.
    read_noise
        Standard deviation of the camera's noise, in photons.
    exposure
        Counts of a typical nucleus over the full scale of the camera, 0 to 1; what is brighter than 1 saturates.
    dark_offset
        Counts of an unlit pixel over the full scale, 0 to 1.
    bit_depth
        Bits of the camera: 8 (``uint8``), 12 or 16 (``uint16``).

    Raises
    ------
    SceneError
        If a value is out of its range.
    """

    size_yx: tuple[int, int] = (256, 256)
    radius_px: tuple[float, float] = (6.0, 15.0)
    coverage: float = 0.15
    touching: float = 0.2
    overlap: float = 0.12
    irregularity: float = 0.04
    texture: float = 0.16
    chromocentres: float = 0.0
    mitotic: float = 0.03
    debris_per_megapixel: float = 120.0
    blur_px: float = 1.0
    haze: float = 0.12
    background: float = 0.04
    shading: float = 0.3
    photons: float = 400.0
    read_noise: float = 3.0
    exposure: float = 0.3
    dark_offset: float = 0.02
    bit_depth: int = 16

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            if not 0 <= (value := getattr(self, name)) <= limit:
                raise SceneError(f"{name} is {value}; give a number from 0 to {limit:g}")
        if min(self.size_yx) < 1:
            raise SceneError(f"size_yx is {self.size_yx}; give at least 1 pixel along each axis")
        if not 2 <= self.radius_px[0] <= self.radius_px[1] <= LARGEST_RADIUS_PX:
            raise SceneError(
                f"radius_px is {self.radius_px}; give two from 2 to {LARGEST_RADIUS_PX:g} px, smallest first"
            )
        if not 0 < self.photons <= MOST_PHOTONS:
            raise SceneError(f"photons is {self.photons}; give more than 0 and at most {MOST_PHOTONS:g} per pixel")
        if not 0 < self.exposure <= 1:
            raise SceneError(f"exposure is {self.exposure}; give a share of the full scale above 0, at most 1")
        if self.bit_depth not in (8, 12, 16):
            raise SceneError(f"bit_depth is {self.bit_depth}; give 8, 12 or 16")
