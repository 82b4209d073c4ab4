"""The kernel keeps the same bits however events were cut, redelivered or disordered, and all that windows need."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewheel.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, parse_utc
from tidewheel.features.batches import keyed_events
from tidewheel.features.declaration import BatchView, StateView, WindowedView
from tidewheel.features.events import validate_events
from tidewheel.features.kernel import HEADER, RAW, KeyedEvents, merged_states
from tidewheel.features.load import parse_features
from tidewheel.features.merge import published_values, windowed_values
from unit.features.naive import naive_values
from unit.features.samples import every_project, payments_table, profiles_table

PROJECT = every_project()
FEATURES = parse_features(
    """
from tidewheel.features import count, distinct, first, last, max, mean, min, ratio, std, sum, time_since_last, windowed
from tidewheel.features import batch

exact = windowed("payments", by="shop", windows=["10m", "2d"], features={
    "a": count(), "b": sum("amount"), "c": distinct("channel"), "d": last("points")})
brief = windowed("payments", by="shop", windows=["10m", "2d"], dedup_for="20m", features={"e": count()})
few = windowed("payments", by="shop", windows=["1h", "2d"], max_events=4, features={
    "f": count(), "g": first("amount"), "h": std("amount")})
waiting = windowed("payments", by="shop", windows=["1h"], delay="1h", max_events=4, features={"i": count()})
hop = windowed("payments", by="shop", windows=["10m", "1h", "1d", "30d"], precision="hop", features={
    "j": count(), "k": sum("amount"), "l": mean("points"), "m": min("amount"), "n": max("points"), "o": std("amount"),
    "p": first("points"), "q": last("amount", where={"channel": "online"}), "r": ratio({"channel": "shop"}),
    "s": time_since_last(), "t": sum("points")})
declared = windowed("payments", by=["card", "shop"], windows=["5m", "1d"], precision="hop", hop="1m", dedup_for="1h",
    features={"u": count(), "v": std("points"), "w": last("items")})
settled = windowed("payments", by="shop", windows=["1h", "1d"], precision="hop", delay="90m", features={
    "x": count(), "y": sum("points"), "z": last("amount")})
rows = batch("profiles", by="card", columns=["age", "vip"], ttl="1d")
""",
    "features.py",
    PROJECT,
)
STARTS = [
    pytest.param(parse_utc(text), id=what)
    for text, what in (
        ("1970-01-02T00:00:00Z", "the first days of Unix time"),
        ("2018-03-25T00:30:00Z", "clocks change in Europe"),
        ("2024-02-28T23:00:00Z", "a leap day"),
        ("2199-12-30T00:00:00Z", "the last days that are taken"),
    )
]
GAPS = st.one_of(
    st.sampled_from([0, 0, 1, SECOND_US, MINUTE_US, 5 * MINUTE_US, HOUR_US, -MINUTE_US, -9 * MINUTE_US]),
    st.integers(-DAY_US, DAY_US),
    st.sampled_from([40 * DAY_US, -3 * DAY_US]),
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "card": st.sampled_from(["a", "ü"]),
            "shop": st.sampled_from([1, -(2**63)]),
            "gap": GAPS,
            "amount": st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, float("nan"), 1e-300])),
            "channel": st.sampled_from(["online", "shop", "", None]),
            "items": st.one_of(st.none(), st.integers(0, 3)),
            "points": st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)),
            "again": st.sampled_from([False, False, True]),
        }
    ),
    max_size=25,
)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


def arrivals(drawn: list[dict[str, Any]], start_us: int) -> list[dict[str, Any]]:
    """Events in order of arrival; one that came within its lateness may come again at once."""
    found: list[dict[str, Any]] = []
    at_us, newest = start_us, {}
    for number, event in enumerate(drawn):
        at_us = min(max(at_us + event["gap"], 0), parse_utc("2199-12-31T00:00:00Z"))
        one = {**event, "t": at_us, "id": f"p{number}"}
        found.append(one)
        for key in ((one["shop"],), (one["card"], one["shop"])):
            newest[key] = max(at_us, newest.get(key, 0))
        if event["again"] and at_us > max(newest[key] for key in newest if one["shop"] in key) - 9 * MINUTE_US:
            found.append({**one, "amount": 7.0})
    return found


def keyed(state: StateView, events: list[dict[str, Any]]) -> KeyedEvents:
    if state.source == "profiles":
        rows = [{**event, "age": event["items"], "vip": event["again"]} for event in events]
        good = validate_events(profiles_table(rows), "profiles", PROJECT).good
    else:
        good = validate_events(payments_table(events), "payments", PROJECT).good
    return keyed_events(state, good, np.arange(len(events)))


def taken(state: StateView, whole: KeyedEvents, runs: list[tuple[int, int]]) -> dict[bytes, bytes]:
    """States after these runs of events came, one batch each."""
    held: dict[bytes, bytes] = {}
    for start, stop in runs:
        codes, batch = np.unique(whole.codes[start:stop], return_inverse=True)
        keys = [whole.keys[code] for code in codes]
        part = KeyedEvents(keys, batch.astype(np.int64), whole.records[start:stop], whole.offsets[start:stop])
        merged = merged_states(state, [held.get(key) for key in keys], part)
        held.update(zip(keys, merged.blobs, strict=True))
    return held


@pytest.mark.parametrize("start_us", STARTS)
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(drawn=EVENTS, cuts=st.sets(st.integers(0, 30), max_size=8), back=st.integers(0, 6))
def test_a_state_has_the_same_bits_however_its_events_were_cut_and_redelivered(start_us, drawn, cuts, back):
    events = arrivals(drawn, start_us)
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for state in FEATURES.states:
        whole = keyed(state, events)
        at_once = taken(state, whole, [(0, len(events))])
        # After each cut some events come again, as when a worker is killed before it says how far it came.
        runs = [(max(0, start - back), stop) for start, stop in itertools.pairwise(bounds)]
        assert taken(state, whole, runs) == at_once
        assert taken(state, whole, [(i, i + 1) for i in range(len(events))]) == at_once


def test_numbers_of_many_digits_are_added_one_by_one_in_the_order_of_arrival():
    drawn = np.random.default_rng(0)
    events = arrivals([payment(int(gap), amount=float(amount)) for gap, amount in
                       zip(drawn.integers(-50, 60, 400) * SECOND_US, drawn.normal(0, 1e6, 400), strict=True)],
                      parse_utc("2018-04-01"))  # fmt: skip
    for state in FEATURES.states:
        whole = keyed(state, events)
        at_once = taken(state, whole, [(0, 400)])
        assert taken(state, whole, [(0, 7), (7, 150), (150, 151), (151, 400)]) == at_once


@pytest.mark.parametrize("start_us", STARTS)
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(drawn=EVENTS, after=st.sampled_from([0, 1, MINUTE_US, HOUR_US, 31 * DAY_US]))
def test_values_at_or_after_the_newest_event_equal_the_oracle(start_us, drawn, after):
    events = arrivals(drawn, start_us)
    if not events:
        return
    rows = [{**events[-1], "t": max(event["t"] for event in events) + after, "id": "asked"}]
    expected = naive_values(FEATURES, rows, {"payments": events, "profiles": []})
    for view in FEATURES.views:
        if not isinstance(view, WindowedView) or view.name == "brief":
            continue
        whole = keyed(view.state, events)
        held = taken(view.state, whole, [(0, len(events) // 2), (len(events) // 2, len(events))])
        blob = held.get(keyed(view.state, events[-1:]).keys[0])
        values = windowed_values(view, [blob], np.zeros(1, np.int64), np.array([rows[0]["t"]]), no_own_events(view))
        for feature, value in zip(view.features, values[0], strict=True):
            want = expected[feature.name][0]
            where = f"{feature.name}: got {value}, want {want}"
            scale = sum(abs(e[feature.column] or 0) for e in events if e[feature.column] == e[feature.column]
                        ) if feature.column not in (None, "channel") else 0  # fmt: skip
            if view.delay_us and view.max_events and np.isnan(value) and len(events) > view.state.capacity:
                continue  # so many events came within the delay that the window's own had to make room
            if want is None:
                assert np.isnan(value), where
            elif feature.aggregation.name in ("sum", "mean", "std") and feature.dtype == "float64":
                assert abs(value - want) <= 1e-9 * (1 + scale), where
            else:
                assert value == want, where


def no_own_events(view: WindowedView, n: int = 1) -> Any:
    from tidewheel.features.merge import OwnEvents

    if view.own_event == "as any":
        return None
    return OwnEvents(np.zeros((n, 3 + len(view.state.columns)), dtype=np.int64), np.zeros(n, dtype=bool))


@settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
@given(drawn=EVENTS, seed=st.integers(0, 99))
def test_an_exact_state_does_not_depend_on_the_order_of_arrival(drawn, seed):
    events = arrivals([{**event, "again": False} for event in drawn], parse_utc("2018-04-01"))
    shuffled = [events[i] for i in np.random.default_rng(seed).permutation(len(events))]
    for state in (view.state for view in FEATURES.views if view.name in ("exact", "brief", "few", "waiting")):
        one, other = ({key: blob[8:] for key, blob in taken(state, keyed(state, given), [(0, len(events))]).items()}
                      for given in (events, shuffled))  # fmt: skip
        assert one == other


def test_what_is_published_are_the_values_at_the_newest_event():
    events = arrivals([payment(gap) for gap in (0, MINUTE_US, HOUR_US)], parse_utc("2018-04-01"))
    view = next(view for view in FEATURES.views if view.name == "exact")
    states = merged_states(view.state, [None], keyed(view.state, events))
    values = published_values(view, states.blobs, states.newest_us)
    assert dict(zip(view.feature_names, values[0].tolist(), strict=True)) == {
        "a_10m": 1.0, "a_2d": 3.0, "b_10m": 2.5, "b_2d": 7.5, "c_10m": 1.0, "c_2d": 1.0, "d_10m": 4.0, "d_2d": 4.0,
    }  # fmt: skip


def test_a_busy_entity_keeps_max_events_and_a_window_with_more_is_missing():
    view = next(view for view in FEATURES.views if view.name == "few")
    assert view.state.capacity == 5
    events = arrivals([payment(MINUTE_US) for _ in range(40)], parse_utc("2018-04-01"))
    ((_, blob),) = taken(view.state, keyed(view.state, events), [(0, 40)]).items()
    assert len(blob) == 8 * HEADER + 5 * view.state.record_bytes
    newest = np.array([events[-1]["t"]])
    counts = {after: windowed_values(view, [blob], np.zeros(1, np.int64), newest + after, no_own_events(view))[0, 0]
              for after in (0, 55 * MINUTE_US, 57 * MINUTE_US, 2 * HOUR_US)}  # fmt: skip
    assert np.isnan(counts[0])
    assert np.isnan(counts[55 * MINUTE_US])  # five events left in the hour: one too many
    assert counts[57 * MINUTE_US] == 3
    assert counts[2 * HOUR_US] == 0


def test_a_request_older_than_what_is_kept_is_missing_and_never_a_part_of_the_value():
    events = arrivals([payment(HOUR_US) for _ in range(24 * 9)], parse_utc("2018-04-01"))
    newest = events[-1]["t"]
    for name, feature, kept_us in (("exact", 1, 2 * DAY_US), ("hop", 2, 10 * MINUTE_US)):
        view = next(view for view in FEATURES.views if view.name == name)
        ((_, blob),) = taken(view.state, keyed(view.state, events), [(0, len(events))]).items()
        asked = newest - np.array([0, kept_us - 1, kept_us + 3 * DAY_US])
        values = windowed_values(view, [blob], np.zeros(3, np.int64), asked, None if view.own_event == "as any" else
                                 no_own_events(view, 3))[:, feature]  # fmt: skip
        hours = view.windows_us[feature] // HOUR_US
        assert values[0] in (hours, hours + 1)
        assert values[1] in (hours, hours + 1)
        assert np.isnan(values[2])


def test_a_hop_state_keeps_tiles_and_few_events_however_many_came():
    view = next(view for view in FEATURES.views if view.name == "hop")
    layout = view.state.tiles
    assert layout is not None
    assert [level.hop_us for level in layout.levels] == [5 * MINUTE_US, HOUR_US, DAY_US]
    events = arrivals([payment(30 * SECOND_US) for _ in range(10_000)], parse_utc("2018-04-01"))  # 3.5 days
    ((_, blob),) = taken(view.state, keyed(view.state, events), [(0, 10_000)]).items()
    words = np.frombuffer(blob, dtype="<i8")
    n_tiles = (len(words) - HEADER - words[RAW] * view.state.record_bytes // 8) // layout.width
    assert words[RAW] <= (10 + 5 + 5) * 2
    assert n_tiles <= (60 + 10) // 5 + 3 + 24 + 2 + 5


def test_a_batch_row_newer_than_the_request_is_not_seen_and_the_one_before_is():
    from tidewheel.features.merge import batch_values

    view = next(view for view in FEATURES.views if isinstance(view, BatchView))
    events = arrivals([payment(HOUR_US, items=items) for items in (1, 2, None)], parse_utc("2018-04-01"))
    ((_, blob),) = taken(view.state, keyed(view.state, events), [(0, 3)]).items()
    asked = np.array(
        [events[0]["t"] - 1, events[0]["t"], events[1]["t"] + 1, events[2]["t"], events[2]["t"] + DAY_US + 1]
    )
    values = batch_values(view, [blob], np.zeros(5, np.int64), asked)[:, 0]
    np.testing.assert_array_equal(values, [np.nan, 1, 2, np.nan, np.nan])


def payment(gap: int, **changes: Any) -> dict[str, Any]:
    base = {"card": "a", "shop": 1, "gap": gap, "amount": 2.5, "channel": "online", "items": 1, "points": 4,
            "again": False}  # fmt: skip
    return {**base, **changes}
