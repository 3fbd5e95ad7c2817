"""What a net shall learn to tell, and the rule that makes objects of it: classes, their scheme, the smallest object."""

from __future__ import annotations

import math
from typing import Literal

from model.label_rule import LabelRule
from training.choosing.plan import Choice, percent
from training.data.interiors import MOST_LOST, Lost, count_lost
from training.data.survey import Survey
from training.options import Targets
from training.recipe import Recipe

_SOME_TOUCH, _LARGE_PX, _THIN = 0.02, 24, 0.45  # when objects have arms that a boundary would eat
_MOST_WIDE = 4
_LACK = "have no interior, or one in pieces"
_CLASSES = {"boundary": ("background", "interior", "boundary"), "contact": ("background", "object", "contact")}


def choose_targets(survey: Survey) -> tuple[Targets, Choice]:
    """Choose classes and scheme: of numbered objects one that leaves an interior to all but a few."""
    if survey.guess.kind == "semantic":
        return _semantic(survey)
    objects = survey.objects
    low, middle, _ = objects.diameter_px
    sizes = f"{objects.touching:.0%} of the objects touch another, the thinnest 5 % are {objects.width_px:.0f} px wide"
    arms = objects.touching > _SOME_TOUCH and middle >= _LARGE_PX and objects.width_px < low * _THIN
    interior = math.floor((objects.width_px - 1) / 2)  # one must be left of the thinnest
    boundary, lost = _widest(survey, "boundary", min(round(middle / 16), interior))
    if not arms and lost.share <= MOST_LOST:
        return boundary, Choice(f"scheme boundary, {boundary.boundary_px} px wide", sizes)
    contact, still_lost = _widest(survey, "contact", round(middle / 12))
    what = f"scheme contact, {contact.boundary_px} px wide"
    if arms:
        return contact, Choice(what, f"{sizes}, the smallest 5 % {low:.0f} px across: thin arms stay whole")
    beside = f"beside a boundary of {boundary.boundary_px} px {lost} {_LACK}"
    if still_lost.lost < lost.lost:
        return contact, Choice(what, f"{beside}, beside contacts {still_lost.lost}")
    return boundary, Choice(
        f"scheme boundary, {boundary.boundary_px} px wide", f"{sizes}; {beside}, beside contacts {still_lost.lost}"
    )


def fresh_rule(survey: Survey, targets: Targets) -> LabelRule:
    """Label rule for classes: a watershed from the interiors, or the components of all that is not background."""
    filled = survey.guess.kind == "instances" and survey.objects.hollow <= MOST_LOST
    if targets.scheme in {"boundary", "contact"}:
        return LabelRule(method="watershed", foreground=(1, 2), seeds=(1,), fill_holes=filled)
    every = tuple(range(1, len(targets.classes)))
    return LabelRule(foreground=every, seeds=every, fill_holes=filled)


def inherit_targets(origin: Recipe, survey: Survey) -> tuple[Targets, LabelRule, tuple[Choice, ...]]:
    """Take classes, scheme and label rule over from the recipe of a net, as far as they suit the masks.

    Returns
    -------
    tuple[Targets, LabelRule, tuple[Choice, ...]]
        What is taken, chosen anew where the classes cannot be learnt from these masks, or cost more objects than those
        chosen anew; and the reasons for that, none where all is inherited.

    """
    inherited, rule = origin.targets, origin.labels
    reason, lost = f"scheme {inherited.scheme} cannot be inherited", None
    if _fits(origin, survey):
        lost = count_lost(survey.masks_yx, inherited, choose_labels(survey, rule)[0])
        if lost.share <= MOST_LOST:
            return inherited, rule, ()
        reason = f"by scheme {inherited.scheme}, {inherited.boundary_px} px wide, {lost} {_LACK}"
    targets, about = choose_targets(survey)
    fresh = fresh_rule(survey, targets).model_copy(update={"object_name": rule.object_name})
    if lost is not None and count_lost(survey.masks_yx, targets, fresh).lost >= lost.lost:
        return inherited, rule, ()
    if inherited.same_head(targets):
        narrow = inherited.model_copy(update={"boundary_px": targets.boundary_px})
        return narrow, rule, (about, Choice(f"boundary_px {narrow.boundary_px}", reason))
    return targets, fresh, (about, Choice("the head begins anew", reason))


def choose_labels(survey: Survey, rule: LabelRule) -> tuple[LabelRule, Choice]:
    """Keep a rule but for the smallest object: half of what all but 1 % of the annotated ones of each class exceed.

    Seeds may be half as large, and scores are any: how sure a net will be of such objects is not known.
    """
    smallest = survey.objects.small_area_px
    area = int(smallest / 2)
    chosen = {"min_area_px": area, "min_seed_px": min(rule.min_seed_px, area // 2), "min_score": 0.0}
    whose = survey.objects.small_class
    which = "" if whose is None else f" of class {whose}, the smallest ones,"
    what, reason = f"{rule.method}, min_area_px {area}", f"99 % of the objects{which} have at least {smallest:.0f} px"
    if survey.objects.hollow > MOST_LOST and not rule.fill_holes:
        what, reason = f"{what}, holes kept", f"{reason}, {survey.objects.hollow:.0%} of them have holes"
    return rule.model_copy(update=chosen), Choice(what, reason)


def _semantic(survey: Survey) -> tuple[Targets, Choice]:
    count = len(survey.class_shares)
    if count == 2:
        targets = Targets(classes=("background", "foreground"), scheme="foreground")
        return targets, Choice("scheme foreground", f"masks of two values: {percent(survey.foreground)} foreground")
    names = ("background", *(f"class{index}" for index in range(1, count)))
    shares = ", ".join(map(percent, survey.class_shares))
    return Targets(classes=names, scheme="classes"), Choice("scheme classes", f"{count} classes: {shares}")


def _fits(origin: Recipe, survey: Survey) -> bool:
    """Whether the origin's classes can be learned from these masks."""
    scheme, count = origin.targets.scheme, len(origin.targets.classes)
    if survey.guess.kind == "instances":
        return scheme != "classes"
    return count == len(survey.class_shares) and (scheme == "classes" or (scheme == "foreground" and count == 2))


def _widest(survey: Survey, scheme: Literal["boundary", "contact"], wish_px: int) -> tuple[Targets, Lost]:
    """Choose the width of the third class: the widest up to a wish that costs few objects, else what costs fewest."""
    tried = []
    for width in range(max(1, min(_MOST_WIDE, wish_px)), 0, -1):
        targets = Targets(classes=_CLASSES[scheme], scheme=scheme, boundary_px=width)
        tried.append((targets, count_lost(survey.masks_yx, targets, fresh_rule(survey, targets))))
        if tried[-1][1].share <= MOST_LOST:
            return tried[-1]
    return min(tried, key=lambda pair: pair[1].lost)
