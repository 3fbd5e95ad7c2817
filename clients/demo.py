"""Start the service, segment one image over HTTP, write mask and overlay: the whole path in one go.

usage: python clients/demo.py FOLDER      (FOLDER/sample.tif is segmented; mask.png and overlay.png are written there)
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

_START_S = 60
_OUTLINE = np.array([255, 196, 0], dtype=np.uint8)


@contextmanager
def running_service(**settings: str) -> Iterator[str]:
    """Run ``unet-service serve`` on a free port; yields its address once it is ready, and stops it in the end.

    ``settings`` go into its environment: ``UNET_BACKEND="cpu"``.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command, env=os.environ | settings) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url, process)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    reason = "it does not answer"
    until = time.monotonic() + _START_S
    with client_of(url) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                sys.exit(f"the service ended with exit code {process.returncode}")
            try:
                answer = client.get("/readyz")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                return
            reason = answer.text
            time.sleep(0.1)
    sys.exit(f"the service is not ready after {_START_S} s: {reason}")


def client_of(url: str) -> httpx.Client:
    """Client of a service on this machine, to which no proxy of the environment leads."""
    return httpx.Client(base_url=url, timeout=300, trust_env=False)


def overlay(image_yx: NDArray[Any], labels_yx: NDArray[Any]) -> NDArray[np.uint8]:
    """Outlines of ``labels_yx`` drawn on the contrast-stretched image: (y, x, 3) uint8."""
    low, high = np.percentile(image_yx, (0.5, 99.5))
    grey = np.clip((image_yx.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) ** 0.6 * 255
    picture = np.repeat(grey.astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    picture[find_boundaries(labels_yx, mode="outer")] = _OUTLINE
    return picture


def main(folder: Path) -> None:
    """Segment ``folder / sample.tif``."""
    sample = folder / "sample.tif"
    body = sample.read_bytes()
    with running_service() as url, client_of(url) as client:
        answers = {}
        for output in ("mask", "labels"):
            answer = client.post("/segment", params={"output": output}, content=body)
            if answer.status_code != 200:
                sys.exit(f"the service answered {answer.status_code}: {answer.text}")
            answers[output] = answer
    (folder / "mask.png").write_bytes(answers["mask"].content)
    labels = np.asarray(Image.open(io.BytesIO(answers["labels"].content)))
    Image.fromarray(overlay(tifffile.imread(sample), labels)).save(folder / "overlay.png")
    receipt = json.loads(answers["labels"].headers["X-UNet-Receipt"])
    height, width = labels.shape
    sys.stdout.write(
        f"{sample}: {width} x {height} px, {receipt['input']['dtype']}; model {receipt['model']['name']} "
        f"{receipt['model']['version']} on {receipt['provider']}\n"
        f"{int(labels.max())} objects in {answers['labels'].elapsed.total_seconds():.2f} s\n"
        f"wrote {folder / 'mask.png'} and {folder / 'overlay.png'}\n"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
