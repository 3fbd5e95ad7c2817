"""Render the README's picture from what `make demo` wrote: input beside overlay.

usage: python docs/picture.py demo docs/images/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

_CROP = (slice(280, 680), slice(280, 780))
_GAP_PX = 8


def main(folder: Path, out: Path) -> None:
    """Put a crop of ``folder / sample.tif`` and of ``folder / overlay.png`` side by side."""
    image_yx = tifffile.imread(folder / "sample.tif")[_CROP].astype(np.float32)
    low, high = np.percentile(image_yx, (0.5, 99.5))
    grey = (np.clip((image_yx - low) / (high - low), 0, 1) ** 0.6 * 255).astype(np.uint8)
    overlay_yxc = np.asarray(Image.open(folder / "overlay.png"))[_CROP]
    gap = np.full((grey.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    Image.fromarray(np.concatenate([np.repeat(grey[..., np.newaxis], 3, axis=-1), gap, overlay_yxc], axis=1)).save(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
