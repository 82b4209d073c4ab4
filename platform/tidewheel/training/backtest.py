"""Trains and tests on moving weeks of the past, each with the label gap that production would have had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tidewheel.evaluation.intervals import METRICS, Estimate
from tidewheel.spec.project import ModelProject
from tidewheel.training.evaluate import evaluate, unit_key
from tidewheel.training.frame import TrainingFrame, check_frame
from tidewheel.training.split import Split, known_positive
from tidewheel.training.trainer import check_params, fit, score, settings_for


@dataclass(frozen=True)
class FoldResult:
    """One fold; ``n_train`` and ``n_test`` are rows, ``n_frauds`` positives among the test rows that were judged."""

    split: Split
    n_train: int
    n_test: int
    n_excluded: int
    n_frauds: int
    metrics: Mapping[str, Estimate]


def run_fold(project: ModelProject, frame: TrainingFrame, split: Split, delay_us: int) -> FoldResult:
    """Fit from nothing on the training window, judge the test window. Raises InputError where either is too small."""
    train = frame.between(split.train_start_us, split.train_end_us)
    check_frame(train, "training window", split.train_start_us, split.train_end_us)
    in_test = (frame.event_time_us >= split.test_start_us) & (frame.event_time_us < split.test_end_us)
    n_all = int(in_test.sum())
    excluded = project.training.exclude_known_positives
    if excluded is not None:
        keys = frame.columns[project.entities[excluded].key]
        in_test &= ~known_positive(keys, frame.y, frame.event_time_us, split, delay_us)
    test = frame.take(in_test)
    check_frame(test, "test window", split.test_start_us, split.test_end_us)
    check_params(project.training.params)
    booster = fit(train, settings_for(project.training.params, len(train)))
    metrics = evaluate(score(booster, test.x), test, unit_key(project))
    return FoldResult(split, len(train), len(test), n_all - len(test), test.n_positive, metrics)


def mean_and_std(results: Sequence[FoldResult]) -> tuple[dict[str, float], dict[str, float]]:
    """Over folds, per metric that every fold has; the standard deviation is the sample's (0 for one fold)."""
    names = [name for name in METRICS if all(name in result.metrics for result in results)]
    values = {name: np.array([result.metrics[name].value for result in results]) for name in names}
    spread = {name: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for name, v in values.items()}
    return {name: float(v.mean()) for name, v in values.items()}, spread
