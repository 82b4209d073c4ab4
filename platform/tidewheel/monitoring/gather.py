"""Reads everything one monitor run looks at into a MonitorInput. No judgement, no writing but the file index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tidewheel.bundle.reference import Reference
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.lake import source_paths
from tidewheel.monitoring.compare import feature_facts, filled_at_us, score_facts
from tidewheel.monitoring.given import FeatureFacts, MonitorInput, PerformanceFacts, SkewFacts
from tidewheel.monitoring.outcomes import read_label_facts, read_performance
from tidewheel.monitoring.parquet_window import ParquetFolder
from tidewheel.monitoring.paths import MonitorPaths
from tidewheel.monitoring.served import ServedProfile, past_profiles, read_served
from tidewheel.monitoring.skew import Recompute, read_skew
from tidewheel.monitoring.source_facts import read_source
from tidewheel.spec.monitoring import Skew
from tidewheel.spec.project import ModelProject

NO_DIGEST: Literal[""] = ""


@dataclass(frozen=True)
class Champion:
    """The version that serves, with what its bundle says."""

    version: str
    digest: str
    features: FeatureSet
    reference: Reference


@dataclass(frozen=True)
class Gathered:
    """The checks' input, and what the run keeps besides."""

    given: MonitorInput
    served: ServedProfile
    n_labels_mature: int


def gather(
    project: ModelProject,
    paths: MonitorPaths,
    champion: Champion | None,
    as_of_us: int,
    recompute: Recompute | None = None,
) -> Gathered:
    """Facts of the window (as_of - every, as_of]. Without a champion only the feed and its labels are looked at."""
    every_us = project.monitoring.every_us
    start_us = as_of_us - every_us
    name = project.name
    log = ParquetFolder(paths.predictions(name), "event_time_us", paths.index(name, "predictions"))
    lake = {source: _lake(project, paths, source) for source in project.sources}
    requests, labels = lake[project.request], lake[project.label.source]
    notes: list[str] = []
    digest = champion.digest if champion else NO_DIGEST
    names = champion.features.names if champion else ()
    served = read_served(log, digest, names, champion.reference if champion else None, start_us, as_of_us)
    features: tuple[FeatureFacts, ...] = ()
    score: FeatureFacts | None = None
    skew: tuple[SkewFacts, ...] = ()
    performance: PerformanceFacts | None = None
    n_mature = 0
    if champion is None:
        notes.append("no version serves: drift, performance and skew are not looked at")
    else:
        past = list(past_profiles(paths.reports / name, digest, start_us))
        filled = filled_at_us(champion.features, {source: folder.first_us for source, folder in lake.items()})
        mode = project.monitoring.reference
        sources = dict(zip(champion.features.names, champion.features.sources, strict=True))
        features = feature_facts(names, sources, served, champion.reference, past, filled, mode)
        score = score_facts(served, champion.reference, past, filled, mode, len(names))
        alone = [one.name for one in features if not one.comparisons]
        if alone:
            notes.append(f"no fit reference yet for {', '.join(alone)}")
        n_mature, performance = read_performance(project, log, labels, digest, as_of_us)
        if project.monitoring.skew and recompute:
            skew = read_skew(log, champion.features, champion.digest, start_us, as_of_us, lake, recompute)
    hidden = project.label.column if project.label.source == project.request else None
    columns = [column for column in project.request_source.columns if column != hidden]
    source = read_source(project.request, requests, columns, as_of_us, every_us, project.request_source.event_id)
    limits = project.monitoring.skew or Skew()
    given = MonitorInput(
        project=name,
        start_us=start_us,
        end_us=as_of_us,
        n_predictions=served.n_predictions,
        n_degraded=served.n_degraded,
        sources=(source,) if source else (),
        features=features,
        score=score,
        labels=read_label_facts(project, requests, labels, as_of_us),
        performance=performance,
        skew=skew,
        drift_limit=project.monitoring.drift.limit,
        max_mismatch_ratio=limits.max_mismatch_ratio,
        max_lagged_ratio=limits.max_lagged_ratio,
        champion=champion.version if champion else None,
        notes=tuple(notes),
    )
    return Gathered(given, served, n_mature)


def _lake(project: ModelProject, paths: MonitorPaths, source: str) -> ParquetFolder:
    folder = source_paths(paths.lake, project)[source]
    return ParquetFolder(folder, project.sources[source].event_time, paths.index(project.name, f"source-{source}"))


def label_lake(project: ModelProject, paths: MonitorPaths) -> ParquetFolder:
    """The labels' folder."""
    return _lake(project, paths, project.label.source)


def request_lake(project: ModelProject, paths: MonitorPaths) -> ParquetFolder:
    """The folder of the events that callers ask about."""
    return _lake(project, paths, project.request)


def gather_skew(
    project: ModelProject, paths: MonitorPaths, champion: Champion | None, as_of_us: int, recompute: Recompute
) -> MonitorInput:
    """Facts of served against recomputed values alone. Without a champion there is nothing to compare."""
    start_us = as_of_us - project.monitoring.every_us
    log = ParquetFolder(paths.predictions(project.name), "event_time_us", paths.index(project.name, "predictions"))
    skew: tuple[SkewFacts, ...] = ()
    if champion is not None:
        lake = {source: _lake(project, paths, source) for source in project.sources}
        skew = read_skew(log, champion.features, champion.digest, start_us, as_of_us, lake, recompute)
    limits = project.monitoring.skew or Skew()
    return MonitorInput(
        project=project.name,
        start_us=start_us,
        end_us=as_of_us,
        n_predictions=max((one.n_rows for one in skew), default=0),
        n_degraded=0,
        sources=(),
        features=(),
        score=None,
        labels=None,
        performance=None,
        skew=skew,
        drift_limit=project.monitoring.drift.limit,
        max_mismatch_ratio=limits.max_mismatch_ratio,
        max_lagged_ratio=limits.max_lagged_ratio,
        champion=champion.version if champion else None,
        notes=() if skew else ("nothing was served in this window, so nothing was compared",),
    )
