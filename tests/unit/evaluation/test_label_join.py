from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.evaluation.label_join import LabelJoin, join_labels


def join(predictions: dict[Any, int], labels: list[tuple[Any, Any]], as_of_us: int = 100) -> tuple[Any, ...]:
    found: LabelJoin = join_labels(
        pa.array(list(predictions)),
        np.array(list(predictions.values()), dtype=np.int64),
        pa.array([label[0] for label in labels], pa.int64() if not labels else None),
        pa.array([label[1] for label in labels], pa.bool_()),
        delay_us=10,
        as_of_us=as_of_us,
    )
    counts = (found.n_mature, found.n_unmatched, found.n_immature, found.n_repeated)
    return found.row.tolist(), found.label.tolist(), counts


@pytest.mark.parametrize(
    ("predictions", "labels", "wanted"),
    [
        pytest.param({"1": 0, "2": 0}, [(2, True), (1, False)], ([0, 1], [0, 1], (2, 0, 0, 0)), id="ids as text"),
        pytest.param({"1": 90}, [(1, True)], ([0], [1], (1, 0, 0, 0)), id="mature at exactly the delay"),
        pytest.param({"1": 91}, [(1, True)], ([], [], (0, 0, 1, 0)), id="one too young is left alone"),
        pytest.param({"1": 0, "2": 0}, [(1, True)], ([0], [1], (2, 1, 0, 0)), id="one without a label is counted"),
        pytest.param({"1": 0}, [(1, True), (1, False)], ([0], [1], (1, 0, 0, 1)), id="the first arrival wins"),
        pytest.param({"1": 0}, [(1, None), (1, True)], ([0], [1], (1, 0, 0, 0)), id="null is no label"),
        pytest.param({"1": 0}, [], ([], [], (1, 1, 0, 0)), id="no labels at all"),
        pytest.param({"1": 0}, [(9, True)], ([], [], (1, 1, 0, 0)), id="a label of nobody"),
    ],
)
def test_a_prediction_gets_the_label_of_its_event(
    predictions: dict[str, int], labels: list[tuple[Any, Any]], wanted: tuple[Any, ...]
) -> None:
    assert join(predictions, labels) == wanted


def test_two_predictions_of_one_event_both_get_its_label() -> None:
    found = join_labels(
        pa.array(["1", "1"]), np.array([0, 0]), pa.array([1]), pa.array([True]), delay_us=10, as_of_us=100
    )
    assert (found.row.tolist(), found.label.tolist()) == ([0, 1], [1, 1])


def test_no_predictions_are_no_error() -> None:
    found = join_labels(
        pa.array([], pa.string()), np.array([], dtype=np.int64), pa.array([1]), pa.array([1]), delay_us=1, as_of_us=9
    )
    assert (found.row.tolist(), found.n_mature) == ([], 0)
