"""XGBoost with settings for rare positives.

The library's defaults since 2.0 estimate base_score from the data and bin to 256 quantiles; on rare positives that
costs a tenth of the average precision, so base_score is 0.5 and splits are exact, or nearly so for many rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import InputError
from tidewheel.features.vector import model_input
from tidewheel.training.frame import TrainingFrame

if TYPE_CHECKING:
    import xgboost

EXACT_MAX_ROWS = 50_000  # above, 4096 bins come within .004 of the average precision in a third of the time
ONE_THREAD_MAX_ROWS = 300_000
N_ROUNDS = 100
VALIDATION_RATIO = 0.1  # newest share of the training rows, when early stopping is asked for
DEFAULTS: dict[str, Any] = {"base_score": 0.5, "learning_rate": 0.1, "max_depth": 3, "seed": 0}


# Names and aliases that the configuration of a booster does not list.
_OTHER_NAMES = {
    "alpha", "early_stopping_rounds", "eta", "eval_metric", "gamma", "lambda", "n_estimators", "n_jobs", "random_state",
    "reg_alpha", "reg_lambda",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What is given to xgboost.train; ``early_stopping_rounds`` 0 never stops early."""

    params: Mapping[str, Any]
    n_rounds: int
    early_stopping_rounds: int = 0


def n_threads(n_rows: int) -> int:
    """One below ONE_THREAD_MAX_ROWS: threads wait for each other by spinning, and beside a busy model server on the
    same machine two of them took four times as long as one."""
    return 1 if n_rows <= ONE_THREAD_MAX_ROWS else os.cpu_count() or 1


def settings_for(params: Mapping[str, Any], n_rows: int) -> Settings:
    """The platform's defaults under the project's ``training.params``."""
    method: dict[str, Any] = (
        {"tree_method": "exact"} if n_rows <= EXACT_MAX_ROWS else {"tree_method": "hist", "max_bin": 4096}
    )
    given = dict(params)
    n_rounds, early = _count(given, "n_estimators", N_ROUNDS), _count(given, "early_stopping_rounds", 0)
    if "tree_method" in given:
        method = {"max_bin": 4096} if given["tree_method"] == "hist" else {}
    fixed = {"objective": "binary:logistic", "nthread": n_threads(n_rows), "verbosity": 0, "eval_metric": "aucpr"}
    return Settings({**fixed, **DEFAULTS, **method, **given}, n_rounds, early)


def _count(given: dict[str, Any], name: str, default: int) -> int:
    value = given.pop(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < min(default, 1):
        raise InputError(
            f"training.params.{name}: must be a whole number of at least {min(default, 1)} (got {value!r})"
        )
    return value


def check_params(params: Mapping[str, Any]) -> None:
    """XGBoost drops a name it does not know without a word; a misspelt one is the project's mistake.

    Raises InputError with every unknown name.
    """
    import xgboost

    probe = xgboost.DMatrix(np.zeros((2, 1), dtype=np.float32), label=np.array([0, 1]))
    booster = xgboost.train({"objective": "binary:logistic", "tree_method": "hist", "verbosity": 0}, probe, 1)
    known = set(_keys(json.loads(booster.save_config()))) | _OTHER_NAMES
    if unknown := sorted(params.keys() - known):
        raise InputError(f"training.params: XGBoost knows no {', '.join(unknown)}; see its list of parameters")


def _keys(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield key
        yield from _keys(value)
    for item in node if isinstance(node, list) else ():
        yield from _keys(item)


def fit(frame: TrainingFrame, settings: Settings, start_from: xgboost.Booster | None = None) -> xgboost.Booster:
    """Train on ``frame``; ``start_from`` keeps its trees and adds to them. Raises InputError for bad params."""
    import xgboost

    def matrix(part: TrainingFrame) -> xgboost.DMatrix:
        return xgboost.DMatrix(
            model_input(part.x), label=part.y, feature_names=list(part.names), nthread=n_threads(len(part))
        )

    n_validation = int(len(frame) * VALIDATION_RATIO) if settings.early_stopping_rounds else 0
    rows = np.arange(len(frame))
    train = frame.take(rows[: len(rows) - n_validation]) if n_validation else frame
    options: dict[str, Any] = {}
    if n_validation:
        options["evals"] = [(matrix(frame.take(rows[-n_validation:])), "newest")]
        options["early_stopping_rounds"] = settings.early_stopping_rounds
        options["verbose_eval"] = False
    try:
        booster = xgboost.train(
            dict(settings.params), matrix(train), settings.n_rounds, xgb_model=start_from, **options
        )
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        text = next((line for line in str(error).splitlines() if "Check failed" not in line and line.strip()), "")
        raise InputError(f"training.params: XGBoost refuses them: {text.strip()[-200:]}") from error
    if n_validation:
        booster = booster[: booster.best_iteration + 1]  # a saved model has no memory of where it was best
    return booster


def score(booster: xgboost.Booster, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Float64 [n, k] in the model's order -> float64 [n], the probability of a positive label."""
    import xgboost

    matrix = xgboost.DMatrix(model_input(x), feature_names=booster.feature_names, nthread=n_threads(len(x)))
    return np.asarray(booster.predict(matrix), dtype=np.float64)
