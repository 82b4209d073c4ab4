"""The status of a ModelProject: what a person sees by `kubectl get modelprojects`, from journal and pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidewheel.clock import utc_text
from tidewheel.deployment.rollout import LOADING
from tidewheel.deployment.status import ServerStatus
from tidewheel.findings import Finding
from tidewheel.reconcile.head import Head
from tidewheel.spec.project import ModelProject

APPLIED, SERVING = "Applied", "Serving"


@dataclass(frozen=True)
class Told:
    """What is known of one project. ``fault``: why its code is not in force or nothing could be done."""

    observed_generation: int
    digest: str | None
    spec: ModelProject | None
    head: Head
    generation: int
    statuses: tuple[ServerStatus, ...]
    replicas: int
    fault: Finding | None
    namespace: str
    paused: bool = False
    waiting: tuple[str, ...] = ()  # decisions that wait for a person


def status_of(told: Told, before: Mapping[str, Any], now_us: int) -> dict[str, Any]:
    """The new status; conditions keep the time of their last change from ``before``."""
    head = told.head
    served = [status for status in told.statuses if status.generation == told.generation and told.generation > 0]
    finding = _newest(told)
    status: dict[str, Any] = {
        "observedGeneration": told.observed_generation,
        "code": told.digest or "",
        "version": head.champion or "",
        "previous": head.previous or "",
        "generation": told.generation,
        "traffic": _traffic(head),
        "stage": _stage(told),
        # Of the pods that are there, which may be more than the least, or of those that should be.
        "ready": f"{len(served)}/{max(len(told.statuses), told.replicas)}",
        "waiting": ", ".join(told.waiting),
        "finding": finding.reason if finding else "",
        "message": finding.message[:500] if finding else "",
        "url": f"http://{told.spec.name}-predictor.{told.namespace}" if told.spec and head.champion else "",
    }
    fault = told.fault
    applied = ("False", fault.reason, fault.message) if fault else ("True", "Applied", f"code {told.digest or ''}"[:60])
    if head.champion is None:
        serving = ("False", "NoVersion", "no version is @champion yet: train one, then move the alias")
    elif not served:
        serving = ("False", "Waiting", f"no pod serves generation {told.generation} yet")
    else:
        serving = ("True", "Serving", f"version {head.champion} on {len(served)} pods")
    status["conditions"] = [
        _condition(kind, *said, told.observed_generation, before.get("conditions", ()), now_us)
        for kind, said in ((APPLIED, applied), (SERVING, serving))
    ]
    return status


def _condition(
    kind: str, value: str, reason: str, message: str, generation: int, before: Sequence[Mapping[str, Any]], now_us: int
) -> dict[str, Any]:
    was = next((one for one in before if one.get("type") == kind), {})
    at = was.get("lastTransitionTime") if was.get("status") == value else None
    return {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message[:1000],
        "observedGeneration": generation,
        "lastTransitionTime": at or utc_text(now_us // 1_000_000 * 1_000_000),
    }


def _traffic(head: Head) -> str:
    return ", ".join(f"{version}: {weight:.0%}" for version, weight in sorted(head.weights.items()) if weight)


def _stage(told: Told) -> str:
    """Where the rollout is, in few words."""
    head, spec = told.head, told.spec
    if head.staged:
        return f"loading {head.staged}"
    if head.rollout is None:
        return "steady" if head.champion else "empty"
    state, ending = head.rollout.state, head.rollout.ending
    if ending is not None:
        return f"{state.version} {ending.outcome}{', waits for approval' if told.waiting else ''}"
    if state.step == LOADING:
        return f"{state.version}: loading"
    steps = spec.rollout.steps if spec and spec.rollout else ()
    kind = "shadow" if state.step < len(steps) and steps[state.step].shadow else "canary"
    return f"{state.version}: {kind} ({state.step + 1}/{len(steps)}){', paused' if told.paused else ''}"


def _newest(told: Told) -> Finding | None:
    if told.fault is not None:
        return told.fault
    if told.head.rollout and told.head.rollout.ending and told.head.rollout.ending.findings:
        return told.head.rollout.ending.findings[0]
    return next(iter(told.head.refused.values()), None)
