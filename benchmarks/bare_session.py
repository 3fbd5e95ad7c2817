"""A bare session over the tiles of many images, in a process of its own: what :mod:`benchmarks.mixed_load` compares to.

It opens the package as the service does, cuts every image as the service's planner does, and runs the session over the
tiles, read and normalised beforehand; its answers are thrown away. A run is one round of the mix.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from benchmarks.overhead import bare_loop
from benchmarks.serving import Row, environment, row
from benchmarks.worker import Job, Worker, answer, working
from service.bench import blobs
from service.engine.engine import plan_limits, session_options
from service.engine.registry import load_model
from service.settings import Settings


def starting(package: Path, chosen: Row, cache: str, edges: Sequence[int]) -> AbstractContextManager[Worker]:
    """Start a session whose run is one round over squares of ``edges`` px; its facts are the tiles of each edge."""
    arguments = ["--package", str(package), "--row", str(chosen), "--edges", *map(str, edges)]
    return working("benchmarks.bare_session", arguments, environment(package, chosen, cache))


def main() -> None:
    """Be a session for :func:`starting`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--row", type=row, required=True, metavar="BACKEND:PRECISION")
    parser.add_argument("--edges", type=int, nargs="+", required=True, help="of the images of a round, px")
    arguments = parser.parse_args()

    def build() -> Job:
        settings = Settings()  # out of the environment, where the service has the same
        loaded = load_model(arguments.package, session_options(settings), plan_limits(settings))
        session, channels = loaded.session, len(loaded.package.spec.channels)
        counts = Counter(arguments.edges)
        tiles = {}
        for edge in counts:
            tiles[edge], _ = bare_loop(loaded, np.repeat(blobs(edge)[..., np.newaxis], channels, axis=-1))

        def run() -> None:
            for edge, count in counts.items():
                for _ in range(count):
                    for tile in tiles[edge]:
                        session.run(tile)

        found = {str(edge): [len(cut), *cut[0].shape[2:]] for edge, cut in tiles.items()}
        return Job(f"{session.provider} in {session.precision}", run, {"tiles": found})

    answer(build)


if __name__ == "__main__":
    main()
