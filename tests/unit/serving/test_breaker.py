"""The circuit breaker as a state machine."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tidewheel.serving.breaker import Breaker, BreakerLimits

LIMITS = BreakerLimits(failures=3, open_us=1000)


def opened(at_us: int) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(3):
        assert breaker.allows(at_us)
        breaker.failed(at_us)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(LIMITS)
    for now_us in (1, 2):
        breaker.failed(now_us)
    assert breaker.state == "closed"
    breaker.succeeded()
    for now_us in (3, 4):
        breaker.failed(now_us)
    assert breaker.state == "closed", "a success between them starts the count again"
    breaker.failed(5)
    assert breaker.state == "open"
    assert not breaker.allows(6)


def test_one_probe_is_let_through_when_its_time_has_come() -> None:
    breaker = opened(0)
    assert not breaker.allows(999)
    assert [breaker.allows(1000) for _ in range(5)] == [True, False, False, False, False]
    assert breaker.state == "probing"


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = opened(0)
    assert breaker.allows(1000)
    breaker.succeeded()
    assert breaker.state == "closed"
    assert all(breaker.allows(1001) for _ in range(9))


def test_a_probe_that_fails_opens_it_again_for_as_long() -> None:
    breaker = opened(0)
    assert breaker.allows(1000)
    breaker.failed(1200)
    assert breaker.state == "open"
    assert not breaker.allows(2199)
    assert breaker.allows(2200)


def test_a_probe_that_is_never_heard_of_is_followed_by_another() -> None:
    breaker = opened(0)
    assert breaker.allows(1000)
    assert not breaker.allows(1999)
    assert breaker.allows(2000)


@given(st.lists(st.integers(0, 400), min_size=50, max_size=400))
def test_a_store_that_is_down_is_asked_once_per_open_time_at_most(gaps_us: list[int]) -> None:
    breaker, now_us = opened(0), 0
    asked: list[int] = []
    for gap_us in gaps_us:
        now_us += gap_us
        if breaker.allows(now_us):
            asked.append(now_us)
            breaker.failed(now_us)
    assert all(later - earlier >= 1000 for earlier, later in pairwise(asked))
