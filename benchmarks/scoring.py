"""One row through the model: the ONNX twin against XGBoost's two ways to predict."""

from __future__ import annotations

import numpy as np

from benchmarks.lines import Line
from benchmarks.measure import call_medians_us
from benchmarks.world import trained
from tidewheel.bundle.files import MODEL_ONNX, MODEL_UBJ
from tidewheel.bundle.golden import read_golden
from tidewheel.bundle.scorer import OnnxScorer
from tidewheel.features.vector import model_input

CALLS = {"full": (20, 200), "tiny": (1, 20)}  # rounds, calls in each
REACH = 20.0


def run(size: str) -> list[Line]:
    """Lines for one row; equal scores are part of the note."""
    import xgboost

    world = trained(size)
    vectors = model_input(read_golden(world.bundle, len(world.features.names)).vectors)
    scorer = OnnxScorer(world.bundle / MODEL_ONNX, vectors.shape[1])
    booster = xgboost.Booster({"nthread": 1}, model_file=str(world.bundle / MODEL_UBJ))
    rows = [vectors[index : index + 1] for index in range(len(vectors))]
    rounds, calls = CALLS[size]
    medians = call_medians_us(
        rounds,
        calls,
        {
            "onnx": lambda call: scorer.score(rows[call % len(rows)]),
            "inplace": lambda call: booster.inplace_predict(rows[call % len(rows)]),
            "matrix": lambda call: booster.predict(
                xgboost.DMatrix(rows[call % len(rows)], nthread=1), validate_features=False
            ),
        },
    )
    apart = float(np.abs(scorer.score(vectors) - booster.inplace_predict(vectors)).max())
    what, unit, n = "score one row, p50", "us", rounds * calls
    return [
        Line(what, "xgboost inplace_predict", medians["onnx"], medians["inplace"], unit, n, reach=REACH,
             note=f"scores differ by at most {apart:.0e}"),
        Line(what, "xgboost DMatrix + predict", medians["onnx"], medians["matrix"], unit, n, reach=REACH),
    ]  # fmt: skip
