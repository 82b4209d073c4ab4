"""How inputs and scores looked at training, in counts, for the monitor to compare with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidewheel.bundle.reference import FeatureReference, Reference
from tidewheel.clock import DAY_US
from tidewheel.evaluation.profiles import bin_counts, decile_edges
from tidewheel.training.frame import TrainingFrame
from tidewheel.training.split import Split


def reference_of(
    train: TrainingFrame, holdout: TrainingFrame, holdout_scores: NDArray[np.float64], split: Split
) -> Reference:
    """Features over the training rows; scores and label share over the holdout."""
    features = []
    for index, name in enumerate(train.names):
        values = train.x[:, index]
        edges = decile_edges(values)
        counts = bin_counts(edges, values)
        features.append(
            FeatureReference(name, tuple(edges.tolist()), tuple(counts.tolist()), int(np.isnan(values).sum()))
        )
    score_edges = decile_edges(holdout_scores)
    start_us = max(split.train_start_us, int(train.event_time_us[0]))
    return Reference(
        start_us=start_us,
        end_us=split.train_end_us,
        n_rows=len(train),
        per_day=round(len(train) * DAY_US / (split.train_end_us - start_us), 3),
        label_ratio=round(holdout.n_positive / len(holdout), 9),
        features=tuple(features),
        score_edges=tuple(score_edges.tolist()),
        score_counts=tuple(bin_counts(score_edges, holdout_scores).tolist()),
    )
