"""The monitor over four weeks of the template's data: quiet while nothing changes, exact about what does."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from monitor_world import TEMPLATE, MonitorWorld
from tidewheel.clock import DAY_US, utc_text
from tidewheel.journal.decisions import DecisionRecord
from tidewheel.monitoring.retrain_gather import decide_and_record
from tidewheel.monitoring.run import MonitorResult

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FIRST, BROKEN, SHIFTED, DAYS = 16, 23, 26, 30


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fraud")
    shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def world(project: Path) -> Iterator[MonitorWorld]:
    """Day 23 loses amounts in the feed; from day 26 on amounts are twice as high."""
    (project / ".tidewheel").mkdir()
    said = {
        "customers": 700,
        "terminals": 900,
        "feed_broken": range(BROKEN, BROKEN + 1),
        "amount_from": SHIFTED,
        "amount_factor": 2.0,
    }
    made = MonitorWorld(project / ".tidewheel", days=DAYS, serves_from=FIRST, train_from=1, train_until=8, world=said)
    yield made
    made.journal.close()


@pytest.fixture(scope="module")
def results(world: MonitorWorld) -> dict[int, MonitorResult]:
    return {day: world.monitor(day) for day in range(FIRST, DAYS)}


@pytest.fixture(scope="module")
def decisions(world: MonitorWorld, results: dict[int, MonitorResult]) -> dict[int, DecisionRecord]:
    return {day: decide(world, day) for day in results}


def decide(world: MonitorWorld, day: int, **change: Any) -> DecisionRecord:
    guards = world.project.retrain.guards.model_copy(update={"min_mature_labels": 500})
    retrain = world.project.retrain.model_copy(update={"guards": guards, **change})
    return decide_and_record(
        world.project.model_copy(update={"retrain": retrain}),
        world.paths,
        world.journal,
        champion_trained_as_of_us=world.midnight_us(15),
        champion_data_end_us=world.midnight_us(8),
        as_of_us=world.midnight_us(day + 1),
    )


def test_on_stationary_days_nothing_is_found(results: dict[int, MonitorResult]) -> None:
    stationary = [day for day in results if day < SHIFTED and day != BROKEN]
    assert {day: results[day].findings for day in stationary} == dict.fromkeys(stationary, ())
    assert all(results[day].given.n_predictions > 800 for day in stationary)


def test_a_broken_feed_names_source_and_column_and_nothing_else(results: dict[int, MonitorResult]) -> None:
    found = results[BROKEN].findings
    assert [(one.reason, one.subject, one.severity) for one in found] == [
        ("FeedBroken", "transactions.amount", "critical")
    ]


def test_a_shift_of_amounts_is_drift_of_the_amounts_alone(results: dict[int, MonitorResult]) -> None:
    for day in range(SHIFTED, DAYS):
        found = {one.subject for one in results[day].findings if one.reason == "FeatureDrift"}
        assert "payment_amount" in found
        assert {name for name in found if "amount" not in name} == set()
        assert results[day].drift["payment_amount"] > 2 * 0.2


def test_the_policy_refuses_on_the_broken_feed_and_the_day_after(decisions: dict[int, DecisionRecord]) -> None:
    assert [(decisions[day].state, decisions[day].decision.reasons) for day in (BROKEN, BROKEN + 1)] == [
        ("refused", ("DataUnhealthy",))
    ] * 2


def test_the_policy_waits_for_persistence_and_for_labels_of_the_change(decisions: dict[int, DecisionRecord]) -> None:
    told = [decisions[day].decision.reasons for day in range(SHIFTED, DAYS)]
    assert told == [("NotPersistent",), ("NotPersistent",), ("NotEnoughLabels",), ("NotEnoughLabels",)]
    assert (
        decisions[DAYS - 1].decision.findings[0].message
        == "0 mature labels since the change began (holdout and gap apart), needed 500"
    )


def test_asked_again_the_first_decision_stands(world: MonitorWorld, decisions: dict[int, DecisionRecord]) -> None:
    assert decide(world, DAYS - 1, when=()) == decisions[DAYS - 1]


def test_a_time_without_a_monitor_run_is_refused(world: MonitorWorld, decisions: dict[int, DecisionRecord]) -> None:
    record = decide(world, DAYS + 5)
    assert (record.state, record.decision.reasons) == ("refused", ("MonitorMissing",))


def test_served_values_equal_their_recomputation_and_a_changed_one_is_found(world: MonitorWorld) -> None:
    as_of_us = world.midnight_us(FIRST + 3)
    same = world.monitor(FIRST + 2, recompute=world.recompute)
    assert sum(skew.n_different for skew in same.given.skew) == 0
    assert {skew.n_rows for skew in same.given.skew} == {same.given.n_predictions}

    def other(features: Any, rows: Any, sources: Any) -> Any:
        made = world.recompute(features, rows, sources)
        column = made.column_names.index("card_n_tx_1d")
        return made.set_column(column, "card_n_tx_1d", [[v + 1 for v in made["card_n_tx_1d"].to_pylist()]])

    changed = world.monitor(FIRST + 2, recompute=other)
    assert [(one.reason, one.subject) for one in changed.findings] == [("TrainServeSkew", "card_n_tx_1d")]
    assert [one.finding.subject for one in world.journal.findings("card-fraud", as_of_us, as_of_us)] == ["card_n_tx_1d"]
    world.monitor(FIRST + 2)
    assert world.journal.findings("card-fraud", as_of_us, as_of_us) == ()


def test_a_label_feed_that_stops_is_missed(world: MonitorWorld, tmp_path: Path) -> None:
    """Labels end on day 20; as of day 29 those of the payments of day 21 should have come for a day."""
    lake = tmp_path / "lake"
    shutil.copytree(world.paths.lake, lake)
    for path in (lake / "fraud_labels").glob("*.parquet"):
        with pq.ParquetFile(path) as file:
            low = file.read(columns=["tx_time"])["tx_time"].cast("int64").to_numpy() if file.metadata.num_rows else [0]
        if min(low) >= world.midnight_us(20):
            path.unlink()
    kept = world.paths
    try:
        world.paths = replace(kept, lake=lake, reports=tmp_path / "reports")
        found = world.monitor(DAYS - 1).findings
    finally:
        world.paths = kept
        world.monitor(DAYS - 1)
    assert ("LabelsMissing", "labels", 0.0) in [(one.reason, one.subject, one.value) for one in found]


def tidewheel(*arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    line = [sys.executable, "-m", "tidewheel", *arguments, "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout or "{}"), done.stderr


def test_the_command_prints_what_the_run_found(
    project: Path, world: MonitorWorld, results: dict[int, MonitorResult]
) -> None:
    as_of = utc_text(world.midnight_us(FIRST + 1))
    said, _ = tidewheel("monitor", str(project), "--as-of", as_of)
    assert (said["as_of"], said["champion"], said["findings"], said["report"]) == (as_of, "1", [], None)
    assert said["n_predictions"] == results[FIRST].given.n_predictions
    assert said["window"] == {"start": utc_text(world.midnight_us(FIRST)), "end": as_of}
    shifted, _ = tidewheel("monitor", str(project), "--as-of", utc_text(world.midnight_us(DAYS)), "--no-report")
    assert {one["reason"] for one in shifted["findings"]} >= {"FeatureDrift"}
    assert shifted["drift"]["payment_amount"] > 0.4


def test_only_skew_compares_served_values_and_nothing_else(project: Path, world: MonitorWorld) -> None:
    as_of = utc_text(world.midnight_us(DAYS))
    said, _ = tidewheel("monitor", str(project), "--only", "skew", "--as-of", as_of)
    assert (said["findings"], {one["n_different"] for one in said["features"]}) == ([], {0})
    assert {one["feature"] for one in said["features"]} == set(world.features.names)
    (run,) = world.journal.runs("card-fraud", stage="skew")
    assert run.outcome is not None
    assert (run.as_of_us, run.outcome["n_compared"] > 500) == (world.midnight_us(DAYS), True)


def test_a_finding_draws_a_report(project: Path, world: MonitorWorld, results: dict[int, MonitorResult]) -> None:
    said, _ = tidewheel("monitor", str(project), "--as-of", utc_text(world.midnight_us(SHIFTED + 1)))
    assert said["report"] is not None, said["notes"]
    page = Path(said["report"])
    assert page.stat().st_size > 100_000
    assert b"payment_amount" in page.read_bytes()


def test_a_person_approves_or_refuses_with_a_reason(
    project: Path, world: MonitorWorld, decisions: dict[int, DecisionRecord]
) -> None:
    asks = decide(world, DAYS, every_us=DAY_US)
    assert asks.decision.reasons == ("MonitorMissing",)  # nothing to approve without a monitor run
    world.journal.finish_run("card-fraud", "monitor", world.midnight_us(DAYS + 2), {"exit_code": 0})
    record = decide(world, DAYS + 1, every_us=DAY_US)
    assert (record.state, record.decision.reasons) == ("pending", ("CadenceDue", "ApprovalNeeded"))
    _, error = tidewheel("approve", str(project), record.id, code=2)
    assert "--reason" in error
    said, _ = tidewheel("approve", str(project), record.id, "--reason", "amounts changed for good")
    assert (said["state"], said["reason"], said["actor"]) == ("approved", "amounts changed for good", getpass.getuser())
    said, _ = tidewheel("refuse", str(project), record.id, "--reason", "wait a week", "--by", "ada")
    assert said["actor"] == "ada"
    _, error = tidewheel("approve", str(project), record.id, "--reason", "after all", code=1)
    assert "cannot become approved (it is refused)" in " ".join(error.split())
    _, error = tidewheel("approve", str(project), "retrain-nothing", "--reason", "x", code=1)
    assert "no such decision" in error
    world.journal.verify_chain()
