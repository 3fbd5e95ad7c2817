"""A bare session over the tiles of many images, in a process of its own: what :mod:`benchmarks.mixed_load` compares to.

It opens the package as the service does, cuts every image as the service said that it does, and runs the session over
the tiles, read and normalised beforehand; its answers are thrown away. A run is one round of the mix.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from benchmarks.overhead import bare_batches
from benchmarks.serving import Row, environment, row
from benchmarks.worker import Job, Worker, answer, working
from service.bench import blobs
from service.engine.options import budget_of, plan_limits, session_options
from service.engine.packages.loading import load_model
from service.settings import Settings


def starting(
    package: Path, chosen: Row, cache: str, edges: Sequence[int], tiles_yx: Mapping[int, tuple[int, int]]
) -> AbstractContextManager[Worker]:
    """Start a session whose run is one round over squares of ``edges`` px, each cut into tiles of ``tiles_yx`` px."""
    images = [f"{edge}:{y}x{x}" for edge in edges for y, x in [tiles_yx[edge]]]
    arguments = ["--package", str(package), "--row", str(chosen), "--images", *images]
    return working("benchmarks.bare_session", arguments, environment(package, chosen, cache))


def _image(text: str) -> tuple[int, tuple[int, int]]:
    edge, _, tile = text.partition(":")
    y, _, x = tile.partition("x")
    return int(edge), (int(y), int(x))


def main() -> None:
    """Be a session for :func:`starting`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--row", type=row, required=True, metavar="BACKEND:PRECISION")
    parser.add_argument("--images", type=_image, nargs="+", required=True, metavar="EDGE:HEIGHTxWIDTH")
    arguments = parser.parse_args()

    def build() -> Job:
        settings = Settings()  # out of the environment, where the service has the same
        budget = budget_of(settings)
        loaded = load_model(arguments.package, session_options(settings, budget), plan_limits(settings, budget))
        session, channels = loaded.session, len(loaded.package.spec.channels)
        counts = Counter(arguments.images)
        batches = {
            (edge, input_yx): bare_batches(
                loaded, settings, np.repeat(blobs(edge)[..., np.newaxis], channels, axis=-1), input_yx
            )
            for edge, input_yx in counts
        }

        def run() -> None:
            for image, count in counts.items():
                for _ in range(count):
                    for batch in batches[image]:
                        session.run(batch)

        return Job(f"{session.provider} in {session.precision}", run)

    answer(build)


if __name__ == "__main__":
    main()
