"""The retrain policy: one table of what it is given and what it answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidewheel.clock import DAY_US, parse_utc
from tidewheel.findings import Decision, Finding
from tidewheel.monitoring.retrain import MonitorRun, RetrainInput, change_began_us, decide_retrain

NOW = parse_utc("2026-03-09")


def runs(*marks: str, version: str = "1") -> tuple[MonitorRun, ...]:
    """One run a day, the last now: '.' clean, 'D' drift, 'P' performance, 'B' broken feed, 'X' both."""
    told = {".": ((), ()), "D": (("FeatureDrift",), ()), "P": (("PerformanceDrop",), ()),
            "B": (("FeedBroken",), ("transactions.amount",)),
            "X": (("FeedBroken", "FeatureDrift"), ("transactions.amount",))}  # fmt: skip
    line = "".join(marks)
    return tuple(
        MonitorRun(NOW - (len(line) - 1 - i) * DAY_US, frozenset(told[mark][0]), told[mark][1], version)
        for i, mark in enumerate(line)
    )


HEALTHY = RetrainInput(
    as_of_us=NOW,
    runs=runs("......"),
    when=("FeatureDrift", "PerformanceDrop"),
    persists_runs=3,
    persists_of=5,
    every_us=7 * DAY_US,
    monitor_every_us=DAY_US,
    cooldown_us=3 * DAY_US,
    max_per_30d=4,
    min_mature_labels=1000,
    needs_approval=False,
    champion_trained_as_of_us=NOW - 5 * DAY_US,
    n_labels_since_change=5000,
    n_labels_since_champion=5000,
)
PERSISTS = Finding(
    "DriftPersists", "FeatureDrift held in 3 of the last 5 runs, first as of 2026-03-07T00:00:00Z", "warning",
    "FeatureDrift", 3.0, 3,
)  # fmt: skip
CADENCE = Finding("CadenceDue", "every 7d, the champion was trained as of 2026-03-02T00:00:00Z", "info")
DRIFTING = {"runs": runs("...DDD")}
DUE = {"champion_trained_as_of_us": NOW - 7 * DAY_US}


@pytest.mark.parametrize(
    ("change", "action", "finding"),
    [
        pytest.param({}, "none", Finding("NothingAsks", "no finding asks for a retrain and no cadence is due", "info"),
                     id="all is well"),
        pytest.param(DUE, "retrain", CADENCE, id="the cadence is due to the microsecond"),
        pytest.param({**DUE, "champion_trained_as_of_us": NOW - 7 * DAY_US + 1}, "none",
                     Finding("NothingAsks", "no finding asks for a retrain and no cadence is due", "info"),
                     id="a microsecond before the cadence"),
        pytest.param(DRIFTING, "retrain", PERSISTS, id="drift in three of five runs, now included"),
        pytest.param({"runs": runs("...DD.")}, "none",
                     Finding("NotPersistent", "FeatureDrift held in 2 of the last 5 runs and does not hold now, "
                             "needed 3 of 5", "info", "FeatureDrift"), id="drift that is over"),
        pytest.param({"runs": runs("D....D")}, "none",
                     Finding("NotPersistent", "FeatureDrift held in 1 of the last 5 runs, needed 3 of 5", "info",
                             "FeatureDrift"), id="a flicker"),
        pytest.param({"runs": runs("DDDDD.")[:-1]}, "refuse",
                     Finding("MonitorMissing", "no finished monitor run as of 2026-03-09T00:00:00Z, the last one is of "
                             "2026-03-08T00:00:00Z; run 'tidewheel monitor' first"),
                     id="the monitor did not run today"),
        pytest.param({"runs": ()}, "refuse",
                     Finding("MonitorMissing", "no finished monitor run as of 2026-03-09T00:00:00Z, there is none at "
                             "all; run 'tidewheel monitor' first"), id="the monitor never ran"),
        pytest.param({**DUE, "runs": runs("..DDDB")}, "refuse",
                     Finding("DataUnhealthy", "transactions.amount: broken as of 2026-03-09T00:00:00Z; training on it "
                             "is refused", "critical", "transactions.amount"), id="a feed is broken now"),
        pytest.param({**DUE, "runs": runs("....B.")}, "refuse",
                     Finding("DataUnhealthy", "transactions.amount: broken as of 2026-03-08T00:00:00Z; training on it "
                             "is refused", "critical", "transactions.amount"),
                     id="a feed was broken in the run before"),
        pytest.param({**DRIFTING, "pending": "retrain-x"}, "none",
                     Finding("DecisionPending", "retrain-x is not done yet", "info", "retrain-x"),
                     id="an earlier decision waits"),
        pytest.param({**DRIFTING, "n_labels_since_change": 999}, "refuse",
                     Finding("NotEnoughLabels", "999 mature labels since the change began "
                             "(holdout and gap apart), needed 1000", "info", "",
                             999, 1000), id="too few labels since the change"),
        pytest.param({**DUE, "n_labels_since_champion": 0}, "refuse",
                     Finding("NotEnoughLabels", "0 mature labels since the champion's training data, needed 1000",
                             "info", "", 0, 1000), id="too few labels since the champion"),
        pytest.param({**DRIFTING, "champion_trained_as_of_us": NOW - 2 * DAY_US}, "refuse",
                     Finding("CooldownActive", "the last retrain was as of 2026-03-07T00:00:00Z, cooldown 3d", "info"),
                     id="trained two days ago"),
        pytest.param({**DRIFTING, "last_retrain_us": NOW + DAY_US}, "refuse",
                     Finding("CooldownActive", "the last retrain was as of 2026-03-10T00:00:00Z, cooldown 3d", "info"),
                     id="time went backwards"),
        pytest.param({**DRIFTING, "n_retrains_30d": 4}, "refuse",
                     Finding("BudgetSpent", "4 retrains in 30 days, allowed 4", "info", "", 4, 4),
                     id="the budget is spent"),
        pytest.param({"champion_trained_as_of_us": None}, "none",
                     Finding("NothingAsks", "no finding asks for a retrain and no cadence is due", "info"),
                     id="no version serves, so no cadence runs"),
        pytest.param({"runs": (*runs("DDD", version="0"), *runs("...", version="1"))[-6:-3] + runs("D")}, "none",
                     Finding("NotPersistent", "FeatureDrift held in 1 of the last 4 runs, needed 3 of 5", "info",
                             "FeatureDrift"), id="what was found about an earlier champion"),
    ],
)  # fmt: skip
def test_the_policy_answers(change: dict[str, Any], action: str, finding: Finding) -> None:
    assert decide_retrain(replace(HEALTHY, **change)) == Decision(action, (finding,))


def test_a_tier_1_project_is_told_that_a_person_must_approve() -> None:
    approval = Finding("ApprovalNeeded", "a tier 1 project: a person approves each retrain", "info")
    given = replace(HEALTHY, **DRIFTING, needs_approval=True)
    assert decide_retrain(given) == Decision("retrain", (PERSISTS, approval))


def test_the_cadence_is_enough_where_labels_since_the_change_are_few() -> None:
    given = replace(HEALTHY, **DRIFTING, **DUE, n_labels_since_change=0)
    assert decide_retrain(given) == Decision("retrain", (CADENCE, PERSISTS))


@pytest.mark.parametrize(
    ("line", "action"),
    [
        pytest.param("..BBDDDDD", "none", id="echoes in the window features ask for nothing"),
        pytest.param("..XXDDDDD", "none", id="nor when drift was seen together with the broken feed"),
        pytest.param("..BB.DDD", "retrain", id="a clean run shows that the data recovered"),
        pytest.param("..BDDDDDDDDDD", "retrain", id="after a week it is no echo any more"),
        pytest.param("DDDB.", "refuse", id="broken yesterday is refused whatever held before"),
    ],
)
def test_after_a_broken_feed(line: str, action: str) -> None:
    assert decide_retrain(replace(HEALTHY, runs=runs(line))).action == action


@pytest.mark.parametrize(
    ("line", "days_ago"),
    [
        pytest.param(".DDD", 2, id="the first run that saw it"),
        pytest.param("DDD.DDD", 6, id="a short gap is the same episode"),
        pytest.param("DDD.....DDD", 10, id="five clean runs are a gap no longer than M"),
        pytest.param("DDD......DDD", 2, id="six clean runs end an episode"),
    ],
)
def test_a_change_began_with(line: str, days_ago: int) -> None:
    assert change_began_us(replace(HEALTHY, runs=runs(line))) == NOW - days_ago * DAY_US
