"""JSON with COCO run lengths.

One plane::

    {"format": "coco_rle", "output": "labels", "size": [height, width], "classes": ["background", "cell"],
     "pixel_size_um": [0.65, 0.65],
     "objects": [{"label": 1, "area": 231, "bbox": [left, top, width, height], "score": 0.97,
                  "segmentation": {"size": [height, width], "counts": "..."}}],
     "receipt": {...}}

For ``output: mask`` there is one entry per foreground class, absent ones included: ``{"class": "cell",
"class_index": 1, "area": ...}`` without a score. A stack has ``"stack_axes": "TZ"``, ``"stack_shape": [2, 3]`` and
``"planes": [{"index": [0, 0], "objects": [...]}, ...]`` in the place of ``objects``.

``pycocotools.mask.decode(entry["segmentation"])`` gives the pixels. Lengths run down the columns, background first.
Where objects are linked through a stack, ``label`` is the same in every plane of an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from service.formats.encoder import NO_PROBABILITIES, Encoder
from service.formats.json_text import dump, dump_list, dump_object, join_list
from service.formats.result import SegmentationResult
from service.formats.runs import ObjectRuns, empty_counts, object_runs


class RleEncoder(Encoder):
    """Writes the JSON that the module describes."""

    name = "rle"
    media_type = "application/json"
    extension = ".json"
    kinds = frozenset({"mask", "labels"})
    refusal = f"rle {NO_PROBABILITIES}"
    of_edges = True

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write all planes of a mask or of labels.

        Raises
        ------
        UnsupportedOutput
            ``result`` holds probabilities.
        """
        self.check_kind(result.kind)
        fields: dict[str, Any] = {
            "format": "coco_rle",
            "output": result.kind,
            "size": list(result.size_yx),
            "classes": list(result.classes),
            "pixel_size_um": result.pixel_size_um,
        }
        receipt = dump(dict(result.receipt))
        if not result.stack_axes:
            target.write(dump_object(fields, objects=dump_list(objects(result, 0)), receipt=receipt))
            return
        fields |= {"stack_axes": result.stack_axes, "stack_shape": list(result.stack_shape)}
        planes = (
            dump_object({"index": result.plane_index(plane)}, objects=dump_list(objects(result, plane)))
            for plane in range(len(result.planes))
        )
        target.write(dump_object(fields, planes=join_list(planes), receipt=receipt))


def objects(result: SegmentationResult, plane: int) -> Iterator[dict[str, Any]]:
    """Describe the objects (labels) or classes (mask) of one plane, as the module says."""
    size = list(result.size_yx)
    found = object_runs(result.planes[plane])
    if result.kind == "labels":
        for runs in found:
            number, score = result.number(plane, runs.label), result.score(plane, runs.label)
            yield {"label": number, **_region(runs, size), "score": score}
        return
    by_class = {runs.label: runs for runs in found}
    for index, name in enumerate(result.classes):
        if index:
            absent = ObjectRuns(index, 0, (0, 0, 0, 0), empty_counts(size[0] * size[1]))
            yield {"class": name, "class_index": index, **_region(by_class.get(index, absent), size)}


def _region(runs: ObjectRuns, size: list[int]) -> dict[str, Any]:
    return {
        "area": runs.area,
        "bbox": list(runs.bbox_xywh),
        "segmentation": {"size": size, "counts": runs.counts},
    }
