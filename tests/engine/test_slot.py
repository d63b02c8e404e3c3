"""When a slot holds all of its session."""

from __future__ import annotations

import numpy as np

from holdfast_server.engine.api import MediaSpan
from holdfast_server.engine.slot import PendingPicture, PendingText, Slot


def test_a_slot_that_waits_for_a_picture_is_not_settled() -> None:
    slot = Slot("a", 0)
    assert slot.settled
    slot.pending.append(PendingPicture(MediaSpan("d", 0, 4, 4)))
    assert not slot.settled
    slot.pending.append(PendingText(np.array([1], np.int32)))
    assert not slot.settled
    slot.pending.popleft()
    assert slot.settled  # the last token is held back
