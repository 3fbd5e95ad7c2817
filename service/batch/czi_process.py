"""Zeiss' library in a process of its own: on a damaged file it may crash, or never end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from model.images import UndecodableImage

_MOST_SILENCE_S = 600.0


class CziProcess:
    """An opened file.

    Nothing is read of what the process says but text, numbers and pixels, and no more of these than were asked for.

    Parameters
    ----------
    file
        Where it is.
    what
        How errors call it.

    Raises
    ------
    UndecodableImage
        Where the library cannot open it, or crashes, or takes longer than ten minutes; later as well.

    """

    def __init__(self, file: Path, what: str) -> None:
        self._what = what
        self._process = subprocess.Popen(  # noqa: S603 - a module of this program
            [sys.executable, "-m", "service.batch.czi_worker", os.path.abspath(file)],  # noqa: PTH100 - links are names
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # an interrupt is for the command alone
        )
        self._asked, self._answers = (cast("IO[bytes]", pipe) for pipe in (self._process.stdin, self._process.stdout))
        try:
            self.told: Mapping[str, Any] = self._answer()
            """See :func:`service.batch.czi_worker.header`."""
        except BaseException:
            self.close()
            raise

    def read_into(self, pixels: NDArray[Any], **asked: object) -> None:
        """Fill an array (y, x, samples) with what ``CziReader.read`` gives."""
        with suppress(BrokenPipeError):  # it has ended, and there is no answer
            self._asked.write(json.dumps(asked).encode() + b"\n")
            self._asked.flush()
        self._answer(pixels)

    def _answer(self, pixels: NDArray[Any] | None = None) -> Mapping[str, Any]:
        """One answer, and the pixels that come with it."""
        watch = threading.Timer(_MOST_SILENCE_S, self._process.kill)
        watch.start()
        try:
            told: Mapping[str, Any] = json.loads(self._answers.readline() or b"{}")
            if pixels is not None and told.get("bytes") == pixels.nbytes:
                came = self._answers.read(pixels.nbytes)
                if len(came) == pixels.nbytes:
                    pixels[...] = np.frombuffer(came, pixels.dtype).reshape(pixels.shape)
                    return told
        finally:
            watch.cancel()
        if pixels is not None or "sizes" not in told:
            reason = told.get("error", "Zeiss' library crashed on it, or did not come to an end")
            damage = "the file is damaged or incomplete: write it again and retry"
            raise UndecodableImage(f"{self._what} cannot be decoded ({reason}); {damage}")
        return told

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(BrokenPipeError):  # of a question that it has not taken
            self._asked.close()
        self._answers.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
