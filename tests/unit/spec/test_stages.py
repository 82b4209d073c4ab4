"""Which stages are due follows from the spec, the last runs and how far event time has come."""

from __future__ import annotations

import pytest

from spec_samples import GOOD_PROJECT
from tidewheel.clock import DAY_US, HOUR_US, MINUTE_US
from tidewheel.spec.load import parse_project
from tidewheel.spec.stages import DueStage, stages_due

PROJECT = parse_project(GOOD_PROJECT.replace("string}", "string}\n    allowed_lateness: 10m"), "project.yaml")


@pytest.mark.parametrize(
    ("last_runs", "as_of_us", "due"),
    [
        pytest.param(
            {}, 10 * DAY_US + 9 * HOUR_US, [(10, "monitor"), (10, "retrain")], id="never run: the newest only"
        ),
        pytest.param({"monitor": 10 * DAY_US, "retrain": 10 * DAY_US}, 10 * DAY_US + 9 * HOUR_US, [], id="all done"),
        pytest.param(
            {"monitor": 10 * DAY_US, "retrain": 9 * DAY_US},
            10 * DAY_US + 9 * HOUR_US,
            [(10, "retrain")],
            id="one of the two was interrupted",
        ),
        pytest.param(
            {"monitor": 8 * DAY_US, "retrain": 8 * DAY_US},
            10 * DAY_US + 9 * HOUR_US,
            [(9, "monitor"), (9, "retrain"), (10, "monitor"), (10, "retrain")],
            id="days behind: each day in order, monitor before retrain",
        ),
        pytest.param(
            {"monitor": 10 * DAY_US, "retrain": 10 * DAY_US},
            11 * DAY_US + 9 * MINUTE_US,
            [],
            id="the day is over but its late events may still come",
        ),
        pytest.param(
            {"monitor": 10 * DAY_US, "retrain": 10 * DAY_US},
            11 * DAY_US + 10 * MINUTE_US,
            [(11, "monitor"), (11, "retrain")],
            id="exactly when the last late event is due",
        ),
    ],
)
def test_due_is(last_runs, as_of_us, due):
    assert stages_due(PROJECT, last_runs, as_of_us) == tuple(DueStage(day * DAY_US, stage) for day, stage in due)
