"""Counters and histograms of one server process, and their Prometheus text. Cheap enough for every request."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

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
        self._responses: Counter[int] = Counter()
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

    def response(self, status: int) -> None:
        self._responses[status] += 1

    def batch(self, rows: int, stages: Stages) -> None:
        self._rows.add(rows)
        self._batch_time.add(stages.logged_us - stages.began_us)
        read, score, log = self._stages
        read.add(stages.read_us - stages.began_us)
        score.add(stages.scored_us - stages.read_us)
        log.add(stages.logged_us - stages.scored_us)

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
            return {
                "requests": sum(self._responses.values()),
                "failed": sum(n for status, n in self._responses.items() if status >= 500),
                "refused": sum(n for status, n in self._responses.items() if 400 <= status < 500),
                "predictions": sum(self._predictions.values()),
                "degraded": sum(self._degraded.values()),
                "internal_errors": self.n_internal_errors,
            }

    def text(self, gauges: Mapping[str, float]) -> str:
        """Prometheus text format; ``gauges`` are figures that others keep, by name."""
        base = self._base
        with self._lock:
            lines = ["# TYPE tidewheel_request_latency_seconds histogram"]
            for version, histogram in sorted(self._latency.items()):
                lines += histogram.lines(
                    "tidewheel_request_latency_seconds", f'{base},version="{_escaped(version)}"', 1e-6
                )
            lines.append("# TYPE tidewheel_predictions_total counter")
            for (version, role, decision), n in sorted(self._predictions.items()):
                told = f'version="{_escaped(version)}",role="{role}",decision="{_escaped(decision)}"'
                lines.append(f"tidewheel_predictions_total{{{base},{told}}} {n}")
            lines.append("# TYPE tidewheel_degraded_total counter")
            for reason, n in sorted(self._degraded.items()):
                lines.append(f'tidewheel_degraded_total{{{base},reason="{_escaped(reason)}"}} {n}')
            lines.append("# TYPE tidewheel_responses_total counter")
            for status, n in sorted(self._responses.items()):
                lines.append(f'tidewheel_responses_total{{{base},code="{status}"}} {n}')
            lines.append("# TYPE tidewheel_requests_shed_total counter")
            for reason, n in sorted(self._shed.items()):
                lines.append(f'tidewheel_requests_shed_total{{{base},reason="{reason}"}} {n}')
            lines.append("# TYPE tidewheel_breaker_changes_total counter")
            for state, n in sorted(self._breaker.items()):
                lines.append(f'tidewheel_breaker_changes_total{{{base},to="{state}"}} {n}')
            lines.append("# TYPE tidewheel_batch_rows histogram")
            lines += self._rows.lines("tidewheel_batch_rows", base, 1.0)
            lines.append("# TYPE tidewheel_batch_seconds histogram")
            lines += self._batch_time.lines("tidewheel_batch_seconds", base, 1e-6)
            lines.append("# TYPE tidewheel_stage_seconds histogram")
            for stage, histogram in zip(STAGES, self._stages, strict=True):
                lines += histogram.lines("tidewheel_stage_seconds", f'{base},stage="{stage}"', 1e-6)
        for name, value in sorted(gauges.items()):
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE tidewheel_{name} {kind}", f"tidewheel_{name}{{{base}}} {value:g}"]
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
