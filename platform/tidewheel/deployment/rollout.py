"""What becomes of a candidate: a pure state machine over (state, spec, observations, event time).

The controller calls it in a loop and acts on the decision: ``stay``, ``next`` (the state has moved one step),
``promote`` (every step passed) or ``abort`` (a guard spoke). It reads no clock: event time arrives with the requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tidewheel.findings import Decision, Finding
from tidewheel.spec.serving import AbortIf, Rollout

# Below this many requests a ratio says nothing: one error in ten is not ten percent.
MIN_REQUESTS_TO_JUDGE = 50
LOADING = -1


@dataclass(frozen=True)
class RolloutState:
    """Where a candidate is. ``step`` counts the spec's steps from 0, LOADING before the first; ``since_generation`` is
    the first document generation of the step, so that requests routed earlier do not count."""

    version: str
    champion: str
    step: int = LOADING
    since_generation: int = 0


@dataclass(frozen=True)
class Observations:
    """The candidate's own requests since the step began, and the pairs with the champion's.

    Times are event times; None before the first request. Latency is the p99 in microseconds.
    """

    n_requests: int = 0
    n_errors: int = 0
    n_degraded: int = 0
    n_pairs: int = 0
    n_flips: int = 0
    p99_latency_us: float | None = None
    first_event_us: int | None = None
    last_event_us: int | None = None


Guard = Callable[[AbortIf, Observations, str], Finding | None]


def errors_over_limit(limits: AbortIf, seen: Observations, version: str) -> Finding | None:
    return _ratio_over(
        "ErrorsOverLimit", "requests failed", seen.n_errors, seen.n_requests, limits.error_ratio, version
    )


def degraded_over_limit(limits: AbortIf, seen: Observations, version: str) -> Finding | None:
    return _ratio_over(
        "DegradedOverLimit", "replies were degraded", seen.n_degraded, seen.n_requests, limits.degraded_ratio, version
    )


def flips_over_limit(limits: AbortIf, seen: Observations, version: str) -> Finding | None:
    """Needs pairs: requests that both the candidate and the champion scored."""
    return _ratio_over(
        "FlipsOverLimit",
        "decisions differ from the champion's",
        seen.n_flips,
        seen.n_pairs,
        limits.decision_flip_ratio,
        version,
    )


def latency_over_limit(limits: AbortIf, seen: Observations, version: str) -> Finding | None:
    p99_us, limit_us = seen.p99_latency_us, limits.p99_latency_us
    if seen.n_requests < MIN_REQUESTS_TO_JUDGE or p99_us is None or p99_us <= limit_us:
        return None
    message = f"p99 latency {p99_us / 1000:.1f} ms over {seen.n_requests} requests, limit {limit_us / 1000:.1f} ms"
    return Finding("LatencyOverLimit", message, "critical", version, p99_us / 1000, limit_us / 1000)


GUARDS: Sequence[Guard] = (errors_over_limit, degraded_over_limit, flips_over_limit, latency_over_limit)


def _ratio_over(reason: str, what: str, n: int, of: int, limit: float, version: str) -> Finding | None:
    if of < MIN_REQUESTS_TO_JUDGE or n <= limit * of:
        return None
    message = f"{n} of {of} {what} ({n / of:.2%}), limit {limit:.2%}"
    return Finding(reason, message, "critical", version, n / of, limit)


def advance(
    state: RolloutState, rollout: Rollout, seen: Observations, now_us: int | None, *, loaded: bool = True
) -> tuple[RolloutState, Decision]:
    """One turn of the machine.

    ``now_us`` is the newest event time of the step's requests, None before the first. ``loaded`` says that every live
    server has the candidate ready. After the last step the state stays there and every turn says ``promote`` until a
    guard speaks, so that a candidate that waits for a person stays under watch. The caller stamps
    ``since_generation`` of a moved state with the generation that it writes.
    """
    if state.step == LOADING:
        if not loaded:
            return state, Decision("stay")
        return replace(state, step=0), Decision("next")
    findings = tuple(found for guard in GUARDS if (found := guard(rollout.abort_if, seen, state.version)))
    if findings:
        return state, Decision("abort", findings)
    if not _step_passed(state, rollout, seen, now_us):
        return state, Decision("stay")
    if state.step + 1 < len(rollout.steps):
        return replace(state, step=state.step + 1), Decision("next")
    steps = len(rollout.steps)
    message = f"{steps} step{'s' if steps != 1 else ''} passed, {seen.n_requests} requests in the last one"
    return state, Decision("promote", (Finding("RolloutDone", message, "info", state.version),))


def _step_passed(state: RolloutState, rollout: Rollout, seen: Observations, now_us: int | None) -> bool:
    step = rollout.steps[state.step]
    limits = step.shadow or step.canary
    if limits is None:  # the spec refuses such a step
        raise ValueError("a rollout step is neither shadow nor canary")
    if seen.first_event_us is None or now_us is None:
        return False
    return now_us - seen.first_event_us >= limits.for_us and seen.n_requests >= limits.min_requests


def step_weights(state: RolloutState | None, rollout: Rollout | None, champion: str) -> dict[str, float]:
    """Weights of a document: the candidate's canary share first, the champion takes the rest."""
    if state is None or rollout is None or state.step == LOADING or state.step >= len(rollout.steps):
        return {champion: 1.0}
    canary = rollout.steps[state.step].canary
    if canary is None:
        return {champion: 1.0}
    return {state.version: canary.traffic, champion: 1.0 - canary.traffic}


def step_shadow(state: RolloutState | None, rollout: Rollout | None) -> tuple[str, ...]:
    """Versions that shadow in the state's step."""
    if state is None or rollout is None or state.step == LOADING or state.step >= len(rollout.steps):
        return ()
    return (state.version,) if rollout.steps[state.step].shadow else ()
