"""Where training data ends and judging begins, in event time; never shuffled.

Between both lies a gap as long as the label delay: on the day the holdout begins, in production, labels are known only
up to ``delay`` before it, so a model that will judge that day could not have learned from younger rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.clock import DAY_US, utc_text
from tidewheel.errors import InputError
from tidewheel.spec.project import ModelProject


@dataclass(frozen=True)
class Split:
    """Two windows [start, end) in microseconds of event time."""

    train_start_us: int
    train_end_us: int
    test_start_us: int
    test_end_us: int

    def __str__(self) -> str:
        train = f"{utc_text(self.train_start_us)} to {utc_text(self.train_end_us)}"
        return f"train {train}, test {utc_text(self.test_start_us)} to {utc_text(self.test_end_us)}"


def split_for(project: ModelProject, as_of_us: int) -> Split:
    """The newest ``holdout`` of mature labels judges; ``window`` before it and before the gap trains."""
    delay_us, training = project.label.delay_us, project.training
    test_end_us = as_of_us - delay_us
    test_start_us = test_end_us - training.holdout_us
    train_end_us = test_start_us - delay_us
    return Split(train_end_us - training.window_us, train_end_us, test_start_us, test_end_us)


def folds(start_us: int, train_us: int, delay_us: int, test_us: int, n_folds: int, every_us: int) -> tuple[Split, ...]:
    """Fold i trains from ``start + i * every``; after training and delay comes the test."""
    made = []
    for index in range(n_folds):
        begin_us = start_us + index * every_us
        train_end_us = begin_us + train_us
        test_start_us = train_end_us + delay_us
        made.append(Split(begin_us, train_end_us, test_start_us, test_start_us + test_us))
    return tuple(made)


def check_covered(splits: tuple[Split, ...], event_time_us: NDArray[np.int64]) -> None:
    """Raises InputError that names the first fold with a day without a row."""
    days = np.unique(event_time_us // DAY_US)
    for number, split in enumerate(splits, 1):
        for what, start_us, end_us in (
            ("training", split.train_start_us, split.train_end_us),
            ("test", split.test_start_us, split.test_end_us),
        ):
            wanted = np.arange(start_us // DAY_US, -(-end_us // DAY_US))
            lacking = np.setdiff1d(wanted, days)
            if len(lacking):
                held = f"{utc_text(int(days[0]) * DAY_US)[:10]} to {utc_text(int(days[-1]) * DAY_US)[:10]}"
                raise InputError(
                    f"fold {number} of {len(splits)} ({split}): incomplete, no labelled row in {what} on "
                    f"{len(lacking)} day(s), the first {utc_text(int(lacking[0]) * DAY_US)[:10]}"
                    f" (data covers {held}); use fewer folds or an earlier start"
                    if len(days)
                    else f"fold {number} ({split}): the data has no labelled row"
                )


def known_positive(
    keys: NDArray[np.generic], y: NDArray[np.int8], event_time_us: NDArray[np.int64], split: Split, delay_us: int
) -> NDArray[np.bool_]:
    """Bool [n]: test rows of a key that is known to be compromised on the morning of the row's day.

    Known on a day is every positive label since the training window began that is ``delay`` old when the day begins.
    Source: Le Borgne et al., Fraud Detection Handbook, function ``get_train_test_set``.
    """
    codes = np.unique(keys, return_inverse=True)[1]
    never = np.iinfo(np.int64).max
    first_known = np.full(int(codes.max()) + 1 if len(codes) else 0, never)
    positive = (y > 0) & (event_time_us >= split.train_start_us)
    np.minimum.at(first_known, codes[positive], event_time_us[positive])
    in_test = (event_time_us >= split.test_start_us) & (event_time_us < split.test_end_us)
    # days are counted from the start of the test, so that a test need not begin at midnight
    day_start_us = split.test_start_us + (event_time_us - split.test_start_us) // DAY_US * DAY_US
    known: NDArray[np.bool_] = in_test & (first_known[codes] < day_start_us - delay_us)
    return known
