"""Receipts in words: how results were made, as the methods of a paper say it, and the command that makes them again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.agreement import Agreement
from model.wording import counted

_FOUND = ("objects", "linked_objects", "channel_name")
"""Members of a receipt's ``output`` that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Made:
    """Results that were made alike.

    Parameters
    ----------
    receipts
        Of all of them; at least one.

    """

    receipts: Sequence[Mapping[str, Any]]

    @property
    def model(self) -> Mapping[str, Any]:
        """Name, version and hashes of the package."""
        model: Mapping[str, Any] = self.receipts[0]["model"]
        return model

    def summary(self) -> str:
        """How many there are, and what was found in them."""
        kind = self.receipts[0]["output"]["kind"]
        inputs = [receipt["input"] for receipt in self.receipts]
        planes = sum(each.get("planes", 1) for each in inputs)
        of_planes = f" of {counted(planes, 'plane')} in all" if planes > len(inputs) else ""
        what = kind
        if kind == "labels":
            what = counted(sum(receipt["output"].get("objects", 0) for receipt in self.receipts), "object")
        return f"{what} of {counted(len(inputs), 'image')}{of_planes}"

    def paragraph(self) -> str:
        """One paragraph, for the methods of a paper."""
        receipt = self.receipts[0]
        output, model = receipt["output"], self.model
        sentences = [
            f"Images were segmented with unet-service {receipt['service']} and the model package {model['name']} "
            f"{model['version']} (SHA-256 {model.get('sha256', 'not known')}), which ran in "
            f"{receipt.get('precision', 'a precision that is not known')} on {receipt.get('provider', 'a device')}."
        ]
        if receipt.get("agreement"):
            sentences.append(f"On the package's test image, compared with fp32: {Agreement(**receipt['agreement'])}.")
        if "channel" in output:
            name = f" ({output['channel_name']})" if "channel_name" in output else ""
            sentences.append(f"The net saw channel {output['channel']}{name}, counted from 0.")
        if "scale" in output:
            sentences.append(f"For the net images were resampled by {output['scale']:g}, and its output back.")
        if views := receipt["tiles"].get("views"):
            sentences.append(f"Probabilities are the mean of {views} mirrored and turned views.")
        sentences.append(_of_output(output))
        return " ".join(sentences)

    def command(self) -> str:
        """Return the command that makes such results of images again."""
        output, model = self.receipts[0]["output"], self.model
        options = {"model": f"{model['name']}@{model['version']}", "output": output["kind"]}
        for name, value in output.items():
            if name != "kind" and name not in _FOUND:
                text = ",".join(f"{part:g}" for part in value) if isinstance(value, list) else _text(value)
                options[name.removesuffix("_yx").removesuffix("_um")] = text
        for name in ("backend", "precision"):
            if name in self.receipts[0]:
                options[name] = self.receipts[0][name]
        flags = [part for name, text in options.items() for part in (f"--{name.replace('_', '-')}", text)]
        if self.receipts[0]["tiles"].get("views"):
            flags.append("--mirror")
        return shlex.join(["unet-service", "segment", "IMAGES", "-o", "RESULTS", *flags])

    def notes(self) -> list[str]:
        """What the receipts note, and of how many images."""
        found = Counter(note for receipt in self.receipts for note in receipt["input"].get("notes", ()))
        return [f"{counted(images, 'image')}: {note}" for note, images in found.items()]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_output(output: Mapping[str, Any]) -> str:
    kind = output["kind"]
    if kind == "probabilities":
        return "The results are the probabilities of its classes."
    asked = [
        f"{words} {_text(output[name])}{unit}"
        for name, words, unit in (
            ("threshold", "a threshold of", ""),
            ("min_area", "a smallest area of", " px"),
            ("min_score", "a least mean probability of", ""),
        )
        if name in output and not (kind == "mask" and name != "threshold")
    ]
    what = "Objects were found" if kind == "labels" else "Pixels were classified"
    changed = f" with {', '.join(asked)} in place of its own" if asked else ""
    linked = (
        f" Objects of neighbouring planes have one number where their intersection over union is at least "
        f"{output['link']:g}."
        if "link" in output
        else ""
    )
    return f"{what} by the package's rule{changed}.{linked}"


def made_alike(receipts: Iterable[Mapping[str, Any]]) -> list[Made]:
    """Part receipts into those of results that were made alike, in the order of the first of each."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for receipt in receipts:
        output = {name: value for name, value in receipt["output"].items() if name not in _FOUND}
        alike = [receipt.get(name) for name in ("service", "model", "backend", "provider", "precision", "agreement")]
        key = json.dumps([*alike, output, receipt["tiles"].get("views")], sort_keys=True)
        groups.setdefault(key, []).append(receipt)
    return [Made(group) for group in groups.values()]
