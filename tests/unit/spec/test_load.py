"""A wrong project.yaml is answered with every mistake, where it stands and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_samples import GOOD_PROJECT as GOOD
from tidewheel.errors import NotFound, SpecError
from tidewheel.spec.load import load_project, parse_project, project_tree
from tidewheel.spec.project import ModelProject


def problems_of(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_project(text, "project.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_a_good_project_becomes_frozen_values_in_microseconds():
    project = parse_project(GOOD, "project.yaml")
    assert project.label.delay_us == 7 * 86_400_000_000
    assert project.request_source.columns == {"amount": "float64", "channel": "string"}
    assert project.serving.decision == {"approve": 0.0, "decline": 0.9}
    with pytest.raises(ValueError, match="frozen"):
        project.name = "other"  # type: ignore[misc]


def test_decisions_are_ordered_by_their_lowest_score_however_they_were_written():
    text = GOOD.replace("{approve: 0.0, decline: 0.9}", "{decline: 0.9, review: 0.5, approve: 0.0}")
    assert list(parse_project(text, "p").serving.decision) == ["approve", "review", "decline"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param(
            "name: card-fraud",
            "name: Card_Fraud",
            "project.yaml:1: name: string should match pattern '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$' (got 'Card_Fraud')",
            id="a name that no DNS label allows",
        ),
        pytest.param(
            "topic: payments",
            "topic: payments\n    key: shop",
            "project.yaml:8: sources.payments.key: must name an entity (got 'shop'); declared are customer",
            id="messages keyed by what is no entity",
        ),
        pytest.param(
            "topic: labels",
            "key: customer",
            "project.yaml:13: sources.labels.key: is about the messages of a topic; a table has none",
            id="messages of a table",
        ),
        pytest.param(
            "training: {window: 28d}",
            "training: {window: 28d, params: {booster: dart}}",
            "project.yaml:20: training: params.booster: dart cannot be served: ONNX has no weights of trees; "
            "leave booster out",
            id="a booster that ONNX has no word for",
        ),
        pytest.param(
            "training: {window: 28d}",
            "training: {window: 28d, params: {missing: -999}}",
            "project.yaml:20: training: params.missing: a missing value is NaN in training and serving alike; "
            "leave missing out",
            id="a number that stands for missing",
        ),
        pytest.param(
            "delay: 7d",
            "delay: 7",
            "project.yaml:19: label.delay: must be a number with a unit: ms, s, m, h or d, "
            "such as 50ms, 10m or 7d (got 7)",
            id="a duration without a unit",
        ),
        pytest.param(
            "amount: float64",
            "amount: float",
            "project.yaml:11: sources.payments.columns.amount: input should be 'float64', 'float32', 'int64', 'int32', "
            "'bool' or 'string' (got 'float')",
            id="a type that does not exist",
        ),
        pytest.param(
            "owner: payments-risk\n",
            "owner: payments-risk\nowners: me\n",
            "project.yaml:3: owners: unknown field (got 'me'); allowed are name, description, owner, tier, entities, "
            "sources, request, label, training, serving, rollout, monitoring, retrain",
            id="a misspelt field",
        ),
        pytest.param(
            "columns: {amount: float64",
            "zone: UTC\n    columns: {amount: float64",
            "project.yaml:11: sources.payments.zone: unknown field (got 'UTC'); allowed are path, topic, event_time, "
            "event_id, key, columns, timezone, allowed_lateness",
            id="a misspelt field of a named section",
        ),
        pytest.param(
            "training: {window: 28d}",
            "training: {window: 28d, gate: {mn: 1}}",
            "project.yaml:20: training.gate.mn: unknown field (got 1); allowed are metric, min, max_loss, slices, "
            "skew_checked_within",
            id="a misspelt field of an inner section",
        ),
        pytest.param(
            "training: {window: 28d}",
            "training: {}",
            "project.yaml:20: training.window: required field is missing",
            id="a missing field, at the line of its section",
        ),
        pytest.param(
            "request: payments",
            "request: payment",
            "project.yaml:18: request: must name a source (got 'payment'); declared are payments, labels",
            id="a request that names no source",
        ),
        pytest.param(
            "column: is_fraud",
            "column: fraud",
            "project.yaml:19: label.column: must be a column of 'labels' (got 'fraud'); declared are is_fraud",
            id="a label column that does not exist",
        ),
        pytest.param(
            "    path: payments",
            "    path: ../payments",
            "project.yaml:8: sources.payments.path: must be a relative path without '..' (got '../payments')",
            id="a path out of the lake",
        ),
        pytest.param(
            "decision: {approve: 0.0, decline: 0.9}",
            "decision: {approve: 0.1, decline: 0.9}",
            "project.yaml:22: serving.decision: one decision must start at 0.0, else low scores have none",
            id="scores that get no decision",
        ),
        pytest.param(
            "training: {window: 28d}",
            "training: {window: 28d, params: {objective: 'reg:linear'}}",
            "project.yaml:20: training: params must not set objective: the platform does",
            id="a parameter that is the platform's",
        ),
        pytest.param(
            "columns: {amount: float64, channel: string}",
            "columns: {amount: float64, customer_id: int64}",
            "project.yaml:11: sources.payments.columns.customer_id: is a key, the event time or the event id already; "
            "columns name the rest",
            id="a key declared twice",
        ),
    ],
)
def test_one_mistake_is_answered_with_where_what_and_what_is_allowed(old, new, problem):
    assert old in GOOD
    assert problems_of(GOOD.replace(old, new, 1)) == [problem]


def test_all_mistakes_come_at_once_sorted_by_line():
    text = GOOD.replace("name: card-fraud", "name: X").replace("delay: 7d", "delay: soon").replace("28d}", "28d, x: 1}")
    assert [line.split(":")[1] for line in problems_of(text)] == ["1", "19", "20"]


def test_a_mistake_between_sections_shows_beside_one_inside_another():
    text = GOOD.replace("owner: payments-risk", "owner: ''").replace("28d}", "28d, gate: {slices: [chanel]}}")
    assert problems_of(text) == [
        "project.yaml:2: owner: string should have at least 1 character (got '')",
        "project.yaml:20: training.gate.slices.0: must be a column of 'payments' (got 'chanel'); "
        "declared are amount, channel",
    ]


def test_what_refers_to_a_faulty_section_is_not_accused():
    assert (
        len(problems_of(GOOD.replace("amount: float64", "amount: float").replace("request: payments", "request: x")))
        == 1
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("a: [1, 2", "project.yaml:1: not valid YAML: ", id="a bracket left open"),
        pytest.param("a: 1\na: 2\n", "project.yaml:2: not valid YAML: ", id="a key written twice"),
        pytest.param("- 1\n", "project.yaml:1: must be a mapping", id="a list"),
        pytest.param("", "project.yaml:1: must be a mapping", id="an empty file"),
    ],
)
def test_what_is_no_project_at_all_is_said_in_one_line(text, problem):
    (found,) = problems_of(text)
    assert found.startswith(problem)
    assert "\n" not in found


def test_a_folder_without_a_project_says_how_to_start_one(tmp_path: Path):
    with pytest.raises(NotFound, match="run 'tidewheel new NAME' to start a project"):
        load_project(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "project.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8 text"):
        load_project(tmp_path)


def test_the_quick_reading_and_the_one_with_lines_say_the_same(tmp_path: Path):
    text = GOOD.replace(
        "{window: 28d}", "{window: 28d, params: {a: 010, b: 1e3, c: yes, d: 0o10, e: 1_000, f: .5, g: 'x'}}"
    )
    for version in (
        GOOD,
        text,
        "# a comment\n" + GOOD.replace("label: {", "label: &x {").replace("approve", '"approve"'),
    ):
        (tmp_path / "project.yaml").write_text(version)
        assert load_project(tmp_path) == ModelProject.model_validate(project_tree(tmp_path))
