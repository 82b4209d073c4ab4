"""The rollout's state machine, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidewheel.clock import HOUR_US
from tidewheel.deployment.rollout import (
    LOADING,
    Observations,
    RolloutState,
    advance,
    step_shadow,
    step_weights,
)
from tidewheel.findings import Decision, Finding
from tidewheel.spec.serving import Rollout

ROLLOUT = Rollout.model_validate(
    {
        "unit": "customer",
        "steps": [
            {"shadow": {"for": "1h", "min_requests": 100}},
            {"canary": {"traffic": 0.05, "for": "1h", "min_requests": 50}},
        ],
        "abort_if": {
            "error_ratio": 0.01,
            "degraded_ratio": 0.02,
            "decision_flip_ratio": 0.05,
            "p99_latency": "50ms",
        },
    }
)
SHADOW = RolloutState("2", "1", step=0, since_generation=4)
CANARY = replace(SHADOW, step=1)
HEALTHY = Observations(n_requests=200, n_pairs=200, p99_latency_us=9_000.0, first_event_us=0, last_event_us=2 * HOUR_US)
NOW_US = 2 * HOUR_US


@pytest.mark.parametrize(
    ("state", "change", "now_us", "action", "step"),
    [
        pytest.param(SHADOW, {}, NOW_US, "next", 1, id="a shadow step that lasted and saw enough goes on"),
        pytest.param(SHADOW, {}, HOUR_US - 1, "stay", 0, id="a microsecond short of its time stays"),
        pytest.param(SHADOW, {}, HOUR_US, "next", 1, id="exactly its time passes"),
        pytest.param(SHADOW, {"n_requests": 99}, NOW_US, "stay", 0, id="one request short stays"),
        pytest.param(SHADOW, {"n_requests": 100}, NOW_US, "next", 1, id="exactly the least requests pass"),
        pytest.param(CANARY, {}, NOW_US, "promote", 1, id="the last step promotes"),
        pytest.param(CANARY, {"n_requests": 49}, NOW_US, "stay", 1, id="a canary without requests waits"),
        pytest.param(
            SHADOW, {"first_event_us": None, "n_requests": 0}, None, "stay", 0, id="no request yet: nothing moves"
        ),
    ],
)
def test_a_step_passes_by_event_time_and_requests(
    state: RolloutState, change: dict[str, Any], now_us: int | None, action: str, step: int
) -> None:
    moved, decision = advance(state, ROLLOUT, replace(HEALTHY, **change), now_us)
    assert (decision.action, moved.step) == (action, step)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        pytest.param(
            {"n_errors": 3},
            Finding("ErrorsOverLimit", "3 of 200 requests failed (1.50%), limit 1.00%", "critical", "2", 0.015, 0.01),
            id="errors over the limit",
        ),
        pytest.param(
            {"n_degraded": 5},
            Finding(
                "DegradedOverLimit", "5 of 200 replies were degraded (2.50%), limit 2.00%", "critical", "2", 0.025, 0.02
            ),
            id="degraded replies over the limit",
        ),
        pytest.param(
            {"n_flips": 11},
            Finding(
                "FlipsOverLimit",
                "11 of 200 decisions differ from the champion's (5.50%), limit 5.00%",
                "critical",
                "2",
                0.055,
                0.05,
            ),
            id="decision flips over the limit",
        ),
        pytest.param(
            {"p99_latency_us": 50_100.0},
            Finding(
                "LatencyOverLimit", "p99 latency 50.1 ms over 200 requests, limit 50.0 ms", "critical", "2", 50.1, 50.0
            ),
            id="latency over the limit",
        ),
    ],
)
def test_a_guard_aborts_in_any_step(change: dict[str, Any], finding: Finding) -> None:
    for state in (SHADOW, CANARY):
        assert advance(state, ROLLOUT, replace(HEALTHY, **change), NOW_US) == (state, Decision("abort", (finding,)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"n_errors": 2}, id="errors"),
        pytest.param({"n_degraded": 4}, id="degraded"),
        pytest.param({"n_flips": 10}, id="flips"),
        pytest.param({"p99_latency_us": 50_000.0}, id="latency"),
    ],
)
def test_exactly_at_the_limit_is_not_over_it(change: dict[str, Any]) -> None:
    assert advance(SHADOW, ROLLOUT, replace(HEALTHY, **change), NOW_US)[1].action == "next"


@pytest.mark.parametrize(
    ("change", "action"),
    [
        pytest.param({"n_requests": 49, "n_errors": 49, "n_pairs": 0}, "stay", id="49 requests: too few to judge"),
        pytest.param({"n_requests": 50, "n_errors": 50, "n_pairs": 0}, "abort", id="50 requests are judged"),
        pytest.param({"n_pairs": 49, "n_flips": 49}, "next", id="49 pairs: too few to judge flips"),
        pytest.param({"n_requests": 49, "p99_latency_us": 9e9}, "stay", id="49 requests: too few to judge latency"),
    ],
)
def test_guards_need_fifty_requests(change: dict[str, Any], action: str) -> None:
    assert advance(SHADOW, ROLLOUT, replace(HEALTHY, **change), NOW_US)[1].action == action


def test_a_candidate_that_is_not_loaded_everywhere_waits() -> None:
    loading = RolloutState("2", "1", LOADING, 3)
    assert advance(loading, ROLLOUT, Observations(), None, loaded=False) == (loading, Decision("stay"))
    assert advance(loading, ROLLOUT, Observations(), None, loaded=True) == (replace(loading, step=0), Decision("next"))


def test_a_candidate_that_passed_stays_under_watch() -> None:
    """Every turn after the last step says promote until a guard speaks."""
    state, decision = advance(CANARY, ROLLOUT, HEALTHY, NOW_US)
    message = "2 steps passed, 200 requests in the last one"
    assert decision == Decision("promote", (Finding("RolloutDone", message, "info", "2"),))
    assert advance(state, ROLLOUT, replace(HEALTHY, n_errors=200), NOW_US)[1].action == "abort"


def test_weights_and_shadow_follow_the_step() -> None:
    loading = replace(SHADOW, step=LOADING)
    assert [step_weights(s, ROLLOUT, "1") for s in (None, loading, SHADOW, CANARY)] == [
        {"1": 1.0},
        {"1": 1.0},
        {"1": 1.0},
        {"2": 0.05, "1": 0.95},
    ]
    assert [step_shadow(s, ROLLOUT) for s in (None, loading, SHADOW, CANARY)] == [(), (), ("2",), ()]
