"""When what happens in the demo's world; days count from the generator's day 0."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Calendar:
    """Day numbers. The world is stationary until ``drift_from``, but for the broken feed."""

    history_days: int = (
        63  # 4 weeks of training, a week of gap, a week of holdout, a week of delay, and windows to fill
    )
    stationary_days: int = 14
    broken_days: int = 2
    recovery_days: int = 2
    drift_days_at_most: int = 36  # a label of the new world must mature, pass the gap and leave a holdout behind it
    days_after: int = 1

    @property
    def broken_from(self) -> int:
        return self.history_days + self.stationary_days

    @property
    def drift_from(self) -> int:
        return self.broken_from + self.broken_days + self.recovery_days

    @property
    def last_day(self) -> int:
        return self.drift_from + self.drift_days_at_most

    def population(self) -> tuple[str, ...]:
        """Arguments of generate.py for a small town: about 1,600 payments a day."""
        return ("--customers", "800", "--terminals", "1600")

    def switches(self) -> tuple[str, ...]:
        """Arguments of generate.py for what changes in this world."""
        return (
            "--amount-factor", "1.8", "--amount-from", str(self.drift_from),
            "--new-pattern-from", str(self.drift_from),
            "--feed-broken", f"{self.broken_from}:{self.broken_from + self.broken_days}",
        )  # fmt: skip


def midnight(day: int) -> str:
    """The time at which a day begins, as commands read and print it."""
    return f"{START + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}"
