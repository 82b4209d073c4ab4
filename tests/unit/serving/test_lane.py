"""What work will take, and how it is cut."""

from __future__ import annotations

import pytest

from tidewheel.serving.lane import MOST_SHARE, UTMOST, Lane
from tidewheel.serving.snapshot import Cost

CALL = Cost(call_us=20_000.0, row_us=600.0)  # a call is dear, a further row is not
DEADLINE_US = 200_000


def test_a_batch_of_slow_work_has_room_in_its_share_of_the_deadline() -> None:
    lane = Lane(4096, slow=True)
    n = lane.batch_rows(CALL, DEADLINE_US)
    share_us = DEADLINE_US / MOST_SHARE
    assert lane.foretold_us(CALL, n) <= share_us < lane.foretold_us(CALL, n + 1)


def test_a_batch_is_never_less_than_a_row_and_never_more_than_allowed() -> None:
    assert Lane(4096, slow=True).batch_rows(Cost(call_us=1e6), DEADLINE_US) == 1
    assert Lane(64, slow=True).batch_rows(Cost(), DEADLINE_US) == 64
    assert Lane(128, slow=False).batch_rows(CALL, DEADLINE_US) == 128


def test_those_that_wait_are_foretold_by_batches_and_not_row_by_row() -> None:
    lane = Lane(4096, slow=True)
    n = lane.batch_rows(CALL, DEADLINE_US)
    lane.flying_rows, lane.waiting_rows = n, n
    assert lane.expected_us(1, CALL, DEADLINE_US) < DEADLINE_US, "two full batches and another one are in time"
    lane.waiting_rows = 4 * n
    assert lane.expected_us(1, CALL, DEADLINE_US) > DEADLINE_US


@pytest.mark.parametrize("rows", [1, 40])
def test_what_a_busy_machine_takes_is_learnt_whatever_the_batch_is(rows: int) -> None:
    lane = Lane(4096, slow=True)
    for _ in range(40):
        lane.took(rows, int(3 * lane.foretold_us(CALL, rows) / lane.factor), CALL)
    assert lane.factor == pytest.approx(3.0, rel=0.01)
    assert lane.foretold_us(CALL, lane.batch_rows(CALL, DEADLINE_US)) <= UTMOST * DEADLINE_US


def test_a_call_that_takes_its_share_alone_still_carries_many_rows() -> None:
    dear = Cost(call_us=50_000.0, row_us=600.0)
    assert Lane(4096, slow=True).batch_rows(dear, DEADLINE_US) > 50


def test_small_batches_of_a_dear_call_do_not_make_later_ones_small() -> None:
    lane = Lane(4096, slow=True)
    before = lane.batch_rows(CALL, DEADLINE_US)
    for _ in range(100):
        lane.took(1, 20_800, CALL)
    assert lane.batch_rows(CALL, DEADLINE_US) == pytest.approx(before, rel=0.05)
