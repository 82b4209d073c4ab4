from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidewheel.bundle.plan import PlannedFeature, ServingPlan, plan_from_json, read_plan, spec_digest, write_plan
from tidewheel.errors import ContractViolation
from tidewheel.spec.load import parse_project

PLAN = ServingPlan(
    project="card-fraud",
    features=(
        PlannedFeature("amount_mean_1d", "float64", "transactions", None, 5_000_000),
        PlannedFeature("is_night", "bool", "request", 0.0),
    ),
    decision={"approve": 0.0, "review": 0.5, "decline": 0.9},
    feature_digest="f" * 64,
    spec_digest="5" * 64,
    trained={"as_of_us": 1},
)


def test_a_plan_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_plan(tmp_path, PLAN)
    assert read_plan(tmp_path) == PLAN


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        pytest.param(0.0, "approve", id="the lowest score"),
        pytest.param(0.4999, "approve", id="just below a band"),
        pytest.param(0.5, "review", id="exactly at a band"),
        pytest.param(1.0, "decline", id="the highest score"),
    ],
)
def test_a_score_gets_the_band_it_is_in(score: float, decision: str) -> None:
    assert PLAN.decide(score) == decision


def test_every_fault_is_told_at_once() -> None:
    body: dict[str, Any] = {
        "project": "",
        "feature_digest": "f",
        "spec_digest": 7,
        "features": [
            {"name": "a", "dtype": "int8", "source": "s", "defualt": 1},
            {"name": "b", "dtype": "int64", "source": "s"},
            {"name": "b", "dtype": "int64", "source": "s", "freshness_us": 1.5},
            {"name": "b", "dtype": "int64", "source": "s"},
        ],
        "decision": {"review": 0.5},
    }
    with pytest.raises(ContractViolation) as raised:
        plan_from_json(body, "plan")
    assert str(raised.value) == (
        "plan: 7 problem(s): project must be text (got ''); spec_digest must be text (got 7); "
        "features.0.defualt: unknown field; features.0.dtype must be one of int64, float64, bool (got 'int8'); "
        "features.2.freshness_us must be whole microseconds or null (got 1.5); two features are named 'b'; "
        "decision must have a band that starts at 0.0"
    )


SPEC = """
name: a
owner: o
entities: {card: {key: card_id, type: int64}}
sources: {tx: {topic: t, path: tx, event_time: at, event_id: id, columns: {fraud: bool}}}
request: tx
label: {source: tx, column: fraud, delay: 7d}
training: {window: 7d}
serving: {decision: {approve: 0.0}}
"""


def test_a_comment_does_not_change_the_digest_of_a_spec_and_a_value_does() -> None:
    digest = spec_digest(parse_project(SPEC, "f"))
    assert spec_digest(parse_project(SPEC + "# a comment\n", "f")) == digest
    assert spec_digest(parse_project(SPEC.replace("window: 7d", "window: 8d"), "f")) != digest
