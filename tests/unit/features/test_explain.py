"""What explain says of a declaration is what its states then take."""

from __future__ import annotations

import numpy as np
import pytest

from tidewheel.clock import DAY_US, MINUTE_US, parse_utc
from tidewheel.features.declaration import WindowedView
from tidewheel.features.explain import explained, recent_us, ring_tiles, state_bytes
from tidewheel.features.kernel import RAW, KeyedEvents, make_records, merged_states
from tidewheel.features.load import parse_features
from unit.features.samples import every_features, sample_project

HOPPING = """
from tidewheel.features import count, max, mean, sum, windowed
v = windowed("payments", by="shop", windows=["5m", "1h", "24h"], precision="hop", hop="5m", features={
    "n": count(), "total": sum("amount"), "usual": mean("amount"), "most": max("amount")})
"""
HOUR_FEATURES = """
from tidewheel.features import count, last, std, windowed
v = windowed("payments", by="shop", windows=["1h", "12h", "30d"], precision="hop", features={
    "n": count(), "spread": std("amount"), "newest": last("amount")})
"""
START_US = parse_utc("2018-04-01")


def view_of(text: str) -> WindowedView:
    view = parse_features(text, "features.py", sample_project()).views[0]
    assert isinstance(view, WindowedView)
    return view


def state_with(view: WindowedView, times_us: np.ndarray) -> bytes:  # type: ignore[type-arg]
    n = len(times_us)
    ids = np.arange(n).astype("S20")
    records = make_records(view.state, times_us, ids, {"amount": np.ones(n)})
    events = KeyedEvents([b"k"], np.zeros(n, dtype=np.int64), records, np.arange(n))
    return merged_states(view.state, [None], events).blobs[0]


@pytest.mark.parametrize("text", [HOPPING, HOUR_FEATURES], ids=["one hop", "a hop by window length"])
def test_the_worst_bytes_are_those_of_a_state_with_full_rings(text):
    view = view_of(text)
    blob = state_with(view, START_US + np.arange(0, 40 * DAY_US, MINUTE_US))
    n_records = int(np.frombuffer(blob, dtype="<i8")[RAW])
    _, worst = state_bytes(view, 10)
    assert worst is not None
    assert 0.9 * worst <= len(blob) - n_records * view.state.record_bytes <= worst
    assert n_records <= recent_us(view.state) // MINUTE_US + 5


def test_tiles_take_little_more_than_the_numbers_in_them():
    view = view_of(HOPPING)
    assert view.state.tiles is not None
    assert ring_tiles(view.state.tiles) == [(24 * 60 + 10) // 5 + 2]
    # One event every five minutes for days: all tiles filled, and hardly any event kept beside them.
    blob = state_with(view, START_US + np.arange(0, 3 * DAY_US, 5 * MINUTE_US))
    functions, tiles, bytes_of_a_number = 4, 24 * 60 // 5, 8
    assert len(blob) <= 1.2 * functions * tiles * bytes_of_a_number


def test_the_typical_bytes_are_near_those_of_events_by_chance():
    for text in (HOPPING, HOUR_FEATURES):
        view = view_of(text)
        drawn = np.random.default_rng(0)
        sizes = [len(state_with(view, START_US + np.sort(drawn.integers(0, 40 * DAY_US, 40 * 50)))) for _ in range(20)]
        assert state_bytes(view, 50)[0] == pytest.approx(np.mean(sizes), rel=0.15)


def test_each_feature_says_what_it_reads_and_how_far_its_edge_is_off():
    told = explained(every_features(), 100)
    features = {one["name"]: one for one in told["features"]}
    assert [features[name]["edge_staleness"] for name in ("n_1h", "busy_n_1h", "long_n_12h", "quiet_n_3h", "age")] == [
        "0s", "5m", "1h", "15m", "1h"]  # fmt: skip
    assert [features[name]["max_events"] for name in ("n_1h", "few_n_1h", "busy_n_1h", "age")] == [
        10_000,
        3,
        None,
        None,
    ]
    assert features["long_n_12h"]["read_cost"] == "up to 25 tiles and the events of 5m"
    assert features["ruled_n_12h"]["read_cost"] == "up to 13 tiles"
    assert features["judged_1d"]["read_cost"] == "100 events, at most 10,000"
    assert features["fraud_ratio_1d"]["default"] == 0.0
    views = {one["name"]: one for one in told["views"]}
    assert views["busy"]["work_per_event"] == "1 record of 48 B, 1 tile of 80 B"
    assert views["few"]["worst_bytes"] == 32 + 4 * 40
