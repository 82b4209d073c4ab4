from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from memory.signing import KEY, trust
from tidewheel.bundle.loader import load_bundle
from tidewheel.bundle.manifest import MANIFEST, write_manifest
from tidewheel.bundle.parity import parity
from tidewheel.bundle.reference import read_reference
from tidewheel.bundle.scorer import OnnxScorer
from tidewheel.bundle.signature import sign_bundle
from tidewheel.clock import DAY_US
from tidewheel.errors import ContractViolation, InputError
from tidewheel.features.load import load_features
from tidewheel.features.vector import model_input
from tidewheel.findings import Finding
from tidewheel.spec.load import load_project
from tidewheel.training.frame import TrainingFrame
from tidewheel.training.onnx_twin import onnx_twin
from tidewheel.training.run import Candidate, Champion, RunInput, train_candidate
from tidewheel.training.split import split_for
from tidewheel.training.trainer import Settings, check_params, fit, score, settings_for

SPEC = """
name: cards
owner: o
entities: {card: {key: card_id, type: int64}}
sources:
  tx: {topic: t, path: tx, event_time: at, event_id: id, columns: {amount: float64, channel: string, fraud: bool}}
request: tx
label: {source: tx, column: fraud, delay: 2d}
training:
  window: 10d
  holdout: 4d
  params: {n_estimators: 20}
  gate: {metric: average_precision, min: 0.3, slices: [channel]}
serving: {decision: {approve: 0.0, decline: 0.5}}
"""
FEATURES = """
from tidewheel.features import count, mean, windowed

card = windowed("tx", by="card", windows=["1d"], include_request=True, features={"n": count(), "usual": mean("amount")})
"""
AS_OF = 18 * DAY_US


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("project")
    (made / "project.yaml").write_text(SPEC)
    (made / "features.py").write_text(FEATURES)
    return made


def frame(n: int = 6000) -> TrainingFrame:
    """Eighteen days; a positive has both values high, so that neither alone tells, and some values are missing."""
    rng = np.random.default_rng(11)
    y = (rng.random(n) < 0.06).astype(np.int8)
    x = rng.normal(0.0, 1.0, (n, 2))
    x[y == 0] -= np.outer((rng.random((y == 0).sum()) < 0.7) * 1.5, [1.0, -1.0])
    x[y == 1] += 1.2
    x[rng.random((n, 2)) < 0.05] = np.nan
    x = model_input(x).astype(np.float64)
    columns = {"card_id": rng.integers(0, 300, n), "channel": np.array(["online", "shop"])[rng.integers(0, 2, n)]}
    return TrainingFrame(("n_1d", "usual_1d"), x, y, np.sort(rng.integers(0, 18 * DAY_US, n)), columns)


@pytest.fixture(scope="module")
def given(folder: Path) -> RunInput:
    project = load_project(folder)
    return RunInput(project, load_features(folder, project), folder, frame(), split_for(project, AS_OF), AS_OF)


@pytest.fixture(scope="module")
def made(given: RunInput, tmp_path_factory: pytest.TempPathFactory) -> tuple[Candidate, Path]:
    target = tmp_path_factory.mktemp("bundle")
    candidate = train_candidate(given, target)
    sign_bundle(target, candidate.digest, KEY)
    return candidate, target


def signed(folder: Path) -> str:
    """The digest of a folder as it is now, with a trusted signature."""
    digest = write_manifest(folder)
    sign_bundle(folder, digest, KEY)
    return digest


def test_a_candidate_is_a_bundle_that_loads_and_scores(given: RunInput, made: tuple[Candidate, Path]) -> None:
    candidate, target = made
    assert candidate.gate.reasons == ("GatePassed",)
    bundle = load_bundle(target, candidate.digest, trust())
    assert bundle.plan.names == ("n_1d", "usual_1d")
    assert bundle.plan.feature_digest == given.features.digest
    assert bundle.plan.decision == {"approve": 0.0, "decline": 0.5}
    assert np.isnan(bundle.golden.vectors[-1]).all()
    assert len(bundle.golden.scores) == 50
    assert candidate.parity.max_difference < 1e-6


def test_the_training_rows_end_a_label_delay_before_the_holdout(given: RunInput, made: tuple[Candidate, Path]) -> None:
    candidate, times = made[0], given.frame.event_time_us
    assert candidate.n_train == int(((times >= 0) & (times < 10 * DAY_US)).sum())
    assert candidate.n_holdout == int(((times >= 12 * DAY_US) & (times < 16 * DAY_US)).sum())
    reference = read_reference(made[1])
    assert (reference.end_us, reference.n_rows) == (10 * DAY_US, candidate.n_train)


def test_equal_rows_give_an_equal_digest(given: RunInput, made: tuple[Candidate, Path], tmp_path: Path) -> None:
    assert train_candidate(given, tmp_path).digest == made[0].digest


def test_one_changed_byte_of_a_bundle_is_not_loaded(made: tuple[Candidate, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made[1], copy)
    data = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ContractViolation, match=r"model\.onnx was changed"):
        load_bundle(copy, made[0].digest, trust())


def test_a_model_that_does_not_give_its_golden_scores_is_not_loaded(
    given: RunInput, made: tuple[Candidate, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made[1], copy)
    other = fit(given.frame, Settings({"objective": "binary:logistic", "base_score": 0.5}, 2))
    (copy / "model.onnx").write_bytes(onnx_twin(other))
    (copy / MANIFEST).unlink()
    with pytest.raises(ContractViolation, match="GoldenMismatch: 50 of 50 golden requests differ"):
        load_bundle(copy, signed(copy), trust())


def test_a_bundle_without_a_needed_file_is_not_loaded(made: tuple[Candidate, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made[1], copy)
    (copy / "golden.json").unlink()
    (copy / MANIFEST).unlink()
    with pytest.raises(ContractViolation, match=r"not a model bundle: golden\.json missing"):
        load_bundle(copy, signed(copy), trust())


def test_a_champion_that_knows_the_answers_is_not_replaced(given: RunInput, tmp_path: Path) -> None:
    champion = Champion("1", "0" * 64, given.frame.y.astype(np.float64))
    candidate = train_candidate(replace(given, champion=champion), tmp_path)
    assert candidate.gate.action == "refuse"
    assert candidate.gate.reasons == ("WorseThanChampion", "SliceWorse")
    assert {finding.subject for finding in candidate.gate.findings[1:]} == {"channel=online", "channel=shop"}


def test_a_short_history_is_noted(given: RunInput, tmp_path: Path) -> None:
    late = given.frame.between(5 * DAY_US, 18 * DAY_US)
    assert train_candidate(replace(given, frame=late), tmp_path).notes == (
        "the history is short: trained on 5.0 of 10.0 days",
    )


def test_a_history_without_training_rows_is_an_error(given: RunInput, tmp_path: Path) -> None:
    late = given.frame.between(12 * DAY_US, 18 * DAY_US)
    with pytest.raises(InputError, match=r"training window .*: 0 mature labelled rows; at least 200 are needed"):
        train_candidate(replace(given, frame=late), tmp_path)


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"base_score": 0.1}, id="another base score"),
        pytest.param({"tree_method": "hist"}, id="bins"),
        pytest.param({"max_depth": 6, "early_stopping_rounds": 2, "n_estimators": 200}, id="early stopping"),
    ],
)
def test_the_twin_says_the_same_with(given: RunInput, params: dict[str, Any]) -> None:
    booster = fit(given.frame, settings_for(params, len(given.frame)))
    scores = score(booster, given.frame.x)
    twin = OnnxScorer(onnx_twin(booster), 2).score(model_input(given.frame.x))
    assert parity(scores, twin).max_difference <= 1e-6
    assert booster.feature_names == ["n_1d", "usual_1d"]


def test_early_stopping_keeps_the_best_rounds_only(given: RunInput) -> None:
    def n_rounds(patience: int) -> int:
        params = {"max_depth": 6, "early_stopping_rounds": patience, "n_estimators": 200}
        return fit(given.frame, settings_for(params, len(given.frame))).num_boosted_rounds()

    assert n_rounds(40) == n_rounds(41) < 150


def test_early_stopping_on_top_of_a_champion_keeps_its_trees_and_the_best_of_the_new(given: RunInput) -> None:
    champion = fit(given.frame, settings_for({"n_estimators": 5}, len(given.frame)))
    params = {"max_depth": 6, "early_stopping_rounds": 2, "n_estimators": 200}
    booster = fit(given.frame, settings_for(params, len(given.frame)), champion)
    assert 5 < booster.num_boosted_rounds() < 150
    x = model_input(given.frame.x)
    saved = xgboost.Booster({"nthread": 1}, model_file=booster.save_raw("ubj"))
    twin = OnnxScorer(onnx_twin(booster), 2).score(x)
    assert np.abs(saved.inplace_predict(x) - twin).max() <= 1e-6  # all trees of the file are the trees that serve


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"booster": "dart"}, id="DART"),
        pytest.param({"booster": "gblinear"}, id="linear"),
        pytest.param({"objective": "binary:hinge"}, id="another objective"),
    ],
)
def test_a_model_that_onnx_cannot_say_is_refused_at_training(given: RunInput, params: dict[str, Any]) -> None:
    made = fit(given.frame, Settings({"objective": "binary:logistic", "base_score": 0.5, **params}, 3))
    with pytest.raises(ContractViolation, match=r"model\.ubj: (booster|objective) '.*' cannot be served"):
        onnx_twin(made)


def test_a_twin_is_compared_at_every_split_and_not_only_on_the_holdout(made: tuple[Candidate, Path]) -> None:
    assert made[0].parity.n_rows > made[0].n_holdout + 300


def test_unstable_request_functions_do_not_pass_the_gate(given: RunInput, tmp_path: Path) -> None:
    finding = Finding("TransformUnstable", "on 200 rows: amount_rank", "critical")
    candidate = train_candidate(replace(given, transforms=finding), tmp_path)
    assert (candidate.gate.action, candidate.gate.findings[0]) == ("refuse", finding)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        pytest.param(
            {"tree_method": "fast"}, "training.params: XGBoost refuses them: Invalid Input: 'fast'", id="value"
        ),
        pytest.param({"max_dept": 3, "eat": 1}, "training.params: XGBoost knows no eat, max_dept; see", id="name"),
        pytest.param(
            {"n_estimators": "many"},
            "training.params.n_estimators: must be a whole number of at least 1 (got 'many')",
            id="count",
        ),
    ],
)
def test_params_that_xgboost_does_not_take_are_the_projects_mistake(
    given: RunInput, tmp_path: Path, params: dict[str, Any], says: str
) -> None:
    training = given.project.training.model_copy(update={"params": params})
    wrong = replace(given, project=given.project.model_copy(update={"training": training}))
    with pytest.raises(InputError, match=re.escape(says)):
        train_candidate(wrong, tmp_path)


def test_every_documented_parameter_is_known() -> None:
    names = (
        "eta learning_rate gamma min_split_loss max_depth min_child_weight max_delta_step subsample sampling_method "
        "colsample_bytree colsample_bylevel colsample_bynode lambda reg_lambda alpha reg_alpha tree_method "
        "scale_pos_weight grow_policy max_leaves max_bin num_parallel_tree monotone_constraints "
        "interaction_constraints base_score seed eval_metric n_estimators early_stopping_rounds"
    )
    check_params(dict.fromkeys(names.split(), 1))


@pytest.mark.parametrize(
    ("params", "n_rows", "wanted"),
    [
        pytest.param({}, 50_000, {"tree_method": "exact", "max_bin": None, "base_score": 0.5}, id="few rows"),
        pytest.param({}, 50_001, {"tree_method": "hist", "max_bin": 4096, "base_score": 0.5}, id="many rows"),
        pytest.param({"tree_method": "exact"}, 10**6, {"tree_method": "exact", "max_bin": None}, id="asked for exact"),
        pytest.param({"max_bin": 64, "tree_method": "hist"}, 9, {"max_bin": 64}, id="asked for few bins"),
    ],
)
def test_the_settings_suit_rare_positives(params: dict[str, Any], n_rows: int, wanted: dict[str, Any]) -> None:
    made = settings_for(params, n_rows).params
    assert {key: made.get(key) for key in wanted} == wanted
