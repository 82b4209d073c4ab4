"""Every check: nothing on healthy data, the whole finding on each fault, nothing exactly at the limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidewheel.findings import Finding
from tidewheel.monitoring.checks import findings_of
from tidewheel.monitoring.given import (
    ColumnFacts,
    Comparison,
    FeatureFacts,
    LabelFacts,
    MonitorInput,
    PerformanceFacts,
    SkewFacts,
    SourceFacts,
)

AMOUNT = ColumnFacts("amount", 3000, 0.01, 0.01, 0.002, 0.002, 0.002)
CHANNEL = ColumnFacts("channel", 3000, 0.0, 0.0, 0.55, 0.5, 0.5)
SOURCE = SourceFacts("transactions", 3000, 2900.0, (AMOUNT, CHANNEL))
TRAINING = Comparison("training", 0.05, 0.02, 80_000)
FIRST = Comparison("first days", 0.03, 0.02, 20_000)
MEAN = FeatureFacts("card_mean", "transactions", 2900, 0.0, 0.0, False, 0.1, (TRAINING, FIRST))
AGE = FeatureFacts("age", "profiles", 2900, 0.02, 0.02, False, 0.1, (TRAINING,))
NIGHT = FeatureFacts("is_night", "request", 2900, 0.0, 0.0, False, 0.8, (TRAINING,))
SCORE = FeatureFacts("score", "", 2900, comparisons=(TRAINING, FIRST))
HEALTHY = MonitorInput(
    project="fraud",
    start_us=0,
    end_us=1,
    n_predictions=3000,
    n_degraded=3,
    sources=(SOURCE,),
    features=(MEAN, AGE, NIGHT),
    score=SCORE,
    labels=LabelFacts("labels", 2900, 2880),
    performance=PerformanceFacts("average_precision", 0.6, 0.5, 0.7, 20_000, 0.55),
    skew=(SkewFacts("card_mean", 2000, 2),),
    drift_limit=0.2,
    max_mismatch_ratio=0.001,
)


def moved(*values: float) -> tuple[Comparison, ...]:
    """Comparisons with training and the first days at these indices."""
    return tuple(replace(one, psi=value) for one, value in zip((TRAINING, FIRST), values, strict=False))


def column(**change: Any) -> dict[str, Any]:
    return {"sources": (replace(SOURCE, columns=(replace(AMOUNT, **change), CHANNEL)),)}


def feature(one: FeatureFacts, **change: Any) -> dict[str, Any]:
    return {"features": tuple(replace(f, **change) if f.name == one.name else f for f in HEALTHY.features)}


def test_healthy_data_has_no_finding() -> None:
    assert findings_of(HEALTHY) == ()


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(
            column(missing_ratio=0.6),
            Finding("FeedBroken", "transactions.amount: 60.0% missing, usually 1.0%", "critical",
                    "transactions.amount", 0.6, 0.060000000000000005),
            id="most of a column is missing",
        ),
        pytest.param(
            column(missing_ratio=0.0, top_ratio=1.0),
            Finding("FeedBroken", "transactions.amount: is constant, usually it varies", "critical",
                    "transactions.amount", 1.0, 0.002),
            id="a column is constant",
        ),
        pytest.param(
            column(top_ratio=0.6, usual_ratio_of_top=0.01),
            Finding("FeedBroken", "transactions.amount: 60.0% of the values are one value that was 1.0% of them before",
                    "critical", "transactions.amount", 0.6, 0.5),
            id="a column is stuck at a value that was rare",
        ),
        pytest.param(
            {"sources": (replace(SOURCE, n_events=1449),)},
            Finding("FeedBroken", "transactions: 1449 events, usually 2900", "critical",
                    "transactions", 1449.0, 1450.0),
            id="fewer than half the usual events",
        ),
        pytest.param(
            feature(AGE, missing_ratio=0.5),
            Finding("FeedBroken", "profiles: feature age is 50.0% missing, usually 2.0%", "critical", "age", 0.5, 0.07),
            id="a feature is missing whose source is not looked at itself",
        ),
        pytest.param(
            feature(AGE, constant=True),
            Finding("FeedBroken", "profiles: feature age is constant, usually it varies", "critical", "age", 1.0, 0.1),
            id="a feature is constant",
        ),
        pytest.param(
            feature(MEAN, comparisons=moved(0.5, 0.3)),
            Finding("FeatureDrift", "card_mean: PSI 0.30 against first days, limit 0.20 (2900 rows against 20000)",
                    "warning", "card_mean", 0.3, 0.2),
            id="a feature left training and the first days, the nearest is told",
        ),
        pytest.param(
            {"score": replace(SCORE, comparisons=moved(0.21, 0.5))},
            Finding("ScoreDrift", "score: PSI 0.21 against training, limit 0.20 (2900 rows against 80000)",
                    "warning", "score", 0.21, 0.2),
            id="the score left both",
        ),
        pytest.param(
            {"performance": PerformanceFacts("average_precision", 0.4, 0.3, 0.54, 20_000, 0.55)},
            Finding("PerformanceDrop",
                    "average_precision is 0.400 (0.300 to 0.540) on 20000 mature labels, limit 0.55",
                    "critical", "average_precision", 0.4, 0.55),
            id="the whole interval is under the limit",
        ),
        pytest.param(
            {"n_degraded": 300},
            Finding("DegradedServing", "10.0% of 3000 replies were degraded, limit 5%", "warning", "fraud", 0.1, 0.05),
            id="a tenth of the replies was degraded",
        ),
        pytest.param(
            {"labels": LabelFacts("labels", 2000, 1000)},
            Finding("LabelsMissing",
                    "labels: 1000 of 2000 labels arrived that should be mature (50.0%), limit 90%",
                    "warning", "labels", 0.5, 0.9),
            id="half the labels did not come",
        ),
        pytest.param(
            {"skew": (SkewFacts("card_mean", 2000, 3),)},
            Finding("TrainServeSkew",
                    "card_mean: 3 of 2000 served values differ from their offline recomputation (0.15%), limit 0.10%",
                    "warning", "card_mean", 0.0015, 0.001),
            id="served values differ from recomputed ones",
        ),
    ],
)  # fmt: skip
def test_each_fault_is_one_finding(change: dict[str, Any], want: Finding) -> None:
    assert findings_of(replace(HEALTHY, **change)) == (want,)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(column(missing_ratio=0.06), id="the missing share is exactly at the limit"),
        pytest.param(column(missing_ratio=1.0, n_rows=49), id="too few rows to call a column missing"),
        pytest.param(column(top_ratio=1.0, usual_top_ratio=0.9999, usual_ratio_of_top=0.9999), id="a rare flag is off"),
        pytest.param(column(top_ratio=1.0, usual_top_ratio=1.0, usual_ratio_of_top=1.0), id="always was constant"),
        pytest.param({"sources": (replace(SOURCE, n_events=1450),)}, id="exactly half the usual events"),
        pytest.param({"sources": (replace(SOURCE, n_events=3, usual_n_events=None),)}, id="no history to compare with"),
        pytest.param({"sources": ()}, id="no events at all were ever kept"),
        pytest.param(feature(MEAN, comparisons=moved(0.5, 0.2)), id="left training, exactly at the limit otherwise"),
        pytest.param(feature(MEAN, comparisons=moved(3.0, 0.1)), id="left training but not what it served at first"),
        pytest.param(feature(MEAN, comparisons=()), id="no fit reference yet"),
        pytest.param(feature(MEAN, comparisons=moved(3.0, 3.0), n_rows=199), id="199 rows say nothing"),
        pytest.param(
            feature(AGE, comparisons=(replace(TRAINING, psi=0.4, chance_limit=0.5),)), id="chance alone reaches as far"
        ),
        pytest.param({"score": None}, id="no score was logged"),
        pytest.param(
            {"performance": PerformanceFacts("average_precision", 0.5, 0.4, 0.55, 20_000, 0.55)},
            id="the interval reaches the limit",
        ),
        pytest.param({"performance": None}, id="no labels to measure with"),
        pytest.param({"n_degraded": 150}, id="degraded exactly at the limit"),
        pytest.param({"n_predictions": 49, "n_degraded": 49}, id="too few replies"),
        pytest.param({"labels": LabelFacts("labels", 1000, 900)}, id="nine labels of ten came"),
        pytest.param({"labels": LabelFacts("labels", 49, 0)}, id="too few labels were expected"),
        pytest.param({"skew": (SkewFacts("card_mean", 0, 0),)}, id="nothing was recomputed"),
    ],
)
def test_no_finding_when(change: dict[str, Any]) -> None:
    assert findings_of(replace(HEALTHY, **change)) == ()


def test_behind_a_broken_source_its_features_and_functions_are_not_called_drift() -> None:
    gone = tuple(replace(one, comparisons=moved(3.0, 3.0)) for one in HEALTHY.features)
    skew = (SkewFacts("card_mean", 2000, 2000),)
    given = replace(
        HEALTHY, features=gone, skew=skew, score=replace(SCORE, comparisons=moved(3.0, 3.0)), **column(missing_ratio=1)
    )
    assert [(one.reason, one.subject) for one in findings_of(given)] == [
        ("FeedBroken", "transactions.amount"),
        ("FeatureDrift", "age"),
    ]


def test_a_broken_feature_is_not_called_drift_but_others_of_its_source_are() -> None:
    gone = replace(AGE, missing_ratio=0.5, comparisons=moved(3.0))
    other = replace(AGE, name="limit", comparisons=moved(3.0))
    found = findings_of(replace(HEALTHY, features=(MEAN, gone, other)))
    assert [(one.reason, one.subject) for one in found] == [("FeedBroken", "age"), ("FeatureDrift", "limit")]
