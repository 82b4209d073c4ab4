"""Counters and histograms of one server process, and their Prometheus text. Cheap enough for every request."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidewheel.serving.metric_catalog import METRICS
from tidewheel.serving.prediction_record import RecordFrame
from tidewheel.serving.stages import Stages

LOG = logging.getLogger("tidewheel.serving")

# Sub-millisecond steps first: that is where a request normally ends.
LATENCY_BUCKETS_US = (
    100, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 50_000,
    75_000, 100_000, 250_000, 500_000, 1_000_000,
)  # fmt: skip
STAGE_BUCKETS_US = (10, 20, 50, *LATENCY_BUCKETS_US)
STAGES = ("read", "score", "log")
TOLD_LABELS = {"feature_age_seconds": ("version", "view"), "breaker_state": ("state",)}
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Histogram:
    """Fixed upper bounds, counts and a sum."""

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str, scale: float) -> Iterable[str]:
        running = 0
        comma = "," if labels else ""
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            running += count
            edge = "+Inf" if bound is None else f"{bound * scale:g}"
            yield f'{name}_bucket{{{labels}{comma}le="{edge}"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total * scale:g}"
        yield f"{name}_count{{{labels}}} {running}"


class ServingMetrics:
    """What a server did since it started. Written by two threads; a scrape may miss the newest request."""

    def __init__(self, project: str, replica: int) -> None:
        self._base = f'project="{project}",replica="{replica}"'
        self._lock = threading.Lock()
        self._latency: dict[str, Histogram] = {}
        self._predictions: Counter[tuple[str, str, str]] = Counter()
        self._degraded: Counter[str] = Counter()
        self._responses: Counter[tuple[str, int]] = Counter()
        self._missing: Counter[tuple[str, str]] = Counter()
        self._shed: Counter[str] = Counter()
        self._breaker: Counter[str] = Counter()
        self._rows = Histogram(ROW_BUCKETS)
        self._batch_time = Histogram(LATENCY_BUCKETS_US)
        self._stages = tuple(Histogram(STAGE_BUCKETS_US) for _ in STAGES)
        self.n_internal_errors = 0

    def predicted(self, frames: Sequence[RecordFrame]) -> None:
        """Answers that callers, or the log of a shadow, got."""
        with self._lock:
            for frame in frames:
                version = frame.version
                histogram = self._latency.get(version)
                if histogram is None:
                    histogram = self._latency.setdefault(version, Histogram(LATENCY_BUCKETS_US))
                for latency_us in frame.latencies_us:
                    histogram.add(latency_us)
                for decision in frame.decisions:
                    self._predictions[version, frame.role, decision] += 1
                for reasons in frame.reasons:
                    self._degraded.update(reasons)

    def response(self, status: int, protocol: str = "http") -> None:
        self._responses[protocol, status] += 1

    def batch(self, rows: int, stages: Stages) -> None:
        self._rows.add(rows)
        self._batch_time.add(stages.logged_us - stages.began_us)
        read, score, log = self._stages
        read.add(stages.read_us - stages.began_us)
        score.add(stages.scored_us - stages.read_us)
        log.add(stages.logged_us - stages.scored_us)

    def missing(self, version: str, counts: Iterable[tuple[str, int]]) -> None:
        """How many values of each feature were missing before defaults."""
        for feature, n in counts:
            self._missing[version, feature] += n

    def shed(self, reason: str) -> None:
        self._shed[reason] += 1

    def breaker(self, state: str) -> None:
        self._breaker[state] += 1

    def internal_error(self, error: BaseException) -> None:
        self.n_internal_errors += 1
        LOG.error("event=internal_error error=%s", type(error).__name__, exc_info=error)

    def counters(self) -> dict[str, int]:
        """The figures of a status file."""
        with self._lock:
            by_status = [(status, n) for (_, status), n in self._responses.items()]
            return {
                "requests": sum(n for _, n in by_status),
                "failed": sum(n for status, n in by_status if status >= 500),
                "refused": sum(n for status, n in by_status if 400 <= status < 500),
                "predictions": sum(self._predictions.values()),
                "degraded": sum(self._degraded.values()),
                "internal_errors": self.n_internal_errors,
            }

    def text(self, told: Mapping[str, Mapping[tuple[str, ...], float] | float]) -> str:
        """Prometheus text format. ``told`` are figures that others keep, by name: one, or several by their labels'
        values."""
        base = self._base
        families: dict[str, list[str]] = {}

        def add(name: str, figures: Mapping[tuple[Any, ...], float], *labels: str) -> None:
            families[name] = [
                f"tidewheel_{name}{{{base}{_labels(labels, values)}}} {value:.12g}"
                for values, value in sorted(figures.items(), key=lambda item: tuple(map(str, item[0])))
            ]

        with self._lock:
            families["request_latency_seconds"] = [
                line
                for version, histogram in sorted(self._latency.items())
                for line in histogram.lines(
                    "tidewheel_request_latency_seconds", f"{base}{_labels(('version',), (version,))}", 1e-6
                )
            ]
            add("predictions_total", self._predictions, "version", "role", "decision")
            add("degraded_total", {(reason,): n for reason, n in self._degraded.items()}, "reason")
            add("responses_total", self._responses, "protocol", "code")
            add("requests_shed_total", {(reason,): n for reason, n in self._shed.items()}, "reason")
            add("breaker_changes_total", {(state,): n for state, n in self._breaker.items()}, "to")
            add("missing_values_total", self._missing, "version", "feature")
            families["batch_rows"] = list(self._rows.lines("tidewheel_batch_rows", base, 1.0))
            families["batch_seconds"] = list(self._batch_time.lines("tidewheel_batch_seconds", base, 1e-6))
            families["stage_seconds"] = [
                line
                for stage, histogram in zip(STAGES, self._stages, strict=True)
                for line in histogram.lines("tidewheel_stage_seconds", f'{base},stage="{stage}"', 1e-6)
            ]
        add("internal_errors_total", {(): self.n_internal_errors})
        for name, figures in told.items():
            if isinstance(figures, Mapping):
                add(name, figures, *TOLD_LABELS[name])
            else:
                add(name, {(): figures})
        lines: list[str] = []
        for name, (kind, says) in METRICS.items():
            if name in families:
                lines += [f"# HELP tidewheel_{name} {says}", f"# TYPE tidewheel_{name} {kind}", *families[name]]
        return "\n".join(lines) + "\n"


def _labels(names: Sequence[str], values: Sequence[object]) -> str:
    return "".join(f',{name}="{_escaped(str(value))}"' for name, value in zip(names, values, strict=True))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
