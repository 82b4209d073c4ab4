"""A tiny project and real bundles of it, for tests of what serves: five trees, three features, made in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memory.signing import KEY, trust_in
from tidewheel.bundle.files import FEATURES, MODEL_ONNX, MODEL_UBJ, PROJECT, REFERENCE, write_json
from tidewheel.bundle.golden import GoldenRequests, write_golden
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.plan import PlannedFeature, ServingPlan, write_plan
from tidewheel.bundle.signature import SigningKey, sign_bundle
from tidewheel.features.load import load_features
from tidewheel.features.ports import Progress
from tidewheel.features.vector import model_input
from tidewheel.spec.load import load_project

PROJECT_YAML = """\
name: tiny
owner: tests
tier: {tier}
entities:
  customer: {{key: customer_id, type: int64}}
sources:
  payments:
    topic: payments
    path: lake/payments
    event_time: paid_at
    event_id: payment_id
    columns: {{amount: float64, channel: string, fraud: bool}}
request: payments
label: {{source: payments, column: fraud, delay: 1d}}
training: {{window: 7d}}
serving:
  deadline: {deadline}
  decision: {{approve: 0.0, review: 0.5, decline: 0.9}}
  {fallback}
rollout:
  unit: customer
  steps:
    - shadow: {{for: 1h, min_requests: 60}}
    - canary: {{traffic: 0.25, for: 1h, min_requests: 20}}
  abort_if: {{error_ratio: 0.01, degraded_ratio: 0.5, decision_flip_ratio: {flips}, p99_latency: 10s}}
"""
FALLBACK = "fallback: {last_good: 10m, heuristic: large, decision: review}"
FEATURES_PY = """\
import numpy as np

from tidewheel.features import count, mean, request, windowed

card = windowed("payments", by="customer", windows=["1d"], include_request=True, features={
    "n": count(), "amount_mean": mean("amount", default=0.0),
})


@request
def large(amount):
    return np.where(amount > 220, 0.95, 0.05)
"""
OTHER_FEATURES_PY = """\
import numpy as np

from tidewheel.features import count, request, windowed

recent = windowed("payments", by="customer", windows=["1h"], include_request=True, features={"n": count()})


@request
def large(amount):
    return np.where(amount > 100, 0.95, 0.05)
"""
T0_US = 1_600_000_000_000_000


def write_project(
    folder: Path,
    *,
    tier: int = 2,
    deadline: str = "2s",
    flips: float = 1.0,
    features: str = FEATURES_PY,
    fallback: bool = True,
) -> Path:
    """project.yaml and features.py in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    declared = FALLBACK if fallback else ""
    text = PROJECT_YAML.format(tier=tier, deadline=deadline, flips=flips, fallback=declared)
    (folder / PROJECT).write_text(text)
    (folder / FEATURES).write_text(features)
    return folder


def write_bundle(
    folder: Path, *, seed: int = 0, features: str = FEATURES_PY, deadline: str = "2s", wrong_golden: bool = False,
    fallback: bool = True, key: SigningKey | None = KEY,
) -> str:  # fmt: skip
    """A whole model bundle in the empty ``folder``, signed where there is a ``key``; its digest."""
    import xgboost

    from tidewheel.training.onnx_twin import onnx_twin

    write_project(folder, features=features, deadline=deadline, fallback=fallback)
    project = load_project(folder)
    declared = load_features(folder, project)
    rng = np.random.default_rng(seed)
    x = model_input(rng.uniform(0, 300, size=(400, len(declared.names))))
    y = (x[:, -2] + rng.normal(0, 50, len(x)) > 150).astype(int)
    params = {"max_depth": 2, "objective": "binary:logistic", "seed": seed, "nthread": 1, "base_score": 0.5}
    booster = xgboost.train(params, xgboost.DMatrix(x, y), num_boost_round=5)
    booster.save_model(folder / MODEL_UBJ)
    (folder / MODEL_ONNX).write_bytes(onnx_twin(booster))
    scores = booster.predict(xgboost.DMatrix(x[:8])).astype(np.float64)
    write_golden(folder, GoldenRequests(x[:8].astype(np.float64), scores + (0.1 if wrong_golden else 0.0)))
    planned = zip(
        declared.names, declared.dtypes, declared.sources, declared.defaults, declared.freshness_us, strict=True
    )
    plan = ServingPlan(
        project=project.name,
        features=tuple(PlannedFeature(*one) for one in planned),
        decision=dict(project.serving.decision),
        feature_digest=declared.digest,
        spec_digest="none",
    )
    write_plan(folder, plan)
    write_json(folder / REFERENCE, {})
    digest = write_manifest(folder)
    if key is not None:
        sign_bundle(folder, digest, key)
    return digest


def place_bundle(bundles: Path, scratch: Path, **how: object) -> str:
    """A bundle under its digest in ``bundles``, as the controller puts it there; its home trusts who signed it."""
    trust_in(bundles.parent)
    digest = write_bundle(scratch, **how)  # type: ignore[arg-type]
    bundles.mkdir(parents=True, exist_ok=True)
    if not (bundles / digest).exists():
        scratch.rename(bundles / digest)
    return digest


def caught_up(at_us: int) -> Progress:
    """Progress of a state whose source is quiet and read to its end."""
    return Progress(position=0, watermark_us=0, end=0, caught_up_at_us=at_us, heartbeat_us=at_us)
