"""A training set as a file: mature labels with their requests and features, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.errors import ContractViolation, InputError
from tidewheel.features.load import parse_features
from tidewheel.features.sql_engine import labelled_schema
from tidewheel.training import training_set
from tidewheel.training.leaks import features_that_see_the_future, refuse_leaks, sample_of
from tidewheel.training.training_set import Span, TrainingSet, TrainingSetFacts, training_set_facts
from unit.features.samples import MINUTE_US, START_US, sample_features, sample_project, written
from unit.features.test_engines import payment, tables_of

PROJECT = sample_project()
FEATURES = sample_features(PROJECT)
HOUR_US = 60 * MINUTE_US
PAYMENTS = [payment(minute, card=f"c{minute % 7}", id=f"p{minute}", shop=minute % 5) for minute in range(0, 300, 2)]
LABELS = [
    {"card": one["card"], "shop": one["shop"], "t": one["t"], "id": one["id"], "is_fraud": number % 9 == 0}
    for number, one in enumerate(PAYMENTS)
] + [{"card": "c1", "shop": 1, "t": START_US + HOUR_US, "id": "nobody's", "is_fraud": True}]
PROFILES = [{"card": f"c{i}", "t": START_US + i * MINUTE_US, "age": 30 + i, "vip": i % 2 == 0} for i in range(7)]
SPAN = Span(START_US, START_US + 2 * HOUR_US, START_US + 5 * HOUR_US)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    return written(tmp_path, tables_of(PAYMENTS, LABELS, PROFILES))


def write(sources: dict[str, Path], target: Path, span: Span = SPAN, **options: Any) -> TrainingSetFacts:
    with DuckDbFeatures(**options).opened(PROJECT, sources) as found:
        return TrainingSet(found, FEATURES, PROJECT, span).write(target)


def test_rows_are_mature_labels_with_their_requests_and_features_as_of_the_request(tmp_path, sources):
    facts = write(sources, tmp_path / "set.parquet")
    table = pq.read_table(tmp_path / "set.parquet")
    assert (facts.rows, facts.unmatched, facts.positives) == (60, 1, 7)
    assert table.column("payment").to_pylist() == [f"p{minute}" for minute in range(0, 120, 2)]
    rows = table.select([name for name in labelled_schema(PROJECT).names if name != "label"])
    expected = DuckDbFeatures().compute(FEATURES, PROJECT, rows, sources)
    assert table.drop_columns(["label"]).equals(expected)


def test_a_label_matures_a_delay_after_its_event(tmp_path, sources):
    delay_us = PROJECT.label.delay_us
    span = Span(START_US, START_US + 4 * HOUR_US, START_US + delay_us + 10 * MINUTE_US)
    write(sources, tmp_path / "set.parquet", span)
    times = pq.read_table(tmp_path / "set.parquet").column("at").cast(pa.int64()).to_pylist()
    assert max(times) == START_US + 10 * MINUTE_US


def test_the_file_says_what_it_is(tmp_path, sources):
    facts = write(sources, tmp_path / "set.parquet")
    told = training_set_facts(tmp_path / "set.parquet")
    assert told["digest"] == facts.digest
    assert told["feature_digest"] == FEATURES.digest
    assert (told["start"], told["as_of"]) == ("2018-04-01T00:00:00Z", "2018-04-01T05:00:00Z")
    with pytest.raises(InputError, match="not a training set"):
        training_set_facts(sources["payments"])


def test_the_digest_does_not_depend_on_pieces_threads_or_memory(tmp_path, sources, monkeypatch):
    digests = {write(sources, tmp_path / "a.parquet", threads=1).digest}
    digests.add(write(sources, tmp_path / "b.parquet", threads=4, memory_limit="300MB").digest)
    monkeypatch.setattr(training_set, "PIECE_VALUES", 1)
    monkeypatch.setattr(training_set, "LEAST_ROWS", 7)
    digests.add(write(sources, tmp_path / "c.parquet").digest)
    assert len(digests) == 1
    again = pq.read_table(tmp_path / "c.parquet")
    assert again.equals(pq.read_table(tmp_path / "a.parquet"))


def test_another_value_anywhere_is_another_digest(tmp_path, sources):
    before = write(sources, tmp_path / "a.parquet").digest
    changed = written(tmp_path, tables_of([{**PAYMENTS[0], "amount": 11.0}, *PAYMENTS[1:]], LABELS, PROFILES))
    assert write(changed, tmp_path / "b.parquet").digest != before


def test_no_mature_label_is_an_error_and_leaves_no_file(tmp_path, sources):
    with pytest.raises(InputError, match="no labelled row between"):
        write(sources, tmp_path / "set.parquet", Span(START_US, START_US + HOUR_US, START_US))
    assert not list(tmp_path.glob("*set.parquet*"))


def test_a_failure_half_way_leaves_the_file_of_before(tmp_path, sources):
    write(sources, tmp_path / "set.parquet")
    before = (tmp_path / "set.parquet").read_bytes()

    def fail(rows: int) -> None:
        raise KeyboardInterrupt

    with DuckDbFeatures().opened(PROJECT, sources) as found, pytest.raises(KeyboardInterrupt):
        TrainingSet(found, FEATURES, PROJECT, SPAN).write(tmp_path / "set.parquet", fail)
    assert (tmp_path / "set.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


ROWS = tables_of(PAYMENTS[::3], [], [])["payments"]


class Peeking(DuckDbFeatures):
    """An engine with a mistake: it answers as of a second later."""

    def compute(self, features, project, rows, sources, progress=None):
        later = pa.array([time + 1_000_000 for time in rows.column("at").cast(pa.int64()).to_pylist()])
        place = rows.column_names.index("at")
        moved = rows.set_column(place, "at", later.cast(pa.timestamp("us", "UTC")))
        return super().compute(features, project, moved, sources, progress)


def test_a_planted_leak_moves_no_value(tmp_path, sources):
    """Events behind each row that carry its label, and labels that are not mature: nothing may change."""
    rows = sample_of(ROWS, PROJECT)
    assert 3 <= rows.num_rows <= 7
    assert features_that_see_the_future(DuckDbFeatures(), PROJECT, FEATURES, sources, rows, tmp_path / "x") == ()
    refuse_leaks(DuckDbFeatures(), PROJECT, FEATURES, sources, ROWS)


def test_an_engine_that_sees_a_second_ahead_is_caught_in_every_kind_of_view(tmp_path, sources):
    rows = sample_of(ROWS, PROJECT)
    moved = features_that_see_the_future(Peeking(), PROJECT, FEATURES, sources, rows, tmp_path / "x")
    assert {"n_1h", "total_1h", "most_1h", "shop_n_HOUR", "age"} <= set(moved)
    with pytest.raises(ContractViolation, match="moves when something happens after the row"):
        refuse_leaks(Peeking(), PROJECT, FEATURES, sources, ROWS)


@pytest.mark.parametrize("delay", ["None", "'1h'"], ids=["without a delay", "with a delay that is too short"])
def test_a_feature_that_reads_labels_before_they_are_known_is_caught(tmp_path, sources, delay):
    text = f"""
from tidewheel.features import mean, windowed
judged = windowed("labels", by="shop", windows=["1d"], delay={delay}, features={{"fraud": mean("is_fraud")}})
"""
    leaky = parse_features(text, "features.py", PROJECT)
    rows = sample_of(ROWS, PROJECT)
    assert features_that_see_the_future(DuckDbFeatures(), PROJECT, leaky, sources, rows, tmp_path / "x") == (
        "fraud_1d",
    )
    with pytest.raises(ContractViolation, match=r"fraud_1d: reads 'is_fraud' before it is known"):
        refuse_leaks(DuckDbFeatures(), PROJECT, leaky, sources, ROWS)
