"""Spark against the oracle: one large random history, because each query costs Spark seconds, however small."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from servers.spark import need_spark
from tidewheel.features.load import parse_features
from unit.features.naive import naive_values
from unit.features.samples import (
    MINUTE_US,
    START_US,
    every_features,
    every_project,
    payments_table,
    written,
)
from unit.features.test_engines import assert_values, payment, tables_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROJECT = every_project()
FEATURES = every_features(PROJECT)
GOLDEN = Path(__file__).parents[1] / "unit" / "features" / "golden.json"


SOME_FEATURES = """
from tidewheel.features import batch, count, windowed
card = windowed("payments", by="card", windows=["1h"], include_request=True, features={"n": count()})
profile = batch("profiles", by="card", columns=["age"], ttl="1h")
"""


def random_history(seed: int, n: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Payments, labels and profiles with ties, repeated ids, disorder, nulls, NaN and the ends of int64."""
    random = Random(seed)

    def time() -> int:
        return START_US + random.randrange(60) * 5 * MINUTE_US + random.choice([0, 0, 0, 1, -1])

    def some_id() -> str:
        number = random.randrange(2 * n // 3)
        return f"payment-{number}" * (1 + number % 3)

    def who() -> dict[str, Any]:
        return {"card": random.choice(["a", "ü", "longer-than-eight-bytes", "", "it's \\ \"quoted\""]),
                "shop": random.choice([1, -7, 2**62])}  # fmt: skip

    payments = [
        {
            **who(), "t": time(), "id": some_id(), "channel": random.choice(["online", "shop", None]),
            "amount": random.choice([None, math.nan, 0.0, -0.0, 0.1, random.gauss(0, 1e5)]),
            "items": random.choice([None, 0, 1, 2, 3]),
            "points": random.choice([None, random.randrange(-5, 5), 2**63 - 1, -(2**63), 2**62]),
        }
        for _ in range(n)
    ]  # fmt: skip
    labels = [{**who(), "t": time(), "id": some_id(), "is_fraud": random.choice([None, True, False])} for _ in range(n)]
    profiles = [
        {"card": who()["card"], "t": time(), "age": random.choice([None, *range(90)]), "vip": random.random() < 0.5}
        for _ in range(n // 2)
    ]
    return payments, labels, profiles


def apart(events: list[Any]) -> list[Any]:
    """The same events, about others."""
    return [{**one, "card": f"golden {one['card']}", **({"shop": one["shop"] + 1000} if "shop" in one else {})}
            for one in events]  # fmt: skip


def test_every_kind_of_view_equals_the_oracle_and_the_golden_file(tmp_path):
    engine = need_spark()
    payments, labels, profiles = random_history(seed=4, n=300)
    asked = Random(5).sample(payments, 40)  # known, and unknown, before and among what happened
    rows = asked + [{**one, "id": f"new-{i}"} for i, one in enumerate(Random(6).sample(payments, 30))]
    golden = json.loads(GOLDEN.read_text())
    pinned = {name: apart(events) for name, events in golden["events"].items()}
    every = tables_of(payments + pinned["payments"], labels + pinned["labels"], profiles + pinned["profiles"])
    table = pa.concat_tables([payments_table(rows), payments_table(apart(golden["rows"]))])
    out = engine.compute(FEATURES, PROJECT, table, written(tmp_path, every))
    events = {"payments": payments, "labels": labels, "profiles": profiles}
    assert_values(FEATURES, out.slice(0, len(rows)), naive_values(FEATURES, rows, events), rows, events)
    for name, wanted in golden["values"].items():
        values = out.column(name).cast(pa.float64(), safe=False).to_pylist()[len(rows) :]
        assert values == [None if one is None else pytest.approx(one, rel=1e-12, abs=1e-12) for one in wanted], name


def test_text_in_a_condition_is_text(tmp_path):
    engine = need_spark()
    text = r"""
from tidewheel.features import count, windowed
odd = windowed("payments", by="card", windows=["1h"], features={"n": count(where={"channel": "it's \\ \"n\" \\n"})})
"""
    features = parse_features(text, "features.py", PROJECT)
    events = [payment(1, channel='it\'s \\ "n" \\n'), payment(2, channel="it's")]
    paths = written(tmp_path, tables_of(events, [], []))
    out = engine.compute(features, PROJECT, payments_table([payment(3, id="asked")]), paths)
    assert out.column("n_1h").to_pylist() == [1]


def test_training_rows_and_sources_without_files_are_as_by_duckdb(tmp_path):
    from tidewheel.adapters.duckdb_features import DuckDbFeatures

    payments, labels, profiles = random_history(seed=8, n=60)
    paths = written(tmp_path, tables_of(payments, labels, profiles)) | {"profiles": tmp_path / "nothing-yet"}
    window = (START_US, START_US + 300 * MINUTE_US, START_US + 10**12)
    mine, theirs = (one.training_rows(PROJECT, paths, *window) for one in (need_spark(), DuckDbFeatures()))
    assert mine.n_unmatched == theirs.n_unmatched > 0
    assert mine.rows.equals(theirs.rows)
    features = parse_features(SOME_FEATURES, "features.py", PROJECT)
    rows = mine.rows.slice(0, 3)
    one, other = (made.compute(features, PROJECT, rows, paths) for made in (need_spark(), DuckDbFeatures()))
    assert one.column("age").null_count == 3
    assert one.column("n_1h").equals(other.column("n_1h"))
