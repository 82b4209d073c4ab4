"""What the gate is told about skew: nothing where it does not ask, else what the newest comparison says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spec_samples import GOOD_PROJECT
from tidewheel.clock import DAY_US, HOUR_US, FixedClock
from tidewheel.journal.ledger import Journal
from tidewheel.monitoring.skew_gate import skew_finding
from tidewheel.spec.load import parse_project
from tidewheel.spec.project import ModelProject

AS_OF_US = 100 * DAY_US


def asking(within: str | None) -> ModelProject:
    gate = f", gate: {{skew_checked_within: {within}}}" if within else ""
    return parse_project(GOOD_PROJECT.replace("{window: 28d}", f"{{window: 28d{gate}}}"), "project.yaml")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'journal.db'}", FixedClock(1))


def ran(journal: Journal, before_us: int, stage: str = "skew", **outcome: Any) -> None:
    told = {"n_compared": 100, "reasons": [], **outcome}
    journal.finish_run("card-fraud", stage, AS_OF_US - before_us, told)


def test_a_gate_that_does_not_ask_is_told_nothing(journal: Journal) -> None:
    assert skew_finding(asking(None), journal, AS_OF_US) is None


@pytest.mark.parametrize("stage", ["monitor", "skew"])
def test_a_recent_comparison_without_skew_is_enough(journal: Journal, stage: str) -> None:
    ran(journal, HOUR_US, stage, reasons=["FeatureDrift"])
    assert skew_finding(asking("2d"), journal, AS_OF_US) is None


@pytest.mark.parametrize(
    ("before_us", "outcome"),
    [
        pytest.param(3 * DAY_US, {}, id="it was too long ago"),
        pytest.param(HOUR_US, {"n_compared": 0}, id="it compared nothing"),
        pytest.param(-HOUR_US, {}, id="it is of a later time"),
    ],
)
def test_no_recent_comparison_refuses_and_says_what_to_run(journal: Journal, before_us: int, outcome: Any) -> None:
    ran(journal, before_us, **outcome)
    found = skew_finding(asking("2d"), journal, AS_OF_US)
    assert found is not None
    assert (found.reason, found.severity) == ("SkewUnchecked", "critical")
    assert found.message.endswith("in the 2d before; run 'tidewheel monitor PROJECT --only skew'")


def test_the_newest_comparison_counts(journal: Journal) -> None:
    ran(journal, 2 * HOUR_US, reasons=["TrainServeSkew"])
    found = skew_finding(asking("2d"), journal, AS_OF_US)
    assert found is not None
    assert found.reason == "TrainServeSkew"
    ran(journal, HOUR_US, "monitor")
    assert skew_finding(asking("2d"), journal, AS_OF_US) is None
