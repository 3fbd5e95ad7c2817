"""The rule by which a package tells its objects apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(gt=0, lt=1)]
Channels = tuple[Annotated[int, Field(ge=0)], ...]


class LabelRule(BaseModel):
    """How instances are told apart.

    Parameters
    ----------
    method
        ``components``: connected components of the foreground. ``watershed``: components of the confident
        pixels are seeds, which grow over the foreground along falling probability.
    foreground
        Channels whose probabilities sum up to "object" (with background / interior / boundary: 1 and 2).
    seeds
        Channels whose probabilities sum up to "inside of one object" (with a boundary class: 1).
    boundary
        Channels whose probabilities are taken off those of the seeds (watershed only), for nets that give a boundary
        beside the foreground, not as a part of it: foreground and boundary with a sigmoid each.
    threshold
        Foreground where its probability is above this.
    seed_threshold
        Seed where the seeds' probability is above this (watershed only).
    min_seed_px
        Smaller components of seed pixels are no seeds (watershed only): another seed grows over them, and an object
        without any larger one is dropped.
    min_seed_share
        Nor are those smaller than this share of the typical seed in the same connected foreground (watershed only),
        which holds the median of all seed pixels there, seeds in order of area.
    min_area_px
        Smaller objects are dropped.
    min_score
        Objects whose mean foreground probability, filled holes included, is below this are dropped.
    connectivity
        1: pixels that share an edge are connected; 2: a corner is enough.
    fill_holes
        Whether background enclosed by one object becomes part of it.
    object_name
        What an object is called, where classes such as interior and boundary only serve to part objects.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["components", "watershed"] = "components"
    foreground: Annotated[Channels, Field(min_length=1)] = (1,)
    seeds: Annotated[Channels, Field(min_length=1)] = (1,)
    boundary: Channels = ()
    threshold: Probability = 0.5
    seed_threshold: Probability = 0.5
    min_seed_px: Annotated[int, Field(ge=0)] = 0
    min_seed_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    min_area_px: Annotated[int, Field(ge=0)] = 0
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.0
    connectivity: Literal[1, 2] = 1
    fill_holes: bool = False
    object_name: str = "object"

    @model_validator(mode="after")
    def _boundary_takes_effect(self) -> LabelRule:
        if self.boundary and self.method == "components":
            raise ValueError(
                f"boundary {list(self.boundary)} is taken off seeds, and components have none; use watershed"
            )
        return self

    def with_values(
        self, *, threshold: float | None = None, min_area_px: int | None = None, min_score: float | None = None
    ) -> LabelRule:
        """Return the rule with the values that are given in place of its own."""
        values = {"threshold": threshold, "min_area_px": min_area_px, "min_score": min_score}
        return self.model_copy(update={name: value for name, value in values.items() if value is not None})

    def at_scale(self, scale: float) -> LabelRule:
        """Return the rule for probabilities of an image that the net has seen at another scale: areas in its pixels."""
        areas = {name: round(getattr(self, name) / scale**2) for name in ("min_seed_px", "min_area_px")}
        return self.model_copy(update=areas)

    @property
    def has_helper_classes(self) -> bool:
        """Whether some class is no seed: a boundary that parts objects and means nothing by itself."""
        return bool(self.boundary) or set(self.seeds) < set(self.foreground)

    def tells_object_or_not(self, channels: int) -> bool:
        """Whether the mask of a net with so many classes is of two values, which the evidence suffices for.

        So it is where channel 0 is an object: no channel of its own says "background" then.
        """
        return self.has_helper_classes or channels <= 2 or 0 in self.foreground

    def mask_classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of the values of :func:`model.labels.class_mask`, for a net with these ``classes``."""
        if not self.tells_object_or_not(len(classes)):
            return tuple(classes)
        one = len(self.foreground) == 1 and not self.has_helper_classes
        outside = "background" if self.has_helper_classes or 0 in self.foreground else classes[0]
        return outside, classes[self.foreground[0]] if one else self.object_name
