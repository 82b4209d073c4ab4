"""The only module that reads the wall clock; everything else is given a time or a Clock.

Event time, request time and ``--as-of`` arrive with the data. All times are int64 microseconds since
the Unix epoch, UTC. Deadlines use ``monotonic_us``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


class Clock(Protocol):
    """Wall clock and monotonic clock, in microseconds."""

    def now_us(self) -> int: ...

    def monotonic_us(self) -> int: ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


def process_age_us() -> int:
    """How long ago this process began, before it ran a line of Python; 0 where the system does not tell."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:  # noqa: PTH123  # this module imports no pathlib
            started_s = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0, int((time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) * SECOND_US))
    except (OSError, ValueError, AttributeError):
        return 0


@dataclass
class FixedClock:
    """A clock that a test sets by hand."""

    at_us: int = 0

    def now_us(self) -> int:
        return self.at_us

    def monotonic_us(self) -> int:
        return self.at_us


def utc_text(at_us: int) -> str:
    """Microseconds UTC as ISO 8601 with a Z, whole seconds where there is no fraction.

    >>> utc_text(1_522_540_800_000_000)
    '2018-04-01T00:00:00Z'
    """
    at = datetime.fromtimestamp(at_us // SECOND_US, tz=UTC).replace(microsecond=at_us % SECOND_US)
    return at.isoformat().replace("+00:00", "Z")


def parse_utc(text: str) -> int:
    """ISO 8601 text to microseconds UTC; a date alone or a time without zone is read as UTC.

    Raises ValueError with what is allowed.

    >>> parse_utc("2018-04-01")
    1522540800000000
    >>> parse_utc("2018-04-01T02:00:00+02:00")
    1522540800000000
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"not a time (got {text!r}); write 2018-06-04 or 2018-06-04T12:30:00Z") from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    delta = at - epoch
    return (delta.days * 86_400 + delta.seconds) * SECOND_US + delta.microseconds
