"""Findings and runs: running a stage again replaces what it said before."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tidewheel.clock import FixedClock
from tidewheel.findings import Finding
from tidewheel.journal.findings import RecordedFinding
from tidewheel.journal.ledger import Journal
from tidewheel.journal.runs import StageRun

DRIFT = Finding("FeatureDrift", "amount: PSI 0.30", "warning", "amount", 0.3, 0.2)
BROKEN = Finding("FeedBroken", "transactions: 3 events", "critical", "transactions")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'journal.db'}", FixedClock(3))


def test_findings_come_back_in_order_of_time_and_run(journal: Journal) -> None:
    journal.record_findings("fraud", 20, [DRIFT], {"version": "2"})
    journal.record_findings("fraud", 10, [BROKEN, DRIFT])
    want = (
        RecordedFinding(10, BROKEN, "monitor", {}),
        RecordedFinding(10, DRIFT, "monitor", {}),
        RecordedFinding(20, DRIFT, "monitor", {"version": "2"}),
    )
    assert journal.findings("fraud") == want
    assert journal.findings("fraud", 11, 20) == want[2:]
    assert journal.findings("fraud", until_us=10) == want[:2]


def test_a_second_run_replaces_the_first(journal: Journal) -> None:
    journal.record_findings("fraud", 10, [BROKEN, DRIFT])
    journal.record_findings("fraud", 10, [DRIFT], stage="rollout")
    journal.record_findings("fraud", 10, [])
    assert journal.findings("fraud") == (RecordedFinding(10, DRIFT, "rollout", {}),)


def test_a_value_that_is_no_number_becomes_none(journal: Journal) -> None:
    journal.record_findings("fraud", 10, [Finding("FeatureDrift", "x", value=math.nan)])
    assert journal.findings("fraud")[0].finding.value is None


def test_a_run_counts_once_it_is_finished(journal: Journal) -> None:
    journal.start_run("fraud", "monitor", 10)
    assert journal.last_runs("fraud") == {}
    journal.finish_run("fraud", "monitor", 10, {"n_findings": 0})
    journal.finish_run("fraud", "retrain", 5)
    journal.start_run("fraud", "monitor", 20)
    assert journal.last_runs("fraud") == {"monitor": 10, "retrain": 5}
    assert journal.runs("fraud", stage="monitor") == (
        StageRun("fraud", "monitor", 10, 3, 3, {"n_findings": 0}),
        StageRun("fraud", "monitor", 20, 3, None, None),
    )


def test_starting_a_finished_run_again_leaves_it_finished(journal: Journal) -> None:
    journal.finish_run("fraud", "monitor", 10, {"a": 1})
    journal.start_run("fraud", "monitor", 10)
    assert journal.last_runs("fraud") == {"monitor": 10}
    journal.finish_run("fraud", "monitor", 10, {"a": 2})
    assert journal.runs("fraud")[0].outcome == {"a": 2}
