"""What comes beside the net, told by what came before."""

from __future__ import annotations

from dataclasses import replace

from service.engine.packages.finishing import Finishing
from service.engine.request import SegmentRequest

LABELS = SegmentRequest(output="labels", format="tiff")
MEGAPIXEL = 1 << 20


def test_large_images_tell_more_than_many_small_ones() -> None:
    finishing = Finishing()
    finishing.add(LABELS, 64 * MEGAPIXEL, 6.4)
    for _ in range(10):
        finishing.add(LABELS, 500 * 500, 0.5)
    assert finishing.seconds(LABELS, 64 * MEGAPIXEL) == 6.4
    for _ in range(5):
        finishing.add(LABELS, MEGAPIXEL, 0.2)
    assert 6.4 < finishing.seconds(LABELS, 64 * MEGAPIXEL) < 9


def test_a_change_of_speed_is_believed_after_a_few_seconds_of_work() -> None:
    finishing = Finishing()
    for _ in range(30):
        finishing.add(LABELS, 10 * MEGAPIXEL, 1.0)
    for _ in range(10):
        finishing.add(LABELS, 10 * MEGAPIXEL, 5.0)
    assert 4.5 < finishing.seconds(LABELS, 10 * MEGAPIXEL) < 5


def test_nobody_is_refused_for_what_one_image_took() -> None:
    finishing = Finishing()
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 0, "nothing is known"
    finishing.add(LABELS, MEGAPIXEL, 40.0)
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 0
    finishing.add(LABELS, 2 * MEGAPIXEL, 1.0)
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 0.5, "the fastest counts"
    finishing.add(LABELS, MEGAPIXEL, 0.6)
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 0.5
    for _ in range(20):
        finishing.add(LABELS, MEGAPIXEL, 2.0)
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 2.0, "not that of long ago"


def test_what_small_images_took_refuses_no_large_ones() -> None:
    finishing = Finishing()
    for _ in range(2):
        finishing.add(LABELS, MEGAPIXEL, 1.0)
    assert finishing.least_seconds(LABELS, 4 * MEGAPIXEL) == 4.0
    assert finishing.least_seconds(LABELS, 5 * MEGAPIXEL) == 0
    assert finishing.least_seconds(LABELS, MEGAPIXEL // 8) == 0.125
    finishing.add(LABELS, 2 * MEGAPIXEL, 1.0)
    assert finishing.least_seconds(LABELS, 5 * MEGAPIXEL) == 0, "one is no more than one"


def test_what_larger_scales_took_refuses_no_smaller_one() -> None:
    finishing = Finishing()
    for scale in (1.0, 4.0, 4.0):
        finishing.add(replace(LABELS, scale=scale), MEGAPIXEL, scale**2)
    assert finishing.least_seconds(replace(LABELS, scale=2.0), MEGAPIXEL) == 0
    assert finishing.least_seconds(replace(LABELS, scale=4.0), MEGAPIXEL) == 1.0
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 0, "nothing is resampled"


def test_after_five_minutes_what_was_refused_is_tried_again() -> None:
    now = 0.0
    finishing = Finishing(lambda: now)
    finishing.add(LABELS, MEGAPIXEL, 1.0)
    now = 10.0
    finishing.add(LABELS, MEGAPIXEL, 1.0)
    now = 300.0
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 1.0
    now = 301.0
    assert finishing.least_seconds(LABELS, MEGAPIXEL) == 0
    assert finishing.seconds(LABELS, MEGAPIXEL) == 1.0, "a plan tells it still"


def test_until_images_tell_others_of_the_same_output_do_and_before_these_a_rule_of_thumb() -> None:
    finishing, mask, table = Finishing(), SegmentRequest(output="mask"), replace(LABELS, format="csv")
    assert finishing.seconds(LABELS, 2 * MEGAPIXEL) == 2 * finishing.seconds(table, MEGAPIXEL) > 0
    assert finishing.seconds(LABELS, MEGAPIXEL) > finishing.seconds(mask, MEGAPIXEL) > 0
    for kind, seconds in ((LABELS, 1.0), (replace(LABELS, format="rois"), 2.0), (mask, 7.0)):
        finishing.add(kind, MEGAPIXEL, seconds)
    assert finishing.seconds(LABELS, MEGAPIXEL) == 1.0
    assert finishing.seconds(table, MEGAPIXEL) == 2.0, "rather too long than too short"
    assert finishing.least_seconds(table, MEGAPIXEL) == 0, "nobody is refused for that"
