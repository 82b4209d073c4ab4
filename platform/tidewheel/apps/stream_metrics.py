"""What a stream worker tells Prometheus: how far behind it is, what it took and what it set aside."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tidewheel.apps.stream_keepers import FLUSH_BOUNDS_S, StreamCounts, StreamKeepers
from tidewheel.clock import SECOND_US, Clock


class StreamMetrics(Collector):
    """Read by the thread of the scrape; a scrape may miss the newest step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.counts = StreamCounts()
        self.keepers: StreamKeepers | None = None

    def collect(self) -> Iterable[Metric]:
        yield from self._states()
        yield from self._lake()
        yield from self._counted()

    def _states(self) -> Iterable[Metric]:
        lag = GaugeMetricFamily(
            "tidewheel_stream_lag_events", "Offsets between a state and the end of its partition.",
            labels=("topic", "partition", "view", "state"),
        )  # fmt: skip
        freshness = GaugeMetricFamily(
            "tidewheel_stream_freshness_seconds", "Since the slowest partition of a view was last at the log's end.",
            labels=("view",),
        )  # fmt: skip
        current = GaugeMetricFamily(
            "tidewheel_stream_up_to_date", "1 where a view has taken all events of the partitions kept here, else 0.",
            labels=("view",),
        )  # fmt: skip
        caught_up_us: dict[str, int] = {}
        up_to_date: dict[str, bool] = {}
        for keeper in list(self.keepers.states.values()) if self.keepers else ():
            told, view = keeper.progress, keeper.view.name
            behind = max(told.end - told.position, 0)
            lag.add_metric((keeper.topic, str(keeper.partition), view, keeper.state.state_id[:8]), behind)
            caught_up_us[view] = min(caught_up_us.get(view, told.caught_up_at_us), told.caught_up_at_us)
            up_to_date[view] = up_to_date.get(view, True) and not behind
        now_us = self._clock.now_us()
        for view, at_us in caught_up_us.items():
            if at_us:  # never yet: there is no such time, and up_to_date says so
                freshness.add_metric((view,), max(now_us - at_us, 0) / SECOND_US)
            current.add_metric((view,), float(up_to_date[view]))
        return (lag, freshness, current)

    def _lake(self) -> Iterable[Metric]:
        position = GaugeMetricFamily(
            "tidewheel_stream_lake_position", "Offset up to which a partition is in the lake.",
            labels=("source", "partition"),
        )  # fmt: skip
        for lake in list(self.keepers.lakes.values()) if self.keepers else ():
            position.add_metric((lake.place.source, str(lake.place.partition)), lake.position)
        return (position,)

    def _counted(self) -> Iterable[Metric]:
        counts = self.counts
        events = CounterMetricFamily("tidewheel_stream_events", "Offsets taken into a view's state.", labels=("view",))
        for view, n in list(counts.events.items()):
            events.add_metric((view,), n)
        late = CounterMetricFamily(
            "tidewheel_stream_late_events", "Events later than the source's allowed lateness; they count all the same.",
            labels=("source",),
        )  # fmt: skip
        for source, n in list(counts.late.items()):
            late.add_metric((source,), n)
        rejected = CounterMetricFamily(
            "tidewheel_stream_rejected_events", "Messages that are no event of their source, with why.",
            labels=("source", "reason"),
        )  # fmt: skip
        for (source, reason), n in list(counts.rejected.items()):
            rejected.add_metric((source, reason), n)
        flush = HistogramMetricFamily("tidewheel_stream_flush_seconds", "A batch of a state: read, merge, write.")
        running, buckets = 0, []
        for bound in (*FLUSH_BOUNDS_S, float("inf")):
            running += counts.flushes[bound]
            buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", running))
        flush.add_metric((), buckets, counts.flush_s)
        errors = CounterMetricFamily(
            "tidewheel_stream_errors", "Steps that were tried again since the store or the log did not answer."
        )
        errors.add_metric((), counts.store_errors)
        return (events, late, rejected, flush, errors)


def serve_metrics(metrics: StreamMetrics, port: int, address: str = "127.0.0.1") -> None:
    """On ``port`` at /metrics, by a thread that ends with the process."""
    registry = CollectorRegistry()
    registry.register(metrics)
    start_http_server(port, address, registry)
