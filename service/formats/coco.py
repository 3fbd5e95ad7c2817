"""COCO annotations: one JSON document that pycocotools loads as a detection ground truth.

``images`` has one entry per plane: ``file_name`` is that of the image's file (of a stack in all of its planes, which
``stack_index`` tells apart), or ``plane-0`` and so on where nobody has said it. ``categories`` has one entry per
foreground class, ``annotations`` one per object (labels) or per class that occurs (mask, ``iscrowd`` 1, since a class
may hold many objects), each with ``segmentation`` (compressed run lengths), ``bbox``, ``area`` and, for labels,
``score`` and ``label``, the object's number: one that goes through several planes has an annotation, with an ``id`` of
its own, in each. The receipt stands under ``info``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from service.formats.encoder import NO_PROBABILITIES, Encoder
from service.formats.json_text import dump_list, dump_object
from service.formats.result import SegmentationResult
from service.formats.rle import objects


class CocoEncoder(Encoder):
    """Writes the document that the module describes."""

    name = "coco"
    media_type = "application/json"
    extension = ".json"
    ending_in_folders = ".coco.json"
    kinds = frozenset({"mask", "labels"})
    refusal = f"coco {NO_PROBABILITIES}"
    of_edges = True

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write all planes of a mask or of labels.

        Raises
        ------
        UnsupportedOutput
            ``result`` holds probabilities.
        """
        self.check_kind(result.kind)
        height, width = result.size_yx
        images = [
            {"id": plane + 1, "file_name": result.file_name or f"plane-{plane}", "height": height, "width": width}
            | ({"stack_index": result.plane_index(plane)} if result.stack_axes else {})
            for plane in range(len(result.planes))
        ]
        categories = [{"id": index, "name": name} for index, name in enumerate(result.classes) if index]
        info = {"description": "U-Net segmentation", "receipt": dict(result.receipt)}
        fields = {"info": info, "images": images, "categories": categories}
        target.write(dump_object(fields, annotations=dump_list(_annotations(result))))


def _annotations(result: SegmentationResult) -> Iterator[dict[str, Any]]:
    number = 0
    for plane in range(len(result.planes)):
        for entry in objects(result, plane):
            if not entry["area"]:
                continue
            number += 1
            common = {
                "id": number,
                "image_id": plane + 1,
                "bbox": entry["bbox"],
                "area": entry["area"],
                "segmentation": entry["segmentation"],
            }
            if result.kind == "labels":
                yield common | {"category_id": 1, "iscrowd": 0, "label": entry["label"], "score": entry["score"]}
            else:
                yield common | {"category_id": entry["class_index"], "iscrowd": 1}
