"""A child parses first: what it refuses, and that nothing that happens to it reaches who asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import xgboost

from memory.signing import KEY
from tidewheel.bundle.files import GOLDEN, MODEL_ONNX, MODEL_UBJ
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.signature import sign_bundle
from tidewheel.errors import InputError, Unavailable
from tidewheel.serving.parse_child import Limits, ParseChild
from tidewheel.training.onnx_twin import onnx_twin


@pytest.fixture
def bundle(tiny_bundles: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundles[0] / tiny_bundles[1]["1"], tmp_path / "bundle")


def signed(folder: Path) -> tuple[Path, str]:
    digest = write_manifest(folder)
    sign_bundle(folder, digest, KEY)
    return folder, digest


def test_a_good_bundle_passes_and_the_child_leaves_no_process(bundle: Path, parser: ParseChild):
    assert parser.check(*signed(bundle)) is None
    assert Path(f"/proc/{parser.pid}/task/{parser.pid}/children").read_text() == ""


def test_a_twin_that_differs_where_no_golden_request_looks_is_refused(bundle: Path, parser: ParseChild):
    model = json.loads(xgboost.Booster(model_file=bundle / MODEL_UBJ).save_raw("json"))
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["default_left"][0] = 1 - tree["default_left"][0]  # golden requests of this bundle have no missing value
    (bundle / MODEL_ONNX).write_bytes(onnx_twin(xgboost.Booster(model_file=bytearray(json.dumps(model).encode()))))
    finding = parser.check(*signed(bundle))
    assert finding is not None
    assert (finding.reason, finding.severity) == ("ParityMismatch", "critical")


@pytest.mark.parametrize(
    ("file", "data", "reason", "says"),
    [
        pytest.param(MODEL_UBJ, b"", "LoadFailed", "the child that parses ended by SIG", id="an empty model"),
        pytest.param(MODEL_UBJ, b"{L" * 50_000, "", "", id="a deep model"),
        pytest.param(MODEL_ONNX, b"\x08\x08", "BundleInvalid", "model.onnx: cannot be loaded", id="a torn twin"),
        pytest.param(GOLDEN, b"[" * 100_000, "LoadFailed", "RecursionError", id="a bomb of depth"),
        pytest.param(GOLDEN, b'{"vectors": [], "scores": [], "tolerance": 1}', "BundleInvalid", "golden", id="no rows"),
    ],
)
def test_a_bundle_is_refused_that_has(bundle: Path, parser: ParseChild, file: str, data: bytes, reason: str, says: str):
    (bundle / file).write_bytes(data)
    finding = parser.check(*signed(bundle))
    assert finding is not None
    assert reason in finding.reason
    assert says in finding.message


def test_a_dart_model_is_refused(bundle: Path, parser: ParseChild):
    x = np.random.default_rng(1).normal(size=(50, 3))
    given = {"booster": "dart", "objective": "binary:logistic", "base_score": 0.5}
    xgboost.train(given, xgboost.DMatrix(x, x[:, 0] > 0), 3).save_model(bundle / MODEL_UBJ)
    finding = parser.check(*signed(bundle))
    assert finding is not None
    assert "booster 'dart' cannot be served" in finding.message


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        pytest.param(Limits(deadline_s=0.0), "parsing took longer than 0 s", id="time"),
        pytest.param(Limits(memory_bytes=64_000_000), "more memory than a model may take", id="memory"),
    ],
)
def test_a_child_beyond_its_limits_is_a_load_that_failed(bundle: Path, limits: Limits, says: str):
    (bundle / GOLDEN).write_bytes(b'{"vectors": [' + b"[]," * 2_000_000 + b"[]]}")  # 6 MB that become 130
    child = ParseChild(os.environ, limits)
    try:
        finding = child.check(*signed(bundle))
        assert finding is not None
        assert (finding.reason, says in finding.message) == ("LoadFailed", True)
        assert Path(f"/proc/{child.pid}").exists()
    finally:
        child.stop()


def test_a_process_that_was_killed_is_started_again(bundle: Path):
    child = ParseChild(os.environ)
    try:
        assert child.check(*signed(bundle)) is None
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert child.check(*signed(bundle)) is None
        assert child.pid != first
    finally:
        child.stop()


def test_a_process_that_is_silent_is_ended_and_the_next_question_gets_a_new_one(bundle: Path):
    child = ParseChild(os.environ, Limits(deadline_s=1.0, margin_s=0.5))
    try:
        assert child.check(*signed(bundle)) is None
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        finding = child.check(*signed(bundle))
        assert finding is not None
        assert (finding.reason, finding.message) == (
            "LoadFailed", "the process that parses models does not answer",
        )  # fmt: skip
        assert child.check(*signed(bundle)) is None
        assert child.pid != first
    finally:
        child.stop()


def test_no_secret_of_the_server_reaches_the_process(bundle: Path):
    os.environ["TIDEWHEEL_REDIS_PASSWORD"] = "tidal"
    child = ParseChild(os.environ)
    try:
        child.start()
        child.check(*signed(bundle))
        assert b"tidal" not in Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        child.stop()


def test_after_stop_nothing_is_started(bundle: Path):
    child = ParseChild(os.environ)
    child.stop()
    finding = child.check(*signed(bundle))
    assert (finding is not None and finding.reason, child.pid) == ("LoadFailed", None)


def test_contributions_add_up_to_the_score(bundle: Path, parser: ParseChild):
    folder, digest = signed(bundle)
    x = np.array([[1, 150, 0.05], [3, np.nan, 0.95]], dtype=np.float32)
    added = parser.explain(folder, digest, x)
    booster = xgboost.Booster(model_file=folder / MODEL_UBJ)
    assert added.shape == (2, 4)
    assert np.allclose(1 / (1 + np.exp(-added.sum(axis=1))), booster.predict(xgboost.DMatrix(x)), atol=1e-6)


def test_a_wrong_question_for_contributions_is_told_apart_from_a_child_that_fails(bundle: Path, parser: ParseChild):
    folder, digest = signed(bundle)
    with pytest.raises(InputError, match="takes 3 features"):
        parser.explain(folder, digest, np.zeros((1, 7), dtype=np.float32))
    with pytest.raises(InputError, match="digest is"):
        parser.explain(folder, "0" * 64, np.zeros((1, 3), dtype=np.float32))
    stopped = ParseChild(os.environ)
    stopped.stop()
    with pytest.raises(Unavailable):
        stopped.explain(folder, digest, np.zeros((1, 3), dtype=np.float32))
