"""A load test as figures: what one rate gave, which rate comes next, and what the server can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tidewheel.serving.client import LoadResult

PERCENTS = (50.0, 90.0, 99.0, 99.9, 100.0)
CARRIED_RATIO = 0.99  # of what was sent must be answered in time
FIRST_RPS = 100.0
GROWTH = 2.0
CLOSE_ENOUGH = 1.15  # between the highest rate that was carried and the lowest that was not
LATE_CLIENT_MS = 2.0


@dataclass(frozen=True)
class RateFigures:
    """One rate. ``within_ratio``: share of all requests that were answered, within the deadline where there is one.

    ``latency_ms`` runs parallel to PERCENTS, None where nothing was answered; ``client_lag_ms`` is the 99th percentile
    of how late the client itself was.
    """

    offered_rps: float
    answered_rps: float
    n_requests: int
    n_ok: int
    n_failed: int
    n_degraded: int
    within_ratio: float
    latency_ms: tuple[float | None, ...]
    client_lag_ms: float
    errors: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def carried(self) -> bool:
        """Whether the server kept up: hardly anything failed, was late or was answered by the fallback."""
        own = self.within_ratio - self.n_degraded / self.n_requests if self.n_requests else 0.0
        return own >= CARRIED_RATIO

    @property
    def client_was_late(self) -> bool:
        return self.client_lag_ms > LATE_CLIENT_MS


def figures_of(result: LoadResult, offered_rps: float, deadline_us: int | None) -> RateFigures:
    """Figures of one rate; ``deadline_us`` None counts every answer."""
    latencies = np.array(result.latencies_us, dtype=np.int64)
    within = len(latencies) if deadline_us is None else int((latencies <= deadline_us).sum())
    seconds = result.duration_us / 1e6
    told = np.percentile(latencies, PERCENTS) / 1000 if len(latencies) else None
    return RateFigures(
        offered_rps=offered_rps,
        answered_rps=round(result.n_ok / seconds, 1) if seconds else 0.0,
        n_requests=result.n_requests,
        n_ok=result.n_ok,
        n_failed=result.n_failed,
        n_degraded=result.n_degraded,
        within_ratio=within / result.n_requests if result.n_requests else 0.0,
        latency_ms=(None,) * len(PERCENTS) if told is None else tuple(round(float(one), 3) for one in told),
        client_lag_ms=round(float(np.percentile(result.lags_us, 99)) / 1000, 3) if result.lags_us else 0.0,
        errors=dict(result.errors),
        reasons=dict(result.reasons),
    )


def next_rate_rps(done: Sequence[RateFigures], most_rps: float) -> float | None:
    """The rate to try after those: double until one is too much, then halve the gap; None when it is known.

    >>> next_rate_rps([], 10_000)
    100.0
    """
    carried = [one.offered_rps for one in done if one.carried]
    failed = [one.offered_rps for one in done if not one.carried]
    if not failed:
        upcoming = max(carried) * GROWTH if carried else FIRST_RPS
        return min(upcoming, most_rps) if not carried or max(carried) < most_rps else None
    low, high = max((rate for rate in carried if rate < min(failed)), default=0.0), min(failed)
    if not low:
        return high / 4 if high > 1.0 else None
    return None if high / low <= CLOSE_ENOUGH else round((low * high) ** 0.5, 1)


def carried_rps(done: Sequence[RateFigures]) -> float | None:
    """The highest rate that the server kept up with, below the first that it did not; None where it is not known."""
    limit = min((one.offered_rps for one in done if not one.carried), default=float("inf"))
    return max((one.offered_rps for one in done if one.carried and one.offered_rps < limit), default=None)
