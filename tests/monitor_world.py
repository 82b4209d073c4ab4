"""A home of the card-fraud template without processes: lake, prediction log and a champion's bundle facts.

Rows come from the template's generator, features from the offline engine, scores from a fixed formula, so that a month
of monitor runs costs seconds. Days count from the generator's start.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memory.signing import KEY, trust_in
from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.reference import FeatureReference, Reference, write_reference
from tidewheel.bundle.signature import sign_bundle
from tidewheel.clock import FixedClock
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.evaluation.profiles import bin_counts, decile_edges
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.events import OFFSET_COLUMN, validate_events
from tidewheel.features.lake import source_paths, write_part
from tidewheel.features.load import load_features
from tidewheel.journal.ledger import Journal
from tidewheel.monitoring.gather import Champion
from tidewheel.monitoring.paths import MonitorPaths
from tidewheel.monitoring.run import MonitorResult, run_monitor
from tidewheel.serving.prediction_table import prediction_schema
from tidewheel.spec.load import load_project

TEMPLATE = Path(__file__).resolve().parent.parent / "model_templates" / "card_fraud"


def generator() -> ModuleType:
    """The template's generate.py as a module."""
    spec = importlib.util.spec_from_file_location("card_fraud_generate", TEMPLATE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class MonitorWorld:
    """``days`` of events; the champion is trained on [train_from, train_until) and serves from ``serves_from``.

    ``root`` is laid out as a home, with the champion's bundle and a deployment document, so commands work on it.
    """

    root: Path
    days: int
    serves_from: int
    train_from: int
    train_until: int
    world: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = generator()
        self.at = made.World(**self.world)
        self.population = made.Population(self.at)
        self.generate = made
        self.project = load_project(TEMPLATE)
        self.features = load_features(TEMPLATE, self.project)
        self.paths = MonitorPaths(self.root / "lake", self.root / "reports", self.root / "bundles")
        self.sources = source_paths(self.paths.lake, self.project)
        self.journal = Journal(f"sqlite:///{self.root / 'journal.db'}", FixedClock(1))
        for day in range(self.days):
            self._ingest(day, "transactions", made.feed_of(self.at, day, made.day_of_payments(self.population, day)))
            self._ingest(day, "labels", made.labels_of(self.population, day))
            self._ingest(day, "profiles", made.profiles_of(self.population, day))
        requests = pa.concat_tables(
            made.requests_of(made.day_of_payments(self.population, day)) for day in range(self.train_from, self.days)
        )
        checked = validate_events(requests, "transactions", self.project).good
        computed = DuckDbFeatures(threads=1).compute(self.features, self.project, checked, self.sources)
        self.x = np.column_stack(
            [computed[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in self.features.names]
        )
        self.times_us = checked["tx_time"].cast(pa.int64()).to_numpy()
        self.scores = self._score(self.x)
        reference = self._reference()
        self.digest = self._bundle(reference)
        self.champion = Champion("1", self.digest, self.features, reference)
        self._log(checked)

    def midnight_us(self, day: int) -> int:
        return int(self.at.midnight_us(day))

    def monitor(self, day: int, **more: Any) -> MonitorResult:
        """The run as of the end of ``day``."""
        as_of_us = self.midnight_us(day + 1)
        return run_monitor(self.project, self.paths, self.journal, self.champion, as_of_us, **more)

    def recompute(self, features: FeatureSet, rows: pa.Table, sources: Mapping[str, Path]) -> pa.Table:
        return DuckDbFeatures(threads=1).compute(features, self.project, rows, sources)

    def _ingest(self, day: int, source: str, table: pa.Table) -> None:
        good = validate_events(table, source, self.project, keys=("terminal_id",) if source == "labels" else ()).good
        first = day * 1_000_000
        offsets = pa.array(np.arange(first, first + good.num_rows))
        write_part(self.sources[source], first, good.append_column(OFFSET_COLUMN, offsets), good.num_rows)

    def _bundle(self, reference: Reference) -> str:
        draft = self.paths.bundles / "draft"
        draft.mkdir(parents=True)
        for name in ("project.yaml", "features.py"):
            shutil.copy(TEMPLATE / name, draft / name)
        write_reference(draft, reference)
        digest = write_manifest(draft)
        sign_bundle(draft, digest, KEY)
        trust_in(self.root)
        draft.rename(self.paths.bundles / digest)
        variant = Variant("1", digest, {"approve": 0.0})
        document = DeploymentDocument(self.project.name, 1, "customer_id", "salt", "1", (variant,), {"1": 1.0})
        (self.root / "deployments").mkdir()
        (self.root / "deployments" / f"{self.project.name}.json").write_bytes(document.to_json())
        return digest

    def _column(self, name: str) -> np.ndarray:
        return self.x[:, self.features.names.index(name)]

    def _score(self, x: np.ndarray) -> np.ndarray:
        ratio, amount = self._column("terminal_fraud_ratio_7d"), self._column("payment_amount")
        usual = np.nan_to_num(self._column("amount_to_usual"), nan=1.0)
        return 1 / (1 + np.exp(-(5 * ratio + 0.03 * (np.nan_to_num(amount) - 200) + 0.5 * (usual - 4))))

    def _reference(self) -> Reference:
        train = (self.times_us >= self.midnight_us(self.train_from)) & (
            self.times_us < self.midnight_us(self.train_until)
        )
        features = []
        for index, name in enumerate(self.features.names):
            values = self.x[train, index]
            edges = decile_edges(values)
            counts = tuple(bin_counts(edges, values).tolist())
            features.append(FeatureReference(name, tuple(edges.tolist()), counts, int(np.isnan(values).sum())))
        week = (self.times_us >= self.midnight_us(self.train_until)) & (
            self.times_us < self.midnight_us(self.train_until + 7)
        )
        scores = self.scores[week]
        edges = decile_edges(scores)
        return Reference(
            start_us=self.midnight_us(self.train_from),
            end_us=self.midnight_us(self.train_until),
            n_rows=int(train.sum()),
            per_day=float(train.sum() / (self.train_until - self.train_from)),
            label_ratio=0.01,
            features=tuple(features),
            score_edges=tuple(edges.tolist()),
            score_counts=tuple(bin_counts(edges, scores).tolist()),
        )

    def _log(self, rows: pa.Table) -> None:
        folder = self.paths.predictions(self.project.name)
        folder.mkdir(parents=True)
        for day in range(self.serves_from, self.days):
            chosen = np.flatnonzero(
                (self.times_us >= self.midnight_us(day)) & (self.times_us < self.midnight_us(day + 1))
            )
            for number, part in enumerate(np.array_split(chosen, 4)):
                pq.write_table(
                    self._records(rows.take(pa.array(part)), part), folder / f"part-0-{day:05d}{number}.parquet"
                )

    def _records(self, rows: pa.Table, at: np.ndarray) -> pa.Table:
        n = len(at)
        same = {
            "project": self.project.name,
            "version": "1",
            "digest": self.digest,
            "role": "champion",
            "generation": 1,
        }
        values: dict[str, Any] = {name: [value] * n for name, value in same.items()}
        values |= {
            "record_id": [f"r{i}" for i in at],
            "request_id": [f"q{i}" for i in at],
            "event_time_us": self.times_us[at],
            "event_id": rows["tx_id"].to_pylist(),
            "unit": [str(key) for key in rows["customer_id"].to_pylist()],
            "features": list(self.x[at]),
            "positions": [[]] * n,
            "feature_digest": [self.features.digest] * n,
            "score": self.scores[at],
            "decision": ["approve"] * n,
            "degraded": [False] * n,
            "reasons": [[]] * n,
            "latency_us": [900] * n,
            "logged_at_us": self.times_us[at],
            "writer": ["world"] * n,
            "sequence": list(range(n)),
        }
        columns = {field.name: pa.array(values[field.name], field.type) for field in prediction_schema({})}
        for name in ("customer_id", "terminal_id", "amount", "channel"):
            columns[f"request.{name}"] = rows[name].combine_chunks()
        return pa.table(columns)
