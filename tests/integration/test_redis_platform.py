"""The platform on Redis: the worker and its store are both killed at random, and commands find the store by its URL."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from integration.test_stream_worker import apply, events, worker
from servers.redis import redis_server
from tidewheel.adapters.connections import Connections, open_online_store, write_connections
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_home import LocalHome
from tidewheel.clock import SystemClock
from tidewheel.errors import Unavailable
from tidewheel.features.declaration import FeatureSet, RequestView
from tidewheel.features.events import validate_events
from tidewheel.features.load import load_features
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.features.stream import StateKeeper
from tidewheel.spec.load import load_project
from waiting import until

pytestmark = pytest.mark.integration

ROUNDS = 8


def tidewheel(*arguments: str, code: int = 0) -> dict[str, Any]:
    line = [sys.executable, "-m", "tidewheel", *arguments, "--output", "json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stderr
    body: dict[str, Any] = json.loads(done.stdout) if code == 0 else {"error": done.stderr}
    return body


def caught_up(home: LocalHome, log: FileEventLog, features: FeatureSet) -> bool:
    store = open_online_store(home)
    try:
        told = store.progress(features.states)
        ends = {state.state_id: log.end(state.topic, 0) for state in features.states}
        return all(state_id in told and told[state_id][0].position == end for state_id, end in ends.items())
    except Unavailable:
        return False
    finally:
        store.close()


def test_worker_and_redis_killed_at_random_end_with_the_same_values(tmp_path: Path):
    home = LocalHome(tmp_path / "home")
    code = apply(home)
    project = load_project(code)
    features = load_features(code, project)
    log, tables, chance = FileEventLog(home.event_log), events(), random.Random(17)
    sent = dict.fromkeys(tables, 0)
    with redis_server(tmp_path / "redis") as server:  # keeps nothing when it is killed
        write_connections(home, Connections(online_store=server.url))
        for number in range(ROUNDS):
            with worker(home):
                send(log, tables, sent, project, chance.random())
                if chance.random() < 0.5 or number == ROUNDS - 1:
                    until(lambda: caught_up(home, log, features))
                # All that was kept goes, while the worker goes on and gets more events.
                if number % 2:
                    server.stop(9)
                    server.start()
                else:
                    server.client().flushall()
                send(log, tables, sent, project, 1.0)
                if chance.random() < 0.5:
                    until(lambda: made_progress(home, features))
                if number == ROUNDS - 1:  # no later loss makes good what this one does
                    until(lambda: caught_up(home, log, features))
        while any(sent[name] < table.num_rows for name, table in tables.items()):
            send(log, tables, sent, project, 1.0)
        with worker(home):
            until(lambda: caught_up(home, log, features))
        store = open_online_store(home)
        asked = tables["payments"].slice(tables["payments"].num_rows - 300)
        found = read(features, project, store, asked)
        store.close()
    plain = LocalHome(tmp_path / "plain")
    store = open_online_store(plain)
    for view in features.views:
        if not isinstance(view, RequestView):
            keeper = StateKeeper(view, 0, log, store, SystemClock(), lambda *_, **__: None)
            while keeper.step():
                pass
    np.testing.assert_array_equal(found, read(features, project, store, asked))
    store.close()
    assert np.isfinite(found).any(axis=0).all()


def send(log: FileEventLog, tables: dict[str, pa.Table], sent: dict[str, int], project: Any, share: float) -> None:
    """The next events of each source; all of a round's by a share of 1."""
    for name, table in tables.items():
        size = int(share * table.num_rows / ROUNDS / 2) + 1
        log.append(name, validate_events(table.slice(sent[name], size), name, project).good)
        sent[name] += min(size, table.num_rows - sent[name])


def made_progress(home: LocalHome, features: FeatureSet) -> bool:
    store = open_online_store(home)
    try:
        return len(store.progress(features.states)) == len(features.states)
    except Unavailable:
        return False
    finally:
        store.close()


def read(features: FeatureSet, project: Any, store: Any, asked: pa.Table) -> np.ndarray:
    normal = validate_events(asked, "payments", project).good
    t_us = normal.column("at").cast(pa.int64()).to_numpy()
    return FeatureReader(features, store).read(request_arrays(normal, features), t_us).values


def test_the_platform_runs_on_the_redis_that_up_names(tmp_path: Path):
    project = tmp_path / "card-fraud"
    tidewheel("new", "card-fraud", "--into", str(project))
    script = [sys.executable, str(project / "generate.py"), "--out", str(tmp_path / "data"), "--days", "12"]
    subprocess.run([*script, "--customers", "60", "--terminals", "90"], check=True, capture_output=True, timeout=60)
    with redis_server(tmp_path / "redis") as server:
        wrong = "redis://svc:hunter2@127.0.0.1"
        assert "hunter2" not in tidewheel("up", str(project), "--online-store", wrong, code=1)["error"]
        tidewheel("up", str(project), "--online-store", server.url)
        try:
            sources = [f"--source={n}={tmp_path / 'data' / n}.parquet" for n in ("transactions", "labels", "profiles")]
            tidewheel("ingest", str(project), *sources, "--wait")
            told = tidewheel("status", str(project))
            assert told["connections"]["online_store"] == server.url
            assert told["as_of"] is not None
            assert server.client().dbsize() > 60  # an entity each, and progress
            assert not LocalHome.of(project).online_db.exists()
            error = tidewheel("up", str(project), "--online-store", "redis://127.0.0.1:1", code=1)["error"]
            assert "the platform runs with other connections; run 'tidewheel down' first" in " ".join(error.split())
        finally:
            tidewheel("down", str(project))
