"""The trees of model.ubj as data: what kind of model it is, and the rows that tell two models apart.

Used where XGBoost is imported anyway, at training and in the child that parses; nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import ContractViolation

OBJECTIVE = "binary:logistic"
MAX_PROBES = 60_000


@dataclass(frozen=True)
class _Tree:
    left: list[int]
    right: list[int]
    feature: list[int]
    threshold: NDArray[np.float32]


def check_kind(model: Mapping[str, Any], n_features: int) -> None:
    """``model`` is ``booster.save_raw("json")``, parsed. Raises ContractViolation unless it is what ONNX says the same
    as: boosted trees over numbers, ``n_features`` of them, one probability.

    DART is refused because the ONNX twin has no weights of trees.
    """
    learner = model["learner"]
    booster, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
    n_model = int(learner["learner_model_param"]["num_feature"])
    if booster != "gbtree":
        raise ContractViolation(f"model.ubj: booster {booster!r} cannot be served; only gbtree can")
    if objective != OBJECTIVE:
        raise ContractViolation(f"model.ubj: objective {objective!r} cannot be served; only {OBJECTIVE} can")
    if n_model != n_features:
        raise ContractViolation(f"model.ubj: takes {n_model} features, the serving plan has {n_features}")
    if any(any(tree["split_type"]) for tree in learner["gradient_booster"]["model"]["trees"]):
        raise ContractViolation("model.ubj: splits on categories cannot be served; features are numbers")


def probes(model: Mapping[str, Any], rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows float32 [p, k] at every split of every tree: just below its threshold, at it, and missing.

    Two models with other thresholds, features, default sides or leaves disagree on one of them. ``rows`` float64
    [m, k] fill in the features that do not lead to the split. At most MAX_PROBES, evenly over the splits.
    """
    filling = rows.astype(np.float32)
    found: list[NDArray[np.float32]] = []
    for tree in _trees(model):
        for path, node in _splits(tree):
            row = filling[len(found) % len(filling)].copy()
            for feature, value in path.items():
                row[feature] = value
            threshold = tree.threshold[node]
            trio = np.repeat(row[None, :], 3, axis=0)
            trio[:, tree.feature[node]] = np.nextafter(threshold, np.float32(-np.inf)), threshold, np.nan
            found.append(trio)
    if not found:
        return filling
    step = max(1, -(-len(found) * 3 // MAX_PROBES))
    return np.concatenate(found[::step])


def _trees(model: Mapping[str, Any]) -> Iterator[_Tree]:
    for tree in model["learner"]["gradient_booster"]["model"]["trees"]:
        threshold = np.array(tree["split_conditions"], dtype=np.float32)
        yield _Tree(tree["left_children"], tree["right_children"], tree["split_indices"], threshold)


def _splits(tree: _Tree) -> Iterator[tuple[dict[int, np.float32], int]]:
    """Every split with values of the features above it that lead there."""
    waiting: list[tuple[int, dict[int, tuple[np.float32, np.float32]]]] = [(0, {})]
    lowest, highest = np.float32(-np.inf), np.float32(np.inf)
    while waiting:
        node, bounds = waiting.pop()
        if tree.left[node] == -1:
            continue
        yield {feature: _within(*bound) for feature, bound in bounds.items()}, node
        feature, threshold = tree.feature[node], tree.threshold[node]
        low, high = bounds.get(feature, (lowest, highest))
        waiting.append((tree.left[node], {**bounds, feature: (low, min(high, threshold))}))
        waiting.append((tree.right[node], {**bounds, feature: (max(low, threshold), high)}))


def _within(low: np.float32, high: np.float32) -> np.float32:
    """A number in [low, high)."""
    return low if np.isfinite(low) else np.nextafter(high, np.float32(-np.inf))
