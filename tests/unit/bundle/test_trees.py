"""Two models that differ anywhere differ on a probe; models that ONNX cannot say are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xgboost

from tidewheel.bundle.trees import check_kind, probes
from tidewheel.errors import ContractViolation

N = 4


def trained(**params: Any) -> tuple[xgboost.Booster, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, N)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) * np.nan_to_num(x[:, 2]) > 0.2).astype(int)
    given = {"objective": "binary:logistic", "max_depth": 4, "base_score": 0.5, "nthread": 1, **params}
    return xgboost.train(given, xgboost.DMatrix(x, y), 6), x


def model_of(booster: xgboost.Booster) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(booster.save_raw("json"))
    return body


def scores(model: dict[str, Any], rows: np.ndarray) -> np.ndarray:
    booster = xgboost.Booster({"nthread": 1}, model_file=bytearray(json.dumps(model).encode()))
    return np.asarray(booster.predict(xgboost.DMatrix(rows)))


def test_any_change_of_any_split_or_leaf_shows_on_a_probe():
    booster, x = trained()
    good = model_of(booster)
    rows = probes(good, x[:5].astype(np.float64))
    before = scores(good, rows)
    n_changed = 0
    rng = np.random.default_rng(5)
    anything = rng.normal(size=(20_000, N)).astype(np.float32)
    anything[rng.random(anything.shape) < 0.4] = np.nan
    for number in range(len(good["learner"]["gradient_booster"]["model"]["trees"])):
        n_nodes = len(good["learner"]["gradient_booster"]["model"]["trees"][number]["left_children"])
        for node in range(n_nodes):
            for kind in ("value", "feature", "side"):
                changed = model_of(booster)
                tree = changed["learner"]["gradient_booster"]["model"]["trees"][number]
                leaf = tree["left_children"][node] == -1
                if kind == "value":
                    value = np.float32(tree["split_conditions"][node])
                    moved = float(value + np.float32(0.01)) if leaf else float(np.nextafter(value, np.float32(np.inf)))
                    tree["split_conditions"][node] = moved
                    if leaf:
                        tree["base_weights"][node] = moved
                elif leaf:
                    continue
                elif kind == "feature":
                    tree["split_indices"][node] = (tree["split_indices"][node] + 1) % N
                else:
                    tree["default_left"][node] = 1 - tree["default_left"][node]
                n_changed += 1
                difference = np.abs(scores(changed, rows) - before).max()
                if kind == "side" and difference <= 1e-5:  # the same feature was missing above and never comes here
                    assert np.array_equal(scores(changed, anything), scores(good, anything))
                else:
                    assert difference > 1e-5, f"tree {number}, node {node}: {kind}"
    assert n_changed > 200


def test_a_stump_without_splits_is_probed_with_the_rows_given():
    booster, x = trained(max_depth=1, gamma=1e9)
    assert len(probes(model_of(booster), x[:5].astype(np.float64))) == 5


@pytest.mark.parametrize(
    ("params", "says"),
    [
        pytest.param({"booster": "dart"}, "booster 'dart' cannot be served", id="DART"),
        pytest.param({"booster": "gblinear"}, "booster 'gblinear' cannot be served", id="linear"),
        pytest.param({"objective": "reg:squarederror"}, "objective 'reg:squarederror'", id="another objective"),
        pytest.param({"objective": "binary:logitraw"}, "objective 'binary:logitraw'", id="raw scores"),
    ],
)
def test_a_model_is_refused_that_is(params: dict[str, Any], says: str):
    with pytest.raises(ContractViolation, match=says):
        check_kind(model_of(trained(**params)[0]), N)


def test_a_model_of_another_width_is_refused():
    with pytest.raises(ContractViolation, match="takes 4 features, the serving plan has 5"):
        check_kind(model_of(trained()[0]), 5)
