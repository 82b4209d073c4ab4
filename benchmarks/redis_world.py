"""A card fraud model with 15 features in 3 views whose online state is in a real Redis, in Feast's layout.

Twice: ``plain`` views are finished values, read as they are; ``windowed`` ones are computed as of the request. Callers,
entities and trees are alike.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.measure import call_medians_us
from benchmarks.world import ROOT, fill, scratch
from tidewheel.adapters.connections import Connections, write_connections
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.adapters.signing_keys import signing_key
from tidewheel.bundle.files import FEATURES, MODEL_ONNX, MODEL_UBJ, PROJECT, REFERENCE, write_json
from tidewheel.bundle.golden import GoldenRequests, write_golden
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.plan import PlannedFeature, ServingPlan, write_plan
from tidewheel.bundle.signature import sign_bundle
from tidewheel.clock import DAY_US, HOUR_US
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.events import topic_of, validate_events
from tidewheel.features.load import load_features
from tidewheel.features.vector import model_input
from tidewheel.serving.rows import bodies
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject

PROJECT_YAML = """\
name: card-fraud
owner: bench
tier: 2
entities:
  customer: {key: customer_id, type: int64}
  terminal: {key: terminal_id, type: int64}
sources:
  transactions:
    topic: card.transactions
    path: transactions
    event_time: tx_time
    event_id: tx_id
    columns: {amount: float64, channel: string, is_fraud: bool}
  cards:
    path: cards
    event_time: at
    columns: {c1: float64, c2: float64, c3: float64, c4: float64, c5: float64, c6: float64}
  terminals:
    path: terminals
    event_time: at
    columns: {t1: float64, t2: float64, t3: float64, t4: float64, t5: float64, t6: float64}
  spending: {path: spending, event_time: at, columns: {s1: float64, s2: float64, s3: float64}}
request: transactions
label: {source: transactions, column: is_fraud, delay: 1d}
training: {window: 7d}
serving:
  deadline: 250ms
  decision: {approve: 0.0, review: 0.5, decline: 0.9}
  fallback: {last_good: 10m, decision: review}
rollout: {unit: customer}
"""
PLAIN = """\
from tidewheel.features import batch

card = batch("cards", by="customer", columns=["c1", "c2", "c3", "c4", "c5", "c6"], ttl="300d")
terminal = batch("terminals", by="terminal", columns=["t1", "t2", "t3", "t4", "t5", "t6"], ttl="300d")
spending = batch("spending", by="customer", columns=["s1", "s2", "s3"], ttl="300d")
"""
WINDOWED = """\
from tidewheel.features import count, max, mean, sum, windowed

card = windowed("transactions", by="customer", windows=["1h", "1d", "7d"], include_request=True,
                features={"card_n": count(), "card_mean": mean("amount")})
terminal = windowed("transactions", by="terminal", windows=["1d", "7d", "30d"],
                    features={"terminal_n": count(), "terminal_sum": sum("amount")})
spending = windowed("transactions", by="customer", windows=["30d"],
                    features={"spent_n": count(), "spent_mean": mean("amount"), "spent_max": max("amount")})
"""
KINDS = {"plain": PLAIN, "windowed": WINDOWED}
SIZES = {"full": (1500, 3000, 60), "tiny": (30, 40, 5)}  # customers, terminals, payments of each customer in 30 days
START_US = 1_767_571_200_000_000  # 2026-01-05
TREES = 100
TRIED_LAYERS = 8  # of a slow model, to see how long one takes here


@dataclass(frozen=True)
class RedisWorld:
    """``bodies`` are requests; ``vectors`` what the published features of each request are, in the model's order."""

    kind: str
    home: LocalHome
    project: ModelProject
    features: FeatureSet
    bundle: Path
    requests: pa.Table
    bodies: list[bytes]


@contextmanager
def redis_for_benchmarks() -> Iterator[str]:
    """A real server without persistence; its URL. Raises RuntimeError where none is installed."""
    import shutil

    if shutil.which("redis-server") is None:
        raise RuntimeError("redis-server is not installed: make test-servers")
    sys.path.insert(0, str(ROOT / "tests"))
    from servers.redis import redis_server

    with redis_server(scratch() / "redis") as server:
        yield server.url


@cache
def tables(size: str) -> dict[str, pa.Table]:
    """Events and tables, the same in each run."""
    customers, terminals, each = SIZES[size]
    random = np.random.default_rng(11)
    n = customers * each
    at_us = np.sort(random.integers(START_US, START_US + 30 * DAY_US, n))
    times = pa.timestamp("us", tz="UTC")
    made = {
        "transactions": pa.table(
            {
                "customer_id": random.integers(0, customers, n),
                "terminal_id": random.integers(0, terminals, n),
                "tx_time": pa.array(at_us, times),
                "tx_id": np.arange(n),
                "amount": np.round(random.lognormal(3.5, 0.8, n), 2),
                "channel": pa.array(np.array(["chip", "online"])[random.integers(0, 2, n)]),
                "is_fraud": random.random(n) < 0.02,
            }
        )
    }
    for name, key, letter, width in (
        ("cards", "customer", "c", 6), ("terminals", "terminal", "t", 6), ("spending", "customer", "s", 3),
    ):  # fmt: skip
        rows = customers if key == "customer" else terminals
        columns = {f"{letter}{i + 1}": random.normal(50, 20, rows) for i in range(width)}
        moments = pa.array(np.full(rows, START_US + 29 * DAY_US), times)
        made[name] = pa.table({f"{key}_id": np.arange(rows), "at": moments, **columns})
    return made


def redis_world(kind: str, size: str, url: str) -> RedisWorld:
    """Everything that a model server needs, its states filled by the stream worker's own code."""
    folder = Path(tempfile.mkdtemp(prefix=f"redis-{kind}-", dir=scratch()))  # several benchmarks of a run make one
    home, source = LocalHome(folder / "home"), folder / "bundle"
    source.mkdir(parents=True)
    (source / PROJECT).write_text(PROJECT_YAML)
    (source / FEATURES).write_text(KINDS[kind])
    project = load_project(source)
    features = load_features(source, project)
    digest = _bundle(source, project, features)
    sign_bundle(source, digest, signing_key(home))
    home.bundles.mkdir(parents=True)
    bundle = source.rename(home.bundles / digest)
    write_connections(home, Connections(online_store=url))
    log, store = FileEventLog(home.event_log), RedisOnlineStore(parse_redis_url(url))
    for name, table in tables(size).items():
        checked = validate_events(table, name, project, keys=features.keys_of(name))
        log.append(topic_of(project, name), checked.good)
    fill(features, log, store)
    store.close()
    variant = Variant("1", digest, dict(project.serving.decision))
    LocalCluster(home).write_document(
        DeploymentDocument(project.name, 1, "customer_id", "bench", "1", (variant,), {"1": 1.0}, (), ())
    )
    asked = requests_of(size)
    return RedisWorld(kind, home, project, features, bundle, asked, list(bodies(asked, project)))


def requests_of(size: str, n: int = 4000) -> pa.Table:
    """New payments in the hour after the last event."""
    customers, terminals, _ = SIZES[size]
    random = np.random.default_rng(12)
    return pa.table(
        {
            "customer_id": random.integers(0, customers, n),
            "terminal_id": random.integers(0, terminals, n),
            "tx_time": pa.array(START_US + 30 * DAY_US + np.arange(n) * (HOUR_US // n), pa.timestamp("us", tz="UTC")),
            "tx_id": 10**9 + np.arange(n),
            "amount": np.round(random.lognormal(3.5, 0.8, n), 2),
            "channel": pa.array(np.array(["chip", "online"])[random.integers(0, 2, n)]),
        }
    )


def second_bundle(world: RedisWorld) -> str:
    """Another version of the same features, signed and in the home; its digest."""
    source = world.home.root.parent / "second"
    source.mkdir()
    (source / PROJECT).write_text(PROJECT_YAML)
    (source / FEATURES).write_text(KINDS[world.kind])
    digest = _bundle(source, world.project, world.features, seed=6)
    sign_bundle(source, digest, signing_key(world.home))
    source.rename(world.home.bundles / digest)
    return digest


def slow_bundle(world: RedisWorld, model_ms: float) -> str:
    """The same features and scores, by a model that takes ``model_ms`` for one row here; its digest."""
    import onnx

    from memory.slow_model import WIDTH, slowed  # beside redis_for_benchmarks, which makes the tests' folder known

    source = world.home.root.parent / "slow"
    source.mkdir()
    (source / PROJECT).write_text(PROJECT_YAML)
    (source / FEATURES).write_text(KINDS[world.kind])
    _bundle(source, world.project, world.features)
    path = source / MODEL_ONNX
    fast = path.read_bytes()
    onnx.save(slowed(onnx.load_from_string(fast), TRIED_LAYERS, WIDTH**0.5), path)
    layers = max(1, round(TRIED_LAYERS * model_ms / _run_ms(path, len(world.features.names))))
    onnx.save(slowed(onnx.load_from_string(fast), layers, WIDTH**0.5), path)
    digest = write_manifest(source)
    sign_bundle(source, digest, signing_key(world.home))
    source.rename(world.home.bundles / digest)
    return digest


def _run_ms(path: Path, n_features: int) -> float:
    """The median of a run of one row."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options)
    row = {session.get_inputs()[0].name: np.ones((1, n_features), dtype=np.float32)}
    return call_medians_us(2, 20, {"run": lambda call: session.run(None, row)})["run"] / 1000


def _bundle(folder: Path, project: ModelProject, features: FeatureSet, seed: int = 5) -> str:
    """100 trees of depth 3 over random labels: what they say does not matter, what they cost does."""
    import xgboost

    from tidewheel.training.onnx_twin import onnx_twin

    random = np.random.default_rng(seed)
    x = model_input(random.normal(50, 20, size=(4000, len(features.names))))
    y = (x[:, 0] + x[:, 7] + random.normal(0, 20, len(x)) > 110).astype(int)
    params = {"max_depth": 3, "objective": "binary:logistic", "seed": seed, "nthread": 1, "base_score": 0.5}
    booster = xgboost.train(params, xgboost.DMatrix(x, y), num_boost_round=TREES)
    booster.save_model(folder / MODEL_UBJ)
    (folder / MODEL_ONNX).write_bytes(onnx_twin(booster))
    scores = booster.predict(xgboost.DMatrix(x[:8])).astype(np.float64)
    write_golden(folder, GoldenRequests(x[:8].astype(np.float64), scores))
    planned = zip(
        features.names, features.dtypes, features.sources, features.defaults, features.freshness_us, strict=True
    )
    plan = ServingPlan(
        project=project.name,
        features=tuple(PlannedFeature(*one) for one in planned),
        decision=dict(project.serving.decision),
        feature_digest=features.digest,
        spec_digest="none",
    )
    write_plan(folder, plan)
    write_json(folder / REFERENCE, {})
    return write_manifest(folder)


def published_fields(world: RedisWorld) -> list[tuple[str, str, list[str]]]:
    """(entity column, Feast view, feature names) of each view, in the model's order: what a peer has to read."""
    from tidewheel.features.declaration import RequestView

    return [
        (view.state.keys[0][0], view.state.feast_view, list(view.feature_names))
        for view in world.features.views
        if not isinstance(view, RequestView)
    ]
