"""The template's card payments: events, a really trained version, and its online state, made once per run."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.signing_keys import signing_key
from tidewheel.bundle.signature import sign_bundle
from tidewheel.clock import SystemClock
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.features.declaration import FeatureSet, RequestView
from tidewheel.features.events import OFFSET_COLUMN, topic_of, validate_events
from tidewheel.features.lake import write_part
from tidewheel.features.load import load_features
from tidewheel.features.stream import StateKeeper
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject
from tidewheel.training.dataset import labelled_dataset
from tidewheel.training.run import RunInput, train_candidate
from tidewheel.training.split import split_for

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "model_templates" / "card_fraud"
DAYS = 56  # label delay, holdout, label delay again and the training window
SIZES = {"full": {"customers": 1500, "terminals": 3000}, "tiny": {"customers": 150, "terminals": 200}}


@dataclass(frozen=True)
class TrainedWorld:
    """``home`` has the bundle, a deployment document for it and the events in its log; ``requests`` are a day's."""

    project: ModelProject
    features: FeatureSet
    home: LocalHome
    bundle: Path
    requests: pa.Table


@cache
def scratch() -> Path:
    """A folder that goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="tidewheel-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def generator() -> Any:
    """The template's generate.py as a module."""
    spec = importlib.util.spec_from_file_location("card_fraud_generate", TEMPLATE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@cache
def trained(size: str) -> TrainedWorld:
    """Nine weeks of payments, a version trained on them with the template's own settings, and the day after."""
    made = generator()
    population = made.Population(made.World(**SIZES[size]))
    folder = scratch() / f"world-{size}"
    made.write_days(population, range(DAYS), folder, per_day=False)
    project = load_project(TEMPLATE)
    features = load_features(TEMPLATE, project)
    as_of_us = population.world.midnight_us(DAYS)
    split = split_for(project, as_of_us)
    sources = {name: folder / f"{name}.parquet" for name in project.sources}
    data = labelled_dataset(
        DuckDbFeatures(), project, features, sources, split.train_start_us, split.test_end_us, as_of_us
    )
    home = LocalHome(folder / "home")
    target = folder / "bundle"
    target.mkdir()
    candidate = train_candidate(RunInput(project, features, TEMPLATE, data.frame, split, as_of_us), target)
    sign_bundle(target, candidate.digest, signing_key(home))
    home.bundles.mkdir(parents=True)
    bundle = target.rename(home.bundles / candidate.digest)
    log = FileEventLog(home.event_log)
    for name, path in sources.items():
        checked = validate_events(pq.read_table(path), name, project, keys=features.keys_of(name))
        log.append(topic_of(project, name), checked.good)
    variant = Variant("1", candidate.digest, dict(project.serving.decision))
    LocalCluster(home).write_document(
        DeploymentDocument(project.name, 1, "customer_id", "bench", "1", (variant,), {"1": 1.0}, (), ())
    )
    return TrainedWorld(project, features, home, bundle, made.requests_of(made.day_of_payments(population, DAYS)))


def fill(features: FeatureSet, log: FileEventLog, store: Any) -> None:
    """Bring every state up to the log's end, with the stream worker's own code."""
    for view in features.views:
        if isinstance(view, RequestView):
            continue
        keeper = StateKeeper(view, 0, log, store, SystemClock(), lambda event, **fields: None)
        while keeper.step():
            pass


@cache
def many_payments(n_events: int) -> tuple[Path, pa.Table]:
    """Payments of the template's population for as long as it takes to make ``n_events``: (lake folder, all rows)."""
    made = generator()
    population = made.Population(made.World())
    pieces: list[pa.Table] = []
    day = 0
    while sum(len(piece) for piece in pieces) < n_events:
        pieces.append(made.requests_of(made.day_of_payments(population, day)))
        day += 1
    table = pa.concat_tables(pieces).slice(0, n_events)
    project = load_project(TEMPLATE)
    good = validate_events(table, "transactions", project, keys=("customer_id",)).good
    folder = scratch() / f"lake-{n_events}"
    offsets = pa.array(range(n_events), pa.int64())
    write_part(folder, 0, good.append_column(OFFSET_COLUMN, offsets), n_events)
    return folder, table
