"""Which time a run is about, and the runs that follow it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidewheel.clock import parse_utc
from tidewheel.findings import decision_id
from tidewheel.pipelines.times import RunTimes
from tidewheel.spec.load import load_project


@dataclass(frozen=True)
class Run:
    run_id: str = "manual"
    run_after: datetime = datetime(2026, 3, 9, 7, 30, tzinfo=UTC)
    data_interval_end: datetime | None = None


@pytest.fixture
def times(repository: Path) -> RunTimes:
    return RunTimes(load_project(repository / "model_templates" / "card_fraud"))  # daily, ten minutes late


@pytest.mark.parametrize(
    ("given", "as_of"),
    [
        pytest.param("2026-03-09", "2026-03-09T00:00:00Z", id="a date"),
        pytest.param("2026-03-09T01:00:00+02:00", "2026-03-08T23:00:00Z", id="another zone"),
    ],
)
def test_the_time_that_was_asked_for_counts(times: RunTimes, given: str, as_of: str):
    assert times.as_of(Run(), {"as_of": given}) == as_of


@pytest.mark.parametrize(
    ("at", "as_of"),
    [
        pytest.param(datetime(2026, 3, 9, 0, 10, tzinfo=UTC), "2026-03-09T00:00:00Z", id="the tick of a day"),
        pytest.param(datetime(2026, 3, 9, 0, 9, 59, tzinfo=UTC), "2026-03-08T00:00:00Z", id="events may still come"),
        pytest.param(datetime(2026, 3, 9, 23, 59, tzinfo=UTC), "2026-03-09T00:00:00Z", id="later that day"),
    ],
)
def test_without_one_the_newest_complete_period_counts(times: RunTimes, at: datetime, as_of: str):
    assert times.as_of(replace(Run(), data_interval_end=at), {"as_of": None}) == as_of
    assert times.as_of(replace(Run(), run_after=at), {}) == as_of


def test_a_decision_and_its_run_follow_from_the_time_alone(times: RunTimes):
    asked = {"as_of": "2026-03-09"}
    assert times.decision(Run(), asked) == decision_id("retrain", parse_utc("2026-03-09")) == "retrain-20260309T000000Z"
    assert times.retrain_run(Run(), asked) == "retrain__retrain-20260309T000000Z"


def test_a_question_that_is_asked_again_has_a_run_of_its_own(times: RunTimes):
    asked = {"as_of": "2026-03-09"}
    second = times.next_question(Run(times.retrain_run(Run(), asked)), asked)
    assert second == "retrain__retrain-20260309T000000Z__question-2"
    assert times.next_question(Run(second), asked) == "retrain__retrain-20260309T000000Z__question-3"
