"""What the checks are given: one frozen value with every fact of a monitor run. Gathered by ``gather``, judged by
``checks``. Ratios are 0 to 1, times microseconds UTC; a window is (start, end] in event time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a source in the window, and in the windows before (``usual``)."""

    name: str
    n_rows: int
    missing_ratio: float
    usual_missing_ratio: float
    top_ratio: float  # share of the most frequent value among known ones
    usual_top_ratio: float  # the same over the windows before
    usual_ratio_of_top: float  # the share that this window's most frequent value had before


@dataclass(frozen=True)
class SourceFacts:
    """One source in the window. ``usual_n_events`` None: too little history to say."""

    name: str
    n_events: int
    usual_n_events: float | None
    columns: tuple[ColumnFacts, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A distribution against one reference: the index and what chance alone reaches."""

    reference: str  # training | first days | previous week
    psi: float
    chance_limit: float
    n_reference: int


@dataclass(frozen=True)
class FeatureFacts:
    """One model input (or the score) as served to callers. It has drifted when every comparison says so."""

    name: str
    source: str
    n_rows: int
    missing_ratio: float = 0.0
    usual_missing_ratio: float | None = None
    constant: bool = False
    usual_top_ratio: float = 0.0
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class LabelFacts:
    """Requests whose label should have arrived, and how many did."""

    source: str
    n_expected: int
    n_arrived: int


@dataclass(frozen=True)
class PerformanceFacts:
    """A metric on mature labels of the champion's own predictions, with its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    minimum: float
    slices: tuple[tuple[str, float, int], ...] = ()  # (column=value, metric, rows)


@dataclass(frozen=True)
class SkewFacts:
    """Served values of one feature against their offline recomputation.

    ``n_different`` excludes ``n_lagged``: those equal what the events known to the served state give, and only the
    later ones change it. ``n_missing`` and ``n_extra`` are the different ones that only one side has. ``delta_*``
    are quantiles of the absolute difference among the different ones.
    """

    feature: str
    n_rows: int
    n_different: int
    n_lagged: int = 0
    n_missing: int = 0
    n_extra: int = 0
    delta_p50: float = 0.0
    delta_p95: float = 0.0
    delta_max: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class MonitorInput:
    """Everything one run looks at."""

    project: str
    start_us: int
    end_us: int
    n_predictions: int
    n_degraded: int
    sources: tuple[SourceFacts, ...]
    features: tuple[FeatureFacts, ...]
    score: FeatureFacts | None
    labels: LabelFacts | None
    performance: PerformanceFacts | None
    skew: tuple[SkewFacts, ...]
    drift_limit: float
    max_mismatch_ratio: float
    max_lagged_ratio: float = 1.0
    champion: str | None = None
    notes: tuple[str, ...] = ()
