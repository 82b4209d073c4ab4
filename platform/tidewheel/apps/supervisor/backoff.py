"""When a crashed process may start again: a pure rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tidewheel.clock import SECOND_US

FIRST_US = SECOND_US // 2
LONGEST_US = 30 * SECOND_US
STEADY_US = 60 * SECOND_US  # a process that ran this long is forgiven its past


@dataclass(frozen=True)
class Backoff:
    """Crashes in a row and the monotonic time before which the process stays down."""

    crashes: int = 0
    not_before_us: int = 0

    def crashed(self, now_us: int, ran_us: int) -> Backoff:
        """The state after a crash at ``now_us`` of a process that ran for ``ran_us``.

        >>> Backoff().crashed(now_us=0, ran_us=0).not_before_us
        500000
        >>> Backoff(crashes=3).crashed(now_us=0, ran_us=0).not_before_us
        4000000
        >>> Backoff(crashes=3).crashed(now_us=0, ran_us=STEADY_US).crashes
        1
        """
        crashes = 1 if ran_us >= STEADY_US else self.crashes + 1
        wait_us = min(LONGEST_US, FIRST_US * 2 ** (crashes - 1))
        return replace(self, crashes=crashes, not_before_us=now_us + wait_us)
