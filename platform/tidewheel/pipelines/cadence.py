"""A cadence of event time as a schedule of the wall clock.

Data up to a boundary (see `spec.stages`) is complete when its lateness has passed, so a run starts then: a daily
monitor with ten minutes of lateness at 00:10. Cron says that where the cadence divides an hour or a day, or is a week;
any other cadence ticks at its own boundaries, and a run then looks at the newest complete one.
"""

from __future__ import annotations

from datetime import timedelta

from tidewheel.clock import DAY_US, HOUR_US, MINUTE_US

EPOCH_WEEKDAY = 4  # cron's number of Thursday, 1970-01-01


def cron_of(every_us: int, lateness_us: int) -> str | None:
    """Cron text for ``lateness_us`` after each boundary of ``every_us``; None where cron has no words for it.

    >>> cron_of(DAY_US, 10 * MINUTE_US)
    '10 0 * * *'
    >>> cron_of(6 * HOUR_US, HOUR_US)
    '0 1,7,13,19 * * *'
    >>> cron_of(7 * DAY_US, HOUR_US)
    '0 1 * * 4'
    """
    if every_us % MINUTE_US:
        return None
    late = -(-lateness_us // MINUTE_US)
    minute, hour, day = late % 60, late // 60 % 24, late // 1440
    if HOUR_US % every_us == 0:
        step = every_us // MINUTE_US
        minutes = "*" if step == 1 else ",".join(map(str, sorted((late + at) % 60 for at in range(0, 60, step))))
        return f"{minutes} * * * *"
    if every_us % HOUR_US == 0 and DAY_US % every_us == 0:
        step = every_us // HOUR_US
        hours = "*" if step == 1 else ",".join(map(str, sorted((hour + at) % 24 for at in range(0, 24, step))))
        return f"{minute} {hours} * * *"
    if every_us == 7 * DAY_US:
        return f"{minute} {hour} * * {(EPOCH_WEEKDAY + day) % 7}"
    return None


def schedule_of(every_us: int, lateness_us: int) -> str | timedelta:
    """What a DAG's ``schedule`` takes; never more often than each minute."""
    return cron_of(every_us, lateness_us) or timedelta(microseconds=max(every_us, MINUTE_US))
