"""What `kubectl get modelprojects` says, in each state of a project."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spec_samples import GOOD_PROJECT
from tidewheel.clock import parse_utc
from tidewheel.deployment.document import Variant
from tidewheel.deployment.rollout import LOADING, RolloutState
from tidewheel.deployment.status import ServerStatus
from tidewheel.findings import Finding
from tidewheel.reconcile.head import ActiveRollout, Ending, Head
from tidewheel.reconcile.objects.project_status import Told, status_of
from tidewheel.spec.load import parse_project

NOW_US = parse_utc("2026-03-09T12:00:00Z")
ROLLOUT = """
rollout:
  unit: customer
  steps: [{shadow: {for: 1h}}, {canary: {traffic: 0.1, for: 1h}}]
"""
SPEC = parse_project(GOOD_PROJECT + ROLLOUT, "project.yaml")
SERVED = Head(champion="3", previous="2", weights={"3": 1.0}, variants={"3": Variant("3", "a" * 64, {"approve": 0.0})})


def server(generation: int) -> ServerStatus:
    return ServerStatus("card-fraud", 1, 0, 8080, generation, 0)


TOLD = Told(7, "d" * 64, SPEC, SERVED, 12, (server(12), server(12)), 2, None, "team")


def rolling(step: int, **more: Any) -> Head:
    return replace(SERVED, rollout=ActiveRollout(RolloutState("4", "3", step, 5), **more))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(TOLD, ("3", "steady", "2/2", ""), id="steady"),
        pytest.param(replace(TOLD, head=Head(), generation=0, statuses=()), ("", "empty", "0/2", ""), id="none yet"),
        pytest.param(replace(TOLD, head=replace(SERVED, staged="4")), ("3", "loading 4", "2/2", ""), id="staged"),
        pytest.param(replace(TOLD, head=rolling(LOADING)), ("3", "4: loading", "2/2", ""), id="candidate loads"),
        pytest.param(replace(TOLD, head=rolling(0)), ("3", "4: shadow (1/2)", "2/2", ""), id="shadow"),
        pytest.param(replace(TOLD, head=rolling(1)), ("3", "4: canary (2/2)", "2/2", ""), id="canary"),
        pytest.param(
            replace(TOLD, head=rolling(1), paused=True), ("3", "4: canary (2/2), paused", "2/2", ""), id="held"
        ),
        pytest.param(
            replace(TOLD, head=rolling(1, ending=Ending("passed", 0)), waiting=("promote-1",)),
            ("3", "4 passed, waits for approval", "2/2", ""), id="waits for a person",
        ),
        pytest.param(
            replace(TOLD, head=rolling(1, ending=Ending("aborted", 0, (Finding("LatencyOverLimit", "slow"),)))),
            ("3", "4 aborted", "2/2", "LatencyOverLimit"), id="aborted",
        ),
        pytest.param(replace(TOLD, statuses=(server(12), server(11))), ("3", "steady", "1/2", ""), id="one behind"),
        pytest.param(replace(TOLD, statuses=(server(12),) * 3), ("3", "steady", "3/3", ""), id="scaled up"),
        pytest.param(
            replace(TOLD, fault=Finding("SignatureInvalid", "by a stranger", "critical")),
            ("3", "steady", "2/2", "SignatureInvalid"), id="new code is refused",
        ),
        pytest.param(
            replace(TOLD, head=replace(SERVED, refused={"5": Finding("ParityMismatch", "differs")})),
            ("3", "steady", "2/2", "ParityMismatch"), id="a version is refused",
        ),
    ],
)  # fmt: skip
def test_the_columns_say(told: Told, expected: tuple[str, ...]) -> None:
    status = status_of(told, {}, NOW_US)
    assert tuple(status[column] for column in ("version", "stage", "ready", "finding")) == expected


def test_traffic_is_shown_by_version() -> None:
    told = replace(TOLD, head=replace(SERVED, weights={"3": 0.75, "4": 0.25}))
    assert status_of(told, {}, NOW_US)["traffic"] == "3: 75%, 4: 25%"


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    first = status_of(TOLD, {}, NOW_US)
    later = status_of(replace(TOLD, fault=Finding("BundleInvalid", "no")), first, NOW_US + 60_000_000)
    at = {one["type"]: one["lastTransitionTime"] for one in later["conditions"]}
    assert at == {"Applied": "2026-03-09T12:01:00Z", "Serving": "2026-03-09T12:00:00Z"}
    again = status_of(TOLD, first, NOW_US + 60_000_000)
    assert again == first, "nothing is written where nothing changed"
