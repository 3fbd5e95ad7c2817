"""How quickly `/livez` answers, and how much memory the service takes, while one large image runs.

    python -m benchmarks.probes [--size 4096] [--output labels] [--backend cpu]

The bare figure beside it is the same probe on the idle service, in the same run.
"""

from __future__ import annotations

import argparse
import io
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import tifffile

from benchmarks.serving import measured_service
from training.scene import NucleiScene
from training.synthetic import render_nuclei

_IDLE_PROBES = 300


def _probe_ms(client: httpx.Client) -> float:
    started = time.perf_counter()
    client.get("/livez").raise_for_status()
    return (time.perf_counter() - started) * 1000


def listener(url: str) -> psutil.Process:
    """The process that listens at ``url``."""
    port = httpx.URL(url).port
    return next(
        psutil.Process(connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
    )


def _line(name: str, milliseconds: list[float]) -> str:
    p50, p99 = np.percentile(milliseconds, (50, 99))
    count, worst = len(milliseconds), max(milliseconds)
    return f"{name:<5} {count:5d} probes: p50 {p50:6.1f} ms, p99 {p99:6.1f} ms, max {worst:6.1f} ms"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="edge of the square image, px")
    parser.add_argument("--output", default="mask", choices=["mask", "labels", "probabilities"])
    parser.add_argument("--format", default="tiff")
    parser.add_argument("--backend", default="cpu", choices=["auto", "cuda", "tensorrt", "openvino", "cpu"])
    arguments = parser.parse_args()
    image_yx, _ = render_nuclei(NucleiScene(size_yx=(arguments.size, arguments.size), bit_depth=16), seed=0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image_yx)
    with (
        measured_service(UNET_BACKEND=arguments.backend) as url,
        httpx.Client(base_url=url, timeout=60) as probe,
        ThreadPoolExecutor(1) as background,
    ):
        process = listener(url)
        idle = [_probe_ms(probe) for _ in range(_IDLE_PROBES)]
        asked = {"output": arguments.output, "format": arguments.format}
        answer = background.submit(httpx.post, f"{url}/segment", params=asked, content=buffer.getvalue(), timeout=600)
        busy, peak = [], 0
        while not answer.done():
            busy.append(_probe_ms(probe))
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.01)
        seconds = answer.result().raise_for_status().elapsed.total_seconds()
    what = f"{arguments.size} x {arguments.size} px uint16, output {arguments.output}"
    print(f"{what}: {seconds:.1f} s, peak {peak >> 20} MiB")
    print(_line("idle", idle))
    print(_line("busy", busy))


if __name__ == "__main__":
    main()
