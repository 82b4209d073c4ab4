from __future__ import annotations

import numpy as np
import pytest

from tidewheel.evaluation.intervals import METRICS, bootstrap, measure, paired_difference

RNG = np.random.default_rng(3)
N = 4000
LABELS = (RNG.random(N) < 0.05).astype(np.int8)
SCORES = RNG.random(N) + 0.5 * LABELS
CARDS = RNG.integers(0, 500, N)
DAYS = RNG.integers(0, 7, N)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_holds_the_value_and_repeats(metric: str) -> None:
    first = measure(metric, SCORES, LABELS, CARDS, DAYS)
    assert first is not None
    assert first == measure(metric, SCORES, LABELS, CARDS, DAYS)
    assert first.low < first.value < first.high
    assert first.n == N


@pytest.mark.parametrize("metric", METRICS)
def test_one_class_has_no_metric(metric: str) -> None:
    assert measure(metric, SCORES, np.zeros(N, dtype=np.int8), CARDS, DAYS) is None


def test_rows_that_always_come_together_make_the_interval_wider() -> None:
    copies = 20
    labels, scores = np.repeat(LABELS[:200], copies), np.repeat(SCORES[:200], copies)
    apart = measure("auc_roc", scores, labels, np.arange(len(labels)), np.zeros(len(labels), dtype=np.int64))
    together = measure(
        "auc_roc", scores, labels, np.repeat(np.arange(200), copies), np.zeros(len(labels), dtype=np.int64)
    )
    assert apart is not None
    assert together is not None
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_the_interval_of_a_mean_is_about_two_standard_errors_each_way() -> None:
    values = np.random.default_rng(1).normal(0.0, 1.0, 400)
    low, high = bootstrap(lambda w: float(np.average(values, weights=w)), np.arange(400), replicates=1000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_a_paired_difference_is_narrower_than_the_metric_itself() -> None:
    other = SCORES + RNG.normal(0.0, 0.02, N)
    whole = measure("average_precision", SCORES, LABELS, CARDS, DAYS)
    difference = paired_difference("average_precision", SCORES, other, LABELS, CARDS)
    assert whole is not None
    assert difference is not None
    assert difference.high - difference.low < 0.5 * (whole.high - whole.low)


def test_a_metric_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match="unknown metric 'accuracy'; known are average_precision, auc_roc"):
        measure("accuracy", SCORES, LABELS, CARDS, DAYS)
