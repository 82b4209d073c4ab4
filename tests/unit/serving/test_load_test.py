"""A load test as figures, and how the highest rate is looked for."""

from __future__ import annotations

from collections import Counter

import pytest

from tidewheel.serving.client import LoadResult
from tidewheel.serving.load_test import CLOSE_ENOUGH, RateFigures, carried_rps, figures_of, next_rate_rps


def result(latencies_ms: list[float], failed: int = 0, degraded: int = 0) -> LoadResult:
    return LoadResult(
        n_requests=len(latencies_ms) + failed, n_ok=len(latencies_ms), n_failed=failed, n_degraded=degraded,
        duration_us=2_000_000, errors=Counter({"HTTP 503": failed}) if failed else Counter(),
        latencies_us=[round(1000 * one) for one in latencies_ms], lags_us=[100] * 99 + [9000],
    )  # fmt: skip


def at(rate_rps: float, *, carried: bool) -> RateFigures:
    return figures_of(result([1.0] * 100 if carried else [99.0] * 100), rate_rps, 50_000)


def test_what_was_late_or_failed_does_not_count_as_in_time() -> None:
    figures = figures_of(result([1.0] * 90 + [80.0] * 5, failed=5), 50.0, 50_000)
    assert figures.within_ratio == pytest.approx(0.9)
    assert figures.answered_rps == 47.5
    assert not figures.carried


def test_percentiles_are_of_the_answers_and_none_without_any() -> None:
    assert figures_of(result([1.0, 2.0, 3.0]), 1.0, None).latency_ms[0] == 2.0
    assert figures_of(result([], failed=3), 1.0, None).latency_ms == (None,) * 5


def test_a_rate_that_the_fallback_answered_is_not_carried() -> None:
    assert figures_of(result([1.0] * 100), 50.0, 50_000).carried
    assert not figures_of(result([1.0] * 100, degraded=2), 50.0, 50_000).carried


def test_a_client_that_was_late_itself_is_told_of() -> None:
    assert not figures_of(result([1.0]), 50.0, None).client_was_late
    late = result([1.0])
    late.lags_us = [5000] * 100
    assert figures_of(late, 50.0, None).client_was_late


@pytest.mark.parametrize("limit_rps", [3.0, 90.0, 100.0, 731.0, 4_000.0])
def test_the_highest_rate_is_found_to_within_what_is_close_enough(limit_rps: float) -> None:
    done: list[RateFigures] = []
    while (rate_rps := next_rate_rps(done, 20_000)) is not None:
        done.append(at(rate_rps, carried=rate_rps <= limit_rps))
    found = carried_rps(done)
    assert found is not None
    assert found <= limit_rps <= found * CLOSE_ENOUGH
    assert len(done) < 16


def test_looking_ends_at_the_most_that_was_asked_for() -> None:
    done: list[RateFigures] = []
    while (rate_rps := next_rate_rps(done, 750)) is not None:
        done.append(at(rate_rps, carried=True))
    assert [one.offered_rps for one in done] == [100, 200, 400, 750]
    assert carried_rps(done) == 750


def test_a_server_that_carries_nothing_ends_the_search() -> None:
    done: list[RateFigures] = []
    while (rate_rps := next_rate_rps(done, 750)) is not None:
        done.append(at(rate_rps, carried=False))
    assert carried_rps(done) is None
    assert done[-1].offered_rps < 1.0 or len(done) < 6
