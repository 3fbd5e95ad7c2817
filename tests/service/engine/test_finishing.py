"""What comes beside the net, told by what came before."""

from __future__ import annotations

from service.engine.finishing import Finishing
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
    assert 6.4 < (finishing.seconds(LABELS, 64 * MEGAPIXEL) or 0) < 9


def test_a_change_of_speed_is_believed_after_a_few_seconds_of_work() -> None:
    finishing = Finishing()
    for _ in range(30):
        finishing.add(LABELS, 10 * MEGAPIXEL, 1.0)
    for _ in range(10):
        finishing.add(LABELS, 10 * MEGAPIXEL, 5.0)
    assert 4.5 < (finishing.seconds(LABELS, 10 * MEGAPIXEL) or 0) < 5
