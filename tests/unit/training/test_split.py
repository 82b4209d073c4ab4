from __future__ import annotations

import numpy as np
import pytest

from tidewheel.clock import DAY_US, parse_utc
from tidewheel.errors import InputError
from tidewheel.spec.load import parse_project
from tidewheel.training.split import Split, check_covered, folds, known_positive, split_for

PROJECT = parse_project(
    """
name: a
owner: o
entities: {card: {key: card_id, type: int64}}
sources: {tx: {topic: t, path: tx, event_time: at, event_id: id, columns: {fraud: bool}}}
request: tx
label: {source: tx, column: fraud, delay: 7d}
training: {window: 28d, holdout: 7d}
serving: {decision: {approve: 0.0}}
""",
    "project.yaml",
)


def day(n: float) -> int:
    return int(n * DAY_US)


def test_the_holdout_is_the_newest_mature_week_and_training_ends_a_label_delay_before_it() -> None:
    assert split_for(PROJECT, day(100)) == Split(day(51), day(79), day(86), day(93))


def test_folds_move_forward_and_keep_the_gap() -> None:
    made = folds(parse_utc("2018-06-04"), day(7), day(7), day(7), 2, day(3))
    assert [str(split) for split in made] == [
        "train 2018-06-04T00:00:00Z to 2018-06-11T00:00:00Z, test 2018-06-18T00:00:00Z to 2018-06-25T00:00:00Z",
        "train 2018-06-07T00:00:00Z to 2018-06-14T00:00:00Z, test 2018-06-21T00:00:00Z to 2018-06-28T00:00:00Z",
    ]


SPLIT = Split(day(0), day(7), day(14), day(21))


def test_whole_windows_are_covered_and_the_gap_need_not_be() -> None:
    days = np.array([*range(7), *range(14, 21)])
    check_covered((SPLIT,), days * DAY_US)


@pytest.mark.parametrize(
    ("days", "says"),
    [
        pytest.param(
            [*range(7), *range(14, 20)], "no labelled row in test on 1 day(s), the first 1970-01-21", id="end"
        ),
        pytest.param([*range(1, 21)], "no labelled row in training on 1 day(s), the first 1970-01-01", id="start"),
        pytest.param([*range(7)], "no labelled row in test on 7 day(s), the first 1970-01-15", id="no test at all"),
    ],
)
def test_a_fold_with_a_day_missing_is_incomplete(days: list[int], says: str) -> None:
    with pytest.raises(InputError) as raised:
        check_covered((SPLIT,), np.array(days) * DAY_US)
    assert str(raised.value).startswith(f"fold 1 of 1 ({SPLIT}): incomplete, {says}")


@pytest.mark.parametrize(
    ("fraud_at", "test_at", "known"),
    [
        pytest.param(3, 14, True, id="a fraud of the training week"),
        pytest.param(6.99, 14, True, id="the delay is over on the first morning"),
        pytest.param(7.0, 14.5, False, id="a fraud exactly the delay before the day is not known yet"),
        pytest.param(7.0, 15.0, True, id="it is known on the next day"),
        pytest.param(-1, 14, False, id="a fraud before the training week is forgotten"),
        pytest.param(14, 20, False, id="a fraud of the test itself, not mature"),
        pytest.param(3, 10, False, id="a row of the gap is not a test row"),
    ],
)
def test_a_card_leaves_the_test_when_it_is_known(fraud_at: float, test_at: float, known: bool) -> None:
    keys, y = np.array(["c", "c", "other"]), np.array([1, 0, 0], dtype=np.int8)
    times = np.array([day(fraud_at), day(test_at), day(15)])
    found = known_positive(keys, y, times, SPLIT, day(7))
    assert found.tolist()[1:] == [known, False]
