"""A circuit breaker: after failures in a row nobody asks any more, but for one probe now and then.

A pure state machine over monotonic time; whoever asks says how it went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "probing"]
STATES: tuple[State, ...] = ("closed", "open", "probing")


@dataclass(frozen=True)
class BreakerLimits:
    """``failures`` in a row open it; it stays open for ``open_us`` and is then probed once per ``open_us`` at most."""

    failures: int = 5
    open_us: int = 250_000


class Breaker:
    """Of one dependency. Used by one thread.

    >>> breaker = Breaker(BreakerLimits(failures=1, open_us=100))
    >>> breaker.failed(0); breaker.allows(50), breaker.allows(100), breaker.allows(101)
    (False, True, False)
    """

    def __init__(self, limits: BreakerLimits | None = None) -> None:
        self._limits = limits or BreakerLimits()
        self._n_failed = 0
        self._probe_at_us: int | None = None  # None while closed
        self._probing = False

    @property
    def state(self) -> State:
        if self._probe_at_us is None:
            return "closed"
        return "probing" if self._probing else "open"

    def allows(self, now_us: int) -> bool:
        """Whether to ask now; where it is open, the first who may is the probe."""
        if self._probe_at_us is None:
            return True
        if now_us < self._probe_at_us:
            return False
        # A probe that never says how it went must not keep the breaker open for ever.
        self._probe_at_us, self._probing = now_us + self._limits.open_us, True
        return True

    def succeeded(self) -> None:
        self._n_failed, self._probe_at_us, self._probing = 0, None, False

    def failed(self, now_us: int) -> None:
        self._n_failed += 1
        if self._probing or self._n_failed >= self._limits.failures:
            self._probe_at_us, self._probing = now_us + self._limits.open_us, False
