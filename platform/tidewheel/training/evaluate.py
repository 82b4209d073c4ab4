"""Judges scores on the holdout: every metric with its interval, and the gate's metric per declared slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.evaluation.intervals import METRICS, Estimate, measure, paired_difference
from tidewheel.spec.project import ModelProject
from tidewheel.training.frame import TrainingFrame

MIN_SLICE_POSITIVES = 30  # a metric on fewer positives is noise


@dataclass(frozen=True)
class SliceResult:
    """The candidate against the champion where ``column`` is ``value``; ``difference`` is candidate minus champion."""

    column: str
    value: str
    n_positive: int
    difference: Estimate


def unit_key(project: ModelProject) -> str:
    """Key column of the entity whose rows belong together: the rollout's unit, the excluded one, or the first."""
    name = project.training.exclude_known_positives or next(iter(project.entities))
    if project.rollout is not None and project.training.exclude_known_positives is None:
        name = project.rollout.unit
    return project.entities[name].key


def evaluate(scores: NDArray[np.float64], holdout: TrainingFrame, unit: str) -> dict[str, Estimate]:
    """Metric to estimate, those left out that are not defined on these labels."""
    made = {name: measure(name, scores, holdout.y, holdout.columns[unit], holdout.days) for name in METRICS}
    return {name: estimate for name, estimate in made.items() if estimate is not None}


def compare_slices(
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    holdout: TrainingFrame,
    unit: str,
    slices: tuple[str, ...],
    metric: str,
) -> tuple[SliceResult, ...]:
    """Every value of every slice with enough positives; card precision is compared by average precision."""
    ranking_metric = metric if metric in ("average_precision", "auc_roc") else "average_precision"
    found: list[SliceResult] = []
    for column in slices:
        values = holdout.columns[column]
        for value in np.unique(values):
            rows = values == value
            n_positive = int(holdout.y[rows].sum())
            if n_positive < MIN_SLICE_POSITIVES:
                continue
            difference = paired_difference(
                ranking_metric, candidate[rows], champion[rows], holdout.y[rows], holdout.columns[unit][rows]
            )
            if difference is not None:
                found.append(SliceResult(column, str(value), n_positive, difference))
    return tuple(found)


def rounded(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    """For JSON files: equal data gives equal text on every machine, whatever the last bits of a sum are."""
    return {
        name: {"value": round(e.value, 6), "low": round(e.low, 6), "high": round(e.high, 6), "n": e.n}
        for name, e in metrics.items()
    }
