"""A process that crashes again and again waits longer and longer, up to half a minute."""

from __future__ import annotations

from tidewheel.apps.supervisor.backoff import FIRST_US, LONGEST_US, STEADY_US, Backoff


def test_each_crash_in_a_row_doubles_the_wait_up_to_the_longest():
    backoff, waits = Backoff(), []
    for _ in range(9):
        backoff = backoff.crashed(now_us=1_000, ran_us=0)
        waits.append(backoff.not_before_us - 1_000)
    assert waits[:4] == [FIRST_US, 2 * FIRST_US, 4 * FIRST_US, 8 * FIRST_US]
    assert waits[-1] == LONGEST_US


def test_a_process_that_ran_steadily_starts_again_at_once():
    assert Backoff(crashes=8).crashed(now_us=0, ran_us=STEADY_US) == Backoff(crashes=1, not_before_us=FIRST_US)
