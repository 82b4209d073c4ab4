"""What a bundle must pass before a server loads it: both models parse, are of the right kind and say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.bundle.files import MODEL_ONNX, MODEL_UBJ, require_files
from tidewheel.bundle.golden import check_golden, read_golden
from tidewheel.bundle.manifest import verify
from tidewheel.bundle.parity import parity, parity_finding
from tidewheel.bundle.plan import read_plan
from tidewheel.bundle.scorer import OnnxScorer
from tidewheel.bundle.trees import check_kind, probes
from tidewheel.errors import ContractViolation
from tidewheel.findings import Finding


def check_bundle(folder: Path, digest: str) -> Finding | None:
    """Why a bundle must not be loaded, None where it may: golden scores by both models, and parity at every split.

    Raises ContractViolation, or whatever a parser raises.
    """
    require_files(verify(folder, digest), folder)
    plan = read_plan(folder)
    n_features = len(plan.features)
    golden = read_golden(folder, n_features)
    booster = read_booster(folder / MODEL_UBJ)
    model = json.loads(booster.save_raw("json"))
    check_kind(model, n_features)
    twin = OnnxScorer(folder / MODEL_ONNX, n_features)

    def original(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return score(booster, vectors.astype(np.float32))

    def served(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return twin.score(vectors.astype(np.float32))

    rows = probes(model, golden.vectors)
    return (
        check_golden(golden, original)
        or check_golden(golden, served)
        or parity_finding(parity(score(booster, rows), twin.score(rows)))
    )


def read_booster(path: Path) -> Any:
    """An xgboost.Booster that computes on one thread. Raises ContractViolation."""
    import xgboost

    try:
        booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(path.read_bytes()))
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        raise ContractViolation(f"model.ubj: cannot be loaded: {str(error).splitlines()[0][:300]}") from error
    booster.feature_names = None
    booster.feature_types = None
    return booster


def score(booster: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Float32 [n, k] -> float64 [n]."""
    import xgboost

    return np.asarray(booster.predict(xgboost.DMatrix(x, nthread=1)), dtype=np.float64)


def contributions(booster: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Float32 [n, k] -> float64 [n, k + 1]: what each feature adds to the log odds, and the bias last (Tree SHAP, as
    XGBoost computes it)."""
    import xgboost

    if x.ndim != 2 or x.shape[1] != booster.num_features():
        raise ContractViolation(f"the model takes {booster.num_features()} features (got rows of shape {x.shape})")
    return np.asarray(booster.predict(xgboost.DMatrix(x, nthread=1), pred_contribs=True), dtype=np.float64)
