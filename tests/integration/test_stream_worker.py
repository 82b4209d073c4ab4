"""The stream worker as a process: killed at random, fed rubbish, given new features, it ends with the same values."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidewheel.adapters.duckdb_features import DuckDbFeatures
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.bundle.manifest import write_manifest
from tidewheel.features.events import validate_events
from tidewheel.features.lake import lake_end, source_paths
from tidewheel.features.load import load_features
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.spec.load import load_project
from tidewheel.whole_file import write_whole
from unit.features.samples import FEATURES, MINUTE_US, SPEC, START_US, labels_table, payments_table, profiles_table

pytestmark = pytest.mark.integration

N = 6_000
ROUNDS = 5
TABLES = {"payments": payments_table, "labels": labels_table, "profiles": profiles_table}


def apply(home: LocalHome, features: str = FEATURES, spec: str = SPEC) -> Path:
    """What `tidewheel apply` leaves behind."""
    scratch = home.root / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "project.yaml").write_text(spec)
    (scratch / "features.py").write_text(features)
    (scratch / "MANIFEST.json").unlink(missing_ok=True)
    digest = write_manifest(scratch)
    target = home.projects / digest
    home.projects.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        scratch.rename(target)
    write_whole(home.root / "applied" / "sample.json", json.dumps({"digest": digest}).encode())
    return target


@contextmanager
def worker(home: LocalHome) -> Iterator[subprocess.Popen[bytes]]:
    log = (home.root / "worker.log").open("ab")
    command = [sys.executable, "-m", "tidewheel.apps.stream_worker", "--home", str(home.root)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.close()


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {limit_s} s"
        time.sleep(0.02)


def events() -> dict[str, pa.Table]:
    """Out of order, with duplicates of other content: the first arrival must win."""
    rng = random.Random(7)
    made: dict[str, list[dict[str, object]]] = {"payments": [], "labels": [], "profiles": []}
    for i in range(N):
        at = START_US + round((i + rng.uniform(-40, 0)) * 0.05 * MINUTE_US)
        base = {"card": f"card-{rng.randrange(50)}", "shop": rng.randrange(20), "t": at, "id": f"p{i}"}
        made["payments"].append(
            {
                **base,
                "amount": rng.uniform(1, 100),
                "channel": rng.choice(["online", "shop"]),
                "items": rng.randrange(4),
            }
        )
        if i % 10 == 0:
            made["payments"].append({**made["payments"][rng.randrange(len(made["payments"]))], "amount": 1e6})
        made["labels"].append({**base, "is_fraud": rng.random() < 0.1})
        if i % 20 == 0:
            made["profiles"].append({"card": base["card"], "t": at, "age": i % 90, "vip": i % 2 == 0})
    return {name: TABLES[name](rows) for name, rows in made.items()}


def states_of(home: LocalHome, code: Path) -> dict[str, int]:
    features = load_features(code, load_project(code))
    store = SqliteOnlineStore(home.online_db)
    told = store.progress(features.states)
    store.close()
    return {state_id: partitions[0].position for state_id, partitions in told.items()}


def n_started(home: LocalHome) -> int:
    return (home.root / "worker.log").read_text().count(" started ")


def caught_up(home: LocalHome, code: Path) -> bool:
    log, project = FileEventLog(home.event_log), load_project(code)
    features = load_features(code, project)
    positions = states_of(home, code)
    return all(positions.get(state.state_id) == log.end(state.topic, 0) for state in features.states) and all(
        lake_end(folder) == log.end(name, 0) for name, folder in source_paths(home.lake, project).items()
    )


def test_killed_at_random_it_ends_with_the_same_values_and_the_same_lake(tmp_path):
    home = LocalHome(tmp_path / "home")
    code = apply(home)
    project = load_project(code)
    features = load_features(code, project)
    log = FileEventLog(home.event_log)
    tables = events()
    rng = random.Random(3)
    starts = dict.fromkeys(tables, 0)
    n_kills = 0
    while any(starts[name] < tables[name].num_rows for name in tables):
        with worker(home) as process:
            wait_for(lambda n=n_kills: n_started(home) == n + 1, "the worker's start")
            until = time.monotonic() + rng.uniform(0.02, 0.8)
            stops = {name: starts[name] + table.num_rows // ROUNDS + 1 for name, table in tables.items()}
            while time.monotonic() < until or any(starts[name] < stops[name] for name in tables):
                for name, table in tables.items():
                    size = min(rng.randrange(1, 400), stops[name] - starts[name])
                    log.append(name, validate_events(table.slice(starts[name], size), name, project).good)
                    starts[name] += size
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            n_kills += 1
    assert n_kills == ROUNDS
    with worker(home) as process:
        # A worker that is ended before it has started ends by the signal, not in order.
        wait_for(lambda: n_started(home) == n_kills + 1, "the worker's start")
        wait_for(lambda: caught_up(home, code), "the end of the log")
        process.terminate()
        assert process.wait(timeout=10) == 0

    for name, folder in source_paths(home.lake, project).items():
        parts = sorted(folder.glob("*.parquet"))
        offsets = np.concatenate([pq.ParquetFile(part).read(["_offset"]).column(0).to_numpy() for part in parts])
        assert offsets.tolist() == list(range(tables[name].num_rows)), name

    asked = tables["payments"].slice(tables["payments"].num_rows - 300)
    offline = DuckDbFeatures().compute(features, project, asked, source_paths(home.lake, project))
    store = SqliteOnlineStore(home.online_db)
    normal = validate_events(asked, "payments", project).good
    t_us = normal.column("at").cast(pa.int64()).to_numpy()
    online = FeatureReader(features, store).read(request_arrays(normal, features), t_us).values
    store.close()
    for index, name in enumerate(features.names):
        want = offline.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        np.testing.assert_allclose(online[:, index], want, rtol=1e-9, atol=1e-6, err_msg=name)


def test_a_new_declaration_is_picked_up_and_filled_from_the_start(tmp_path):
    home = LocalHome(tmp_path / "home")
    code = apply(home)
    project = load_project(code)
    log = FileEventLog(home.event_log)
    for name, table in events().items():
        log.append(name, validate_events(table, name, project).good)
    with worker(home) as process:
        wait_for(lambda: caught_up(home, code), "the end of the log")
        newer = apply(home, FEATURES.replace('windows=["10m", "1h"]', 'windows=["10m", "1h", "2h"]'))
        assert newer != code
        wait_for(lambda: caught_up(home, newer), "the backfill of the new state")
        assert len(states_of(home, newer).keys() - states_of(home, code).keys()) == 1
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_rubbish_in_the_log_is_set_aside_and_never_stops_the_rest(tmp_path):
    home = LocalHome(tmp_path / "home")
    code = apply(home)
    project = load_project(code)
    log = FileEventLog(home.event_log)
    good = validate_events(events()["payments"].slice(0, 10), "payments", project).good
    log.append("payments", good)
    log.append("payments", pa.table({"nonsense": [1, 2, 3]}))
    log.append("payments", good)
    (home.event_log / "payments" / f"{10:020d}.arrow.left").write_bytes(b"not ours")
    with worker(home) as process:
        wait_for(lambda: caught_up(home, code), "the end of the log")
        process.terminate()
        assert process.wait(timeout=10) == 0
    kept = [pq.ParquetFile(part).read().num_rows for part in sorted((home.lake / "payments").glob("*.parquet"))]
    aside = sorted((home.lake / "_rejected" / "payments").glob("*.parquet"))
    assert (sum(kept), sum(pq.ParquetFile(part).read().num_rows for part in aside)) == (20, 3)
    assert "are missing" in pq.ParquetFile(aside[0]).read().column("reason")[0].as_py()
    assert "events_rejected" in (home.root / "worker.log").read_text()


def test_an_idle_worker_says_every_second_that_it_is_alive(tmp_path):
    home = LocalHome(tmp_path / "home")
    code = apply(home)
    features = load_features(code, load_project(code))
    with worker(home) as process:
        store = SqliteOnlineStore(home.online_db)
        states = features.states
        wait_for(lambda: len(store.progress(states)) == len(states), "the first heartbeat")
        before = store.progress(states)
        time.sleep(1.2)
        after = store.progress(states)
        reader = FeatureReader(features, store)
        assert all(after[one][0].heartbeat_us > before[one][0].heartbeat_us for one in after)
        assert reader.caught_up()
        now_us = max(progress[0].heartbeat_us for progress in after.values())
        assert (reader.stale_views(now_us), reader.stale_views(now_us + 10_000_000)) == ((), ("card",))
        process.terminate()
        assert process.wait(timeout=10) == 0
        store.close()


def test_a_second_worker_waits_until_the_first_is_gone(tmp_path):
    home = LocalHome(tmp_path / "home")
    apply(home)
    with worker(home) as first:
        wait_for(lambda: n_started(home) == 1, "the first worker")
        with worker(home) as second:
            time.sleep(1.0)
            assert n_started(home) == 1
            first.kill()
            wait_for(lambda: n_started(home) == 2, "the second worker")
            second.terminate()
            assert second.wait(timeout=10) == 0
