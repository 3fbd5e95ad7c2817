"""The part of a recipe that says by which figures a net is judged."""

from __future__ import annotations

from typing import Literal

from training.ranges import Part

Measure = Literal["foreground", "ap", "seg", "isbi"]


class Scoring(Part):
    """By which figures a net is judged; the measures are defined in :mod:`training.measures`.

    Parameters
    ----------
    measures
        ``foreground``: IoU and Dice, of each class where the mask tells several. ``ap``: average precision at IoU 0.5
        to 0.9. ``seg``: SEG of the Cell Tracking Challenge. ``isbi``: pixel, Rand and warping error of the ISBI 2012 EM
        challenge. ``ap`` and ``seg`` need instances. Without it: foreground, and ap where the masks are instances.
    choose_by
        The figure that chooses the best net; of errors the lowest. Without it: the mean of IoU and AP at 0.5, or IoU
        alone where there are no instances. IoU and Dice of several classes are means over them.
    mirror
        Whether ``evaluate`` and ``cross-validate`` average over the eight mirrored and turned views of an image, as the
        service does where it is asked to. Validation during training and the figures of a package's card never do.

    """

    measures: tuple[Measure, ...] | None = None
    choose_by: (
        Literal["iou", "dice", "pooled_iou", "ap@0.5", "seg", "warping_error", "rand_error", "pixel_error"] | None
    ) = None
    mirror: bool = False

    def measured(self, kind: str) -> tuple[Measure, ...]:
        """Return the measures for masks of this kind."""
        if self.measures is not None:
            return self.measures
        return ("foreground", "ap") if kind == "instances" else ("foreground",)

    def problem_with(self, kind: str) -> str | None:
        """Say what cannot be measured on masks of this kind, if anything."""
        measured = self.measured(kind)
        if not measured:
            return "scoring.measures is empty; leave it out or name at least one"
        needy = [name for name in measured if name in {"ap", "seg"}]
        if needy and kind != "instances":
            return f"measure {needy[0]!r} needs data.kind = 'instances'"
        source = {"ap@0.5": "ap", "seg": "seg", "iou": "foreground", "dice": "foreground", "pooled_iou": "foreground"}
        if self.choose_by is None and not {"foreground", "ap"} & set(measured):
            return f"scoring.choose_by must name the figure of {measured[0]!r} that chooses the best net"
        if self.choose_by is not None and source.get(self.choose_by, "isbi") not in measured:
            return f"scoring.choose_by = {self.choose_by!r} needs {source.get(self.choose_by, 'isbi')!r} in measures"
        return None
