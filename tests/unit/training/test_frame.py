from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidewheel.errors import InputError
from tidewheel.training.frame import TrainingFrame, check_frame, frame_of


def rows(**change: object) -> pa.Table:
    columns = {
        "at": pa.array([20, 10, 10], pa.timestamp("us", tz="UTC")),
        "id": pa.array([1, 3, 2]),
        "card": pa.array(["a", "b", None]),
        "amount": pa.array([1.5, None, 3.0]),
        "night": pa.array([True, False, None]),
        "label": pa.array([1, 0, 1], pa.int8()),
    }
    return pa.table({**columns, **change})


def frame(table: pa.Table) -> TrainingFrame:
    return frame_of(table, ("amount", "night"), event_time="at", event_id="id", columns=("card",))


def test_rows_are_ordered_by_time_and_id_and_null_is_missing() -> None:
    made = frame(rows())
    assert made.event_time_us.tolist() == [10, 10, 20]
    assert made.y.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(made.x, [[3.0, np.nan], [np.nan, 0.0], [1.5, 1.0]])
    assert made.columns["card"].tolist() == ["", "b", "a"]


def test_a_row_without_label_is_refused() -> None:
    with pytest.raises(InputError, match="training rows: 1 labels are missing; every row needs a label"):
        frame(rows(label=pa.array([1, None, 0])))


def test_a_label_that_is_no_yes_or_no_is_refused() -> None:
    with pytest.raises(InputError, match=r"a label must be 0 or 1 \(got 2\)"):
        frame(rows(label=pa.array([1, 2, 0])))


def many(n: int, n_positive: int) -> TrainingFrame:
    y = np.zeros(n, dtype=np.int8)
    y[:n_positive] = 1
    return TrainingFrame(("a",), np.zeros((n, 1)), y, np.arange(n), {})


@pytest.mark.parametrize(
    ("n", "n_positive", "says"),
    [
        pytest.param(199, 50, "199 mature labelled rows; at least 200 are needed", id="too few rows"),
        pytest.param(
            200, 9, "9 of 200 labels are positive; at least 10 of each kind are needed", id="too few positives"
        ),
        pytest.param(200, 200, "200 of 200 labels are positive", id="one class only"),
        pytest.param(0, 0, "0 mature labelled rows", id="nothing"),
    ],
)
def test_too_little_to_learn_from_is_told_with_the_window(n: int, n_positive: int, says: str) -> None:
    with pytest.raises(InputError, match=f"holdout 1970-01-01T00:00:00Z to 1970-01-02T00:00:00Z: {says}"):
        check_frame(many(n, n_positive), "holdout", 0, 86_400_000_000)


def test_just_enough_is_enough() -> None:
    check_frame(many(200, 10), "holdout", 0, 1)


def test_a_window_holds_its_start_and_not_its_end() -> None:
    assert frame(rows()).between(10, 20).event_time_us.tolist() == [10, 10]
