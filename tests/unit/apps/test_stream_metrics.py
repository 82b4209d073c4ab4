"""What a scrape of the stream worker shows, and that the reference says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
from prometheus_client.core import CollectorRegistry

from integration.test_stream_worker import apply, events
from memory.event_log import MemoryEventLog
from memory.online_store import MemoryOnlineStore
from tidewheel.adapters.local_home import LocalHome
from tidewheel.apps.stream_metrics import StreamMetrics
from tidewheel.apps.stream_worker import StreamWorker
from tidewheel.clock import SECOND_US, FixedClock
from unit.features.samples import FEATURES


def test_the_reference_names_what_is_exported(repository: Path) -> None:
    text = (repository / "docs/reference/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", text, re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), said) for name, kind, labels, said in rows]
    families = list(StreamMetrics(FixedClock()).collect())
    assert told == [(one.name, one.type, tuple(getattr(one, "_labelnames", ())), one.documentation) for one in families]


def test_a_scrape_tells_of_events_lag_and_what_was_set_aside(tmp_path: Path) -> None:
    home, clock = LocalHome(tmp_path / "home"), FixedClock(1_700_000_000 * SECOND_US)
    apply(home)
    log, metrics = MemoryEventLog(), StreamMetrics(clock)
    log.append("payments", events()["payments"].slice(0, 50))
    log.append("payments", pa.table({"nonsense": [1]}))
    worker = StreamWorker(home, log, MemoryOnlineStore(), clock, metrics.counts)
    metrics.keepers = worker
    for _ in range(20):
        worker.step()
        clock.at_us += SECOND_US
    log.append("payments", events()["payments"].slice(50, 7))
    for keeper in worker.states.values():
        clock.at_us += SECOND_US
        keeper.heartbeat()
    registry = CollectorRegistry()
    registry.register(metrics)
    worker.close()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tidewheel_stream_{name}", labels)

    card = next(keeper.state.state_id for keeper in worker.states.values() if keeper.view.name == "card")[:8]
    assert value("lag_events", topic="payments", partition="0", view="card", state=card) == 7
    assert (value("up_to_date", view="card"), value("up_to_date", view="profile")) == (0, 1)
    assert value("lake_position", source="payments", partition="0") == 51
    assert value("rejected_events_total", source="payments", reason="ValueError") == 1
    assert (value("events_total", view="card") or 0) >= 51


def test_a_changed_view_beside_the_deployed_one_has_a_lag_of_its_own(tmp_path: Path) -> None:
    home, clock = LocalHome(tmp_path / "home"), FixedClock(1_700_000_000 * SECOND_US)
    apply(home)
    (home.root / "applied" / "sample.json").rename(home.root / "applied" / "older.json")
    apply(home, FEATURES.replace('windows=["10m", "1h"]', 'windows=["10m", "1h", "2h"]'))
    metrics = StreamMetrics(clock)
    worker = StreamWorker(home, MemoryEventLog(), MemoryOnlineStore(), clock)
    metrics.keepers = worker
    worker.step()
    worker.close()
    (lag,) = (one for one in metrics.collect() if one.name == "tidewheel_stream_lag_events")
    labels = [sample.labels for sample in lag.samples if sample.labels["view"] == "card"]
    assert len({one["state"] for one in labels}) == len(labels) == 2
