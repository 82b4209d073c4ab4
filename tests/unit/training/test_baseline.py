from __future__ import annotations

import numpy as np

from tidewheel.evaluation.metrics import auc_roc
from tidewheel.training.baseline import fit_baseline
from tidewheel.training.frame import TrainingFrame

N = 4000


def frame(seed: int = 5) -> TrainingFrame:
    """Columns: noise, two signals (the second falls with the label), a constant, and one that is always missing."""
    rng = np.random.default_rng(seed)
    y = (rng.random(N) < 0.1).astype(np.int8)
    x = np.column_stack([rng.random(N), rng.random(N) + y, rng.random(N) - y, np.ones(N), np.full(N, np.nan)])
    x[::7, 1] = np.nan
    return TrainingFrame(("noise", "up", "down", "constant", "absent"), x, y, np.arange(N), {})


def test_the_best_features_are_chosen_whichever_way_they_point() -> None:
    assert {"up", "down"} <= set(fit_baseline(frame()).names)


def test_it_ranks_rows_it_has_not_seen() -> None:
    other = frame(6)
    assert auc_roc(fit_baseline(frame()).score(other), other.y) > 0.95


def test_it_is_the_same_every_time() -> None:
    first, second = fit_baseline(frame()), fit_baseline(frame())
    assert first.names == second.names
    np.testing.assert_array_equal(first.weights, second.weights)


def test_one_absurd_value_does_not_decide() -> None:
    train, other = frame(), frame(6)
    train.x[np.flatnonzero(train.y == 0)[:3], 1:3] = 1e12
    assert auc_roc(fit_baseline(train).score(other), other.y) > 0.95
