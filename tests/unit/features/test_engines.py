"""Three engines and the oracle agree: SQL by DuckDB, the stream kernel over files, and the online reader."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory.event_log import MemoryEventLog
from memory.online_store import MemoryOnlineStore
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.clock import FixedClock
from tidewheel.features.declaration import FeatureSet, RequestView, WindowedView
from tidewheel.features.events import validate_events
from tidewheel.features.reader import FeatureReader
from tidewheel.features.replay import compute_by_stream
from tidewheel.features.rows import request_arrays, with_features
from tidewheel.features.stream import StateKeeper
from unit.features.naive import naive_values
from unit.features.samples import (
    MINUTE_US,
    START_US,
    every_features,
    every_project,
    labels_table,
    payments_table,
    profiles_table,
    written,
)

PROJECT = every_project()
FEATURES = every_features(PROJECT)

# A coarse grid makes ties and exact window edges common; the odd microsecond makes near misses.
TIMES = st.builds(
    lambda minute, off: START_US + minute * 5 * MINUTE_US + off, st.integers(0, 60), st.sampled_from([0, 0, 0, 1, -1])
)
CARDS = st.sampled_from(["a", "ü", "longer-than-eight-bytes", ""])
SHOPS = st.sampled_from([1, -7, 2**62])
AMOUNTS = st.one_of(st.none(), st.just(math.nan), st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 0.1]))
PAYMENTS = st.fixed_dictionaries(
    {
        "card": CARDS,
        "shop": SHOPS,
        "t": TIMES,
        "id": st.integers(0, 40).map(lambda n: f"payment-{n}" * (1 + n % 3)),
        "amount": AMOUNTS,
        "channel": st.sampled_from(["online", "shop", None]),
        "items": st.one_of(st.none(), st.integers(0, 3)),
        "points": st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1), st.just(2**63 - 1)),
    }
)
LABELS = st.fixed_dictionaries(
    {
        "card": CARDS,
        "shop": SHOPS,
        "t": TIMES,
        "id": st.integers(0, 40).map(lambda n: f"payment-{n}" * (1 + n % 3)),
        "is_fraud": st.one_of(st.none(), st.booleans()),
    }
)
PROFILES = st.fixed_dictionaries(
    {"card": CARDS, "t": TIMES, "age": st.one_of(st.none(), st.integers(0, 99)), "vip": st.booleans()}
)


EXACT = ("count", "min", "max", "first", "last", "distinct", "time_since_last")


def assert_values(
    features: FeatureSet,
    out: pa.Table,
    expected: dict[str, list[float | None]],
    rows: list[Any],
    events: dict[str, list[Any]],
    forgotten: dict[str, list[str]] | None = None,
) -> None:
    """Counts, extremes and integers exactly; float sums, means and deviations within 1e-9 of the sum of |x|.

    ``forgotten`` says by view which rows an online state may not know any more: "old" ones may be missing, but never
    wrong; "unknown" is whether their own event counted already.
    """
    windowed = {f.name: (v, f) for v in features.views if isinstance(v, WindowedView) for f in v.features}
    for name, wanted in expected.items():
        scale, exact, lost = 0.0, True, [""] * len(rows)
        if name in windowed:
            view, feature = windowed[name]
            every = [*events[view.source], *rows]
            exact = feature.aggregation.name in EXACT or feature.dtype == "int64"
            scale = 1.0 + sum(abs(e.get(feature.column) or 0) for e in every if feature.column not in (None, "channel")
                              and e.get(feature.column) == e.get(feature.column))  # fmt: skip
            lost = forgotten.get(view.name, lost) if forgotten else lost
        got = out.column(name).cast(pa.float64(), safe=False).to_pylist()
        for row, (value, want) in enumerate(zip(got, wanted, strict=True)):
            where = f"{name} of row {row}: got {value}, want {want}"
            if lost[row] == "unknown" or (lost[row] == "old" and value in (None, windowed[name][1].default)):
                continue
            if want is None or value is None:
                assert value is None, where
                assert want is None, where
            elif exact:
                assert value == clipped(want, features.dtypes[features.names.index(name)]), where
            else:
                assert abs(value - want) <= 1e-9 * scale, where


def clipped(value: float, dtype: str) -> float:
    """The value as an integer column holds it: doubles next to the limit of int64 round beyond it."""
    return min(value, math.nextafter(2.0**63, 0)) if dtype == "int64" else value


def forgotten_rows(features: FeatureSet, rows: list[Any], events: dict[str, list[Any]]) -> dict[str, list[str]]:
    """By view: rows older than what the entity's online state answers for sure."""
    found: dict[str, list[str]] = {}
    for view in features.views:
        if not isinstance(view, WindowedView):
            continue
        found[view.name] = []
        for row in rows:
            mine = [e for e in events[view.source] if all(e[key] == row[key] for key in view.keys)]
            late_us = view.state.tiles.lateness_us if view.state.tiles else 0
            bounded = view.state.tiles is not None or len(mine) >= view.state.capacity
            from_us = max((e["t"] for e in mine), default=0) - late_us
            old = bounded and row["t"] < from_us
            # An own event that was recorded long before its request, and is no record any more.
            apart = view.own_event != "as any" and any(e["id"] == row["id"] and e["t"] <= from_us for e in mine)
            # An id that came again after its event had to make room is taken for a new one.
            again = view.max_events is not None and len({e["id"] for e in mine}) < len(mine)
            found[view.name].append("unknown" if bounded and (apart or again) else "old" if old else "")
    return found


def tables_of(payments: list[Any], labels: list[Any], profiles: list[Any]) -> dict[str, pa.Table]:
    return {
        "payments": payments_table(payments),
        "labels": labels_table(labels),
        "profiles": profiles_table(profiles),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    payments=st.lists(PAYMENTS, max_size=25),
    labels=st.lists(LABELS, max_size=15),
    profiles=st.lists(PROFILES, max_size=8),
    rows=st.lists(PAYMENTS, min_size=1, max_size=8),
    asked=st.lists(st.integers(0, 24), max_size=5),
    batch_events=st.sampled_from([1, 3, 1000]),
)
def test_the_stream_over_files_equals_the_oracle(payments, labels, profiles, rows, asked, batch_events):
    rows = rows + [payments[i] for i in asked if i < len(payments)]
    events = {"payments": payments, "labels": labels, "profiles": profiles}
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), tables_of(payments, labels, profiles))
        out = compute_by_stream(FEATURES, PROJECT, payments_table(rows), paths, batch_events=batch_events)
    assert out.column_names[: payments_table(rows).num_columns] == payments_table(rows).column_names
    assert_values(FEATURES, out, naive_values(FEATURES, rows, events), rows, events)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    payments=st.lists(PAYMENTS, max_size=25),
    labels=st.lists(LABELS, max_size=15),
    profiles=st.lists(PROFILES, max_size=8),
    rows=st.lists(PAYMENTS, min_size=1, max_size=8),
    asked=st.lists(st.integers(0, 24), max_size=5),
)
def test_sql_equals_the_oracle(payments, labels, profiles, rows, asked):
    rows = rows + [payments[i] for i in asked if i < len(payments)]
    events = {"payments": payments, "labels": labels, "profiles": profiles}
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), tables_of(payments, labels, profiles))
        out = DuckDbFeatures(threads=1).compute(FEATURES, PROJECT, payments_table(rows), paths)
    assert out.column_names[: payments_table(rows).num_columns] == payments_table(rows).column_names
    assert_values(FEATURES, out, naive_values(FEATURES, rows, events), rows, events)


def online(payments: list[Any], labels: list[Any], profiles: list[Any], pieces: int) -> MemoryOnlineStore:
    """State after all events came through the log in appends of ``pieces`` and the keepers took them."""
    log, store = MemoryEventLog(), MemoryOnlineStore()
    for name, table in tables_of(payments, labels, profiles).items():
        good = validate_events(table, name, PROJECT, keys=FEATURES.keys_of(name)).good
        for start in range(0, good.num_rows, pieces):
            log.append(name, good.slice(start, pieces))
    for view in FEATURES.views:
        if isinstance(view, RequestView):
            continue
        keeper = StateKeeper(view, 0, log, store, FixedClock(), lambda *_, **__: None)
        while keeper.step():
            pass
    return store


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    payments=st.lists(PAYMENTS, max_size=25),
    labels=st.lists(LABELS, max_size=15),
    profiles=st.lists(PROFILES, max_size=8),
    rows=st.lists(PAYMENTS, min_size=1, max_size=8),
    pieces=st.sampled_from([1, 4, 100]),
)
def test_the_reader_equals_the_oracle_and_one_row_equals_many(payments, labels, profiles, rows, pieces):
    events = {"payments": payments, "labels": labels, "profiles": profiles}
    expected = naive_values(FEATURES, rows, events)
    reader = FeatureReader(FEATURES, online(payments, labels, profiles, pieces))
    normal = validate_events(payments_table(rows), "payments", PROJECT).good
    arrays = request_arrays(normal, FEATURES)
    t_us = np.array([row["t"] for row in rows], dtype=np.int64)
    together = reader.read(arrays, t_us).values
    found = {name: np.ascontiguousarray(together[:, i]) for i, name in enumerate(FEATURES.names)}
    out = with_features(pa.table({"row": np.arange(len(rows))}), FEATURES, found)
    assert_values(FEATURES, out, expected, rows, events, forgotten_rows(FEATURES, rows, events))
    for row in range(len(rows)):
        alone = reader.read({name: values[row : row + 1] for name, values in arrays.items()}, t_us[row : row + 1])
        np.testing.assert_array_equal(alone.values[0].view(np.int64), together[row].view(np.int64))


def payment(minute: float, card: str = "a", **changes: Any) -> dict[str, Any]:
    base = {"card": card, "shop": 1, "t": START_US + round(minute * MINUTE_US), "id": f"p{minute}{card}",
            "amount": 10.0, "channel": "online", "items": 2, "points": 3}  # fmt: skip
    return {**base, **changes}


def test_a_window_excludes_its_left_edge_and_includes_its_right_one(tmp_path):
    events = [payment(0), payment(60)]
    rows = [payment(60, id="asked"), payment(60, id="asked-2", t=START_US + 60 * MINUTE_US - 1)]
    paths = written(tmp_path, tables_of(events, [], []))
    for out in (
        DuckDbFeatures().compute(FEATURES, PROJECT, payments_table(rows), paths),
        compute_by_stream(FEATURES, PROJECT, payments_table(rows), paths),
    ):
        assert out.column("n_1h").to_pylist() == [2, 2]  # the own event and the one at t; the own and the first
        assert out.column("shop_n_HOUR").to_pylist() == [1, 1]


def test_the_own_event_counts_once_whether_it_came_first_or_not(tmp_path):
    asked = payment(30, id="asked")
    for known in ([], [asked], [asked, asked]):
        paths = written(tmp_path, tables_of([payment(29), *known], [], []))
        out = DuckDbFeatures().compute(FEATURES, PROJECT, payments_table([asked]), paths)
        assert (out.column("n_1h").to_pylist(), out.column("shop_n_HOUR").to_pylist()) == ([2], [1])


def test_one_requests_own_event_never_counts_for_another(tmp_path):
    rows = [payment(30, id="first"), payment(31, id="second")]
    paths = written(tmp_path, tables_of([], [], []))
    out = DuckDbFeatures().compute(FEATURES, PROJECT, payments_table(rows), paths)
    assert out.column("n_1h").to_pylist() == [1, 1]


def test_a_delay_hides_what_was_not_known_yet(tmp_path):
    label = {"card": "a", "shop": 1, "t": START_US, "id": "x", "is_fraud": True}
    rows = [payment(120, t=START_US + 120 * MINUTE_US + off, id=f"r{off}") for off in (-1, 0)]
    paths = written(tmp_path, tables_of([], [label], []))
    out = DuckDbFeatures().compute(FEATURES, PROJECT, payments_table(rows), paths)
    assert out.column("judged_1h").to_pylist() == [0, 1]
    assert out.column("fraud_ratio_1h").to_pylist() == [0.0, 1.0]


def test_empty_windows_count_and_sum_to_zero_and_miss_the_rest(tmp_path):
    row = payment(30, amount=None, channel=None, items=None, points=None)
    paths = written(tmp_path, tables_of([], [], []))
    out = DuckDbFeatures().compute(FEATURES, PROJECT, payments_table([row]), paths)
    empty = {"n_10m": 1, "n_online_10m": 0, "total_10m": 0.0, "usual_10m": -1.0, "least_10m": None, "most_10m": None,
             "spread_10m": None, "shop_n_HOUR": 0, "shop_usual_HOUR": None, "judged_1h": 0, "fraud_ratio_1h": 0.0,
             "pair_n_30m": 0, "pair_first_30m": None, "pair_last_30m": None, "pair_points_30m": 0,
             "pair_channels_30m": 0, "pair_online_30m": -1.0, "pair_since_30m": None, "few_n_1h": 1,
             "few_last_1h": 0, "few_kinds_1h": 0, "busy_n_1h": 1, "busy_total_1h": 0.0, "busy_usual_1h": None,
             "quiet_n_3h": 0, "quiet_last_3h": None, "quiet_online_3h": None, "quiet_since_3h": None,
             "ruled_n_12h": 0, "ruled_frauds_12h": 0, "ruled_last_12h": None,
             "age": None, "vip": None, "is_dear": False}  # fmt: skip
    assert {name: out.column(name)[0].as_py() for name in empty} == empty


@pytest.mark.parametrize("times", [[0, 300], [300, 0]], ids=["in order", "out of order"])
def test_the_first_arrival_of_an_event_id_wins_whatever_its_time(tmp_path, times):
    events = [payment(at, id="twice", amount=float(at)) for at in times]
    paths = written(tmp_path, tables_of(events, [], []))
    row = payment(times[0] + 1, id="asked", amount=None)
    for out in (
        DuckDbFeatures().compute(FEATURES, PROJECT, payments_table([row]), paths),
        compute_by_stream(FEATURES, PROJECT, payments_table([row]), paths),
    ):
        assert (out.column("n_10m").to_pylist(), out.column("total_10m").to_pylist()) == ([2], [float(times[0])])


def test_training_rows_are_mature_labels_with_their_requests(tmp_path):
    payments = [payment(minute, id=f"p{minute}") for minute in (0, 10, 20, 30)] + [payment(0, id="p0", amount=99.0)]
    labels = [
        {"card": "a", "shop": 1, "t": START_US + minute * MINUTE_US, "id": name, "is_fraud": fraud}
        for minute, name, fraud in ((0, "p0", True), (0, "p0", False), (10, "p10", False), (15, "gone", True),
                                    (20, "p20", None), (30, "p30", True))
    ]  # fmt: skip
    paths = written(tmp_path, tables_of(payments, labels, []))
    as_of_us = START_US + (120 + 10) * MINUTE_US
    got = DuckDbFeatures().training_rows(PROJECT, paths, START_US, START_US + 60 * MINUTE_US, as_of_us)
    assert got.rows.column("payment").to_pylist() == ["p0", "p10"]
    assert got.rows.column("label").to_pylist() == [1, 0]
    assert got.rows.column("amount").to_pylist() == [10.0, 10.0]
    assert got.n_unmatched == 0
    later = DuckDbFeatures().training_rows(PROJECT, paths, START_US, START_US + 30 * MINUTE_US, as_of_us + 10**12)
    assert (later.rows.column("payment").to_pylist(), later.n_unmatched) == (["p0", "p10"], 1)
