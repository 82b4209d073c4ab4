"""Cadences of event time in cron's words: each tick is the end of a period plus its lateness."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tidewheel.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from tidewheel.pipelines.cadence import cron_of, schedule_of


@pytest.mark.parametrize(
    ("every_us", "lateness_us", "cron"),
    [
        pytest.param(DAY_US, 10 * MINUTE_US, "10 0 * * *", id="a day"),
        pytest.param(DAY_US, HOUR_US, "0 1 * * *", id="a day that waits for an hour"),
        pytest.param(DAY_US, 26 * HOUR_US, "0 2 * * *", id="a day that waits for more than one"),
        pytest.param(DAY_US, 90 * SECOND_US, "2 0 * * *", id="lateness is rounded up to a minute"),
        pytest.param(7 * DAY_US, HOUR_US, "0 1 * * 4", id="a week ends on Thursday, as the epoch began"),
        pytest.param(7 * DAY_US, 3 * DAY_US, "0 0 * * 0", id="a week that waits for three days"),
        pytest.param(HOUR_US, 5 * MINUTE_US, "5 * * * *", id="an hour"),
        pytest.param(6 * HOUR_US, 90 * MINUTE_US, "30 1,7,13,19 * * *", id="six hours"),
        pytest.param(15 * MINUTE_US, 10 * MINUTE_US, "10,25,40,55 * * * *", id="a quarter of an hour"),
        pytest.param(MINUTE_US, MINUTE_US, "* * * * *", id="a minute"),
        pytest.param(36 * HOUR_US, MINUTE_US, None, id="no divisor of a day"),
        pytest.param(3 * DAY_US, MINUTE_US, None, id="three days"),
        pytest.param(45 * SECOND_US, MINUTE_US, None, id="less than a minute"),
    ],
)
def test_cron_says_what_it_can(every_us: int, lateness_us: int, cron: str | None):
    assert cron_of(every_us, lateness_us) == cron


def test_what_cron_cannot_say_is_an_interval_of_at_least_a_minute():
    assert schedule_of(36 * HOUR_US, MINUTE_US) == timedelta(hours=36)
    assert schedule_of(SECOND_US, MINUTE_US) == timedelta(minutes=1)
