"""What :mod:`service.batch.czi_process` starts: it opens one CZI file with Zeiss' library, and tells what it is asked.

Questions come by standard input, a line of JSON each; answers go by standard output, a line of JSON and, where it says
so, as many bytes. The first answer, which nobody asks for, is what the file is. It imports little, to be there soon.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _pylibCZIrw import SubBlockInfo
    from pylibCZIrw.czi import CziReader

_CACHE_BYTES = 1 << 28
"""Of decoded blocks, which several parts of an image have in common."""


def _serve(path: str, asked: IO[bytes], answers: IO[bytes]) -> None:
    from pylibCZIrw.czi import CacheOptions, CacheType, open_czi

    cache = CacheOptions(CacheType.Standard, max_memory_usage=_CACHE_BYTES, max_sub_block_count=1 << 16)
    with open_czi(path, cache_options=cache) as file:
        _tell(answers, header(file))
        for question in asked:
            pixels = file.read(**json.loads(question)).tobytes()
            _tell(answers, {"bytes": len(pixels)})
            answers.write(pixels)
            answers.flush()


def header(file: CziReader) -> Mapping[str, Any]:
    """What a file is.

    ``starts`` are the least indices along each dimension: not 0 in a file that was cut out of another, which the
    library's own bounding boxes do not tell.
    """
    types, compressions, starts = set(), set(), dict[str, int]()

    def note(_: int, block: SubBlockInfo) -> bool:
        types.add(block.pixelType.name)
        compressions.add(block.get_compression_mode().name)
        for name, index in block.coordinate.to_dict().items():
            starts[name] = min(index, starts.get(name, index))
        return True

    file.enumerate_subblocks(note)
    return {
        "sizes": {name: stop - start for name, (start, stop) in file.total_bounding_box_no_pyramid.items()},
        "place": file.total_bounding_rectangle_no_pyramid,
        "scenes": [[scene, place] for scene, place in sorted(file.scenes_bounding_rectangle_no_pyramid.items())],
        "types": sorted(types),
        "compressions": sorted(compressions),
        "starts": starts,
        "metadata": file.metadata,
    }


def _tell(answers: IO[bytes], told: Mapping[str, Any]) -> None:
    answers.write(json.dumps(told).encode() + b"\n")
    answers.flush()


def main(arguments: Sequence[str]) -> None:
    """Answer questions on one file, until there are no more."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever the library may print
        try:
            _serve(arguments[0], sys.stdin.buffer, answers)
        except Exception as error:
            _tell(answers, {"error": " ".join(str(error).split())[:200] or type(error).__name__})


if __name__ == "__main__":
    main(sys.argv[1:])
