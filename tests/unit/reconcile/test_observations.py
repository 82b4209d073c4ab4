"""What a candidate did, counted from the log's files; new files only, whichever side of a pair comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidewheel.adapters.lake_parts import write_file
from tidewheel.deployment.rollout import Observations
from tidewheel.reconcile.observations import RolloutTally
from tidewheel.serving.prediction_record import PredictionRecord, record_id
from tidewheel.serving.prediction_table import prediction_schema, to_table


def row(number: int, digest: str, role: str, decision: str = "approve", **change: Any) -> PredictionRecord:
    made = PredictionRecord(
        record_id("tiny", f"r{number}", digest, role), f"r{number}", "tiny", digest, digest, role, 5, 1000 + number,
        f"e{number}", "7", b"", "f", 0.5, decision, False, (), 1000, 17, {},
    )  # fmt: skip
    for name, value in change.items():
        setattr(made, name, value)
    return made


def part(folder: Path, name: str, *rows: PredictionRecord) -> None:
    write_file(to_table(rows, prediction_schema({})), folder / f"part-{name}.parquet")


def test_nothing_was_seen_before_the_first_file(tmp_path: Path) -> None:
    assert RolloutTally(tmp_path / "none").look("new", "old", 5) == (Observations(), None)


def test_pairs_and_flips_are_counted_across_files(tmp_path: Path) -> None:
    tally = RolloutTally(tmp_path)
    part(tmp_path, "0-1", row(1, "old", "champion"), row(2, "new", "shadow", "decline"))
    first, _ = tally.look("new", "old", 5)
    assert (first.n_requests, first.n_pairs) == (1, 0)
    part(tmp_path, "0-2", row(1, "new", "shadow"), row(2, "old", "champion"), row(3, "old", "champion"))
    seen, now_us = tally.look("new", "old", 5)
    assert (seen.n_requests, seen.n_pairs, seen.n_flips) == (2, 2, 1)
    assert (seen.first_event_us, seen.last_event_us, now_us) == (1001, 1002, 1003)
    assert tally.look("new", "old", 5) == (seen, now_us)


def test_only_the_candidates_own_failures_count(tmp_path: Path) -> None:
    degraded: dict[str, Any] = {"degraded": True, "reasons": ("ModelFailed", "Heuristic")}
    part(
        tmp_path,
        "0-1",
        row(1, "new", "fallback", **degraded),
        row(2, "new", "canary", degraded=True, reasons=("StaleFeatures:card",)),
        row(3, "new", "canary"),
        row(4, "old", "fallback", **degraded),
    )
    seen, _ = RolloutTally(tmp_path).look("new", "old", 5)
    assert (seen.n_requests, seen.n_errors, seen.n_degraded, seen.n_pairs) == (3, 1, 2, 0)


def test_requests_routed_before_the_step_do_not_count(tmp_path: Path) -> None:
    part(tmp_path, "0-1", row(1, "new", "shadow", generation=4), row(2, "new", "canary"))
    tally = RolloutTally(tmp_path)
    assert [tally.look("new", "old", since)[0].n_requests for since in (4, 5, 6, 4)] == [2, 1, 0, 2]


def test_the_p99_is_right_within_seven_percent(tmp_path: Path) -> None:
    part(tmp_path, "0-1", *(row(n, "new", "canary", latency_us=100 * (n + 1)) for n in range(100)))
    seen, _ = RolloutTally(tmp_path).look("new", "old", 5)
    assert seen.p99_latency_us == pytest.approx(9900, rel=0.07)


def test_an_unreadable_part_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "part-0-1.parquet").write_bytes(b"not yet")
    tally = RolloutTally(tmp_path)
    assert tally.look("new", "old", 5)[0].n_requests == 0
    part(tmp_path, "0-1", row(1, "new", "canary"))
    assert tally.look("new", "old", 5)[0].n_requests == 1
