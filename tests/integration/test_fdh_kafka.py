"""The handbook's published features, out of Kafka by the stream worker and back out of Redis.

Events are sent a few days at a time and their requests read with the state as it then is: a state forgets what a later
event no longer needs. Two partitions keyed by customer, so the view by terminal reads what is keyed anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, TopicPartition

from integration.test_fdh_parity import SMALL, WHOLE, mismatches
from servers.redis import redis_server
from tidewheel.adapters.connections import Connections, open_event_log, open_online_store, write_connections
from tidewheel.adapters.local_home import LocalHome
from tidewheel.bundle.manifest import write_manifest
from tidewheel.features.events import validate_events
from tidewheel.features.load import load_features
from tidewheel.features.reader import FeatureReader
from tidewheel.features.rows import request_arrays
from tidewheel.features.topics import message_keys, project_topics, topic_read_by
from tidewheel.spec.load import load_project
from tidewheel.whole_file import write_whole
from waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.data, pytest.mark.timeout(1800)]

N_PARTITIONS = 2
EVERYTHING = "TIDEWHEEL_TEST_WHOLE_STREAM"
AT_ONCE_DAYS = 5  # what a request may be older than its entity's newest event


def apply(home: LocalHome, repository: Path, prefix: str) -> Path:
    """What `tidewheel apply` leaves behind: the project of the other engines, its topic keyed by customer."""
    given = repository / "tests" / "data" / "fdh_project"
    spec = (given / "project.yaml").read_text()
    topic = f"topic: {prefix}\n    key: customer\n    allowed_lateness: {AT_ONCE_DAYS}d"
    scratch = home.root / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "project.yaml").write_text(spec.replace("topic: fdh.transactions", topic))
    (scratch / "features.py").write_text((given / "features.py").read_text())
    digest = write_manifest(scratch)
    home.projects.mkdir(parents=True)
    scratch.rename(home.projects / digest)
    write_whole(home.root / "applied" / "fdh.json", json.dumps({"digest": digest}).encode())
    return home.projects / digest


@contextmanager
def worker(home: LocalHome) -> Iterator[None]:
    with (home.root / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "tidewheel.apps.stream_worker", "--home", str(home.root)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


class Ends:
    """Whether everything that was sent is in the states."""

    def __init__(self, topics: dict[str, str], source: str, log: Any, store: Any, states: Any, settings: Any) -> None:
        self._topics, self._source, self._log, self._store, self._states = topics, source, log, store, states
        self._groups = {
            topic: Consumer({**settings, "group.id": topic}) for topic in topics.values() if topic != source
        }

    def reached(self) -> bool:
        for group in self._groups.values():  # keyed anew up to here
            places = group.committed([TopicPartition(self._source, p) for p in range(N_PARTITIONS)], timeout=20)
            if any(max(one.offset, 0) < self._log.end(self._source, one.partition) for one in places):
                return False
        told = self._store.progress(self._states)
        return all(
            p in told.get(state_id, {}) and told[state_id][p].position >= self._log.end(topic, p)
            for state_id, topic in self._topics.items() for p in range(N_PARTITIONS)
        )  # fmt: skip

    def close(self) -> None:
        for group in self._groups.values():
            group.close()


@pytest.mark.parametrize("files", [pytest.param(SMALL, id="small fixture"), pytest.param(WHOLE, id="all 1.1 million")])
def test_the_worker_recomputes_every_published_feature_from_kafka(kafka, real_data, repository, tmp_path, files):
    if files is WHOLE and EVERYTHING not in os.environ:
        pytest.skip(f"takes minutes; set {EVERYTHING}=1")
    folder, home, prefix = real_data / "fdh", LocalHome(tmp_path / "home"), f"fdh-{uuid4().hex[:8]}"
    code = apply(home, repository, prefix)
    project = load_project(code)
    features = load_features(code, project)
    raw, golden = pq.read_table(folder / files[0]), pq.read_table(folder / files[1])
    days = raw.column("TX_TIME_DAYS").cast(pa.int64()).to_numpy()
    found = []
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(tmp_path / "redis"))
        url = f"{kafka.url}?partitions={N_PARTITIONS}"
        write_connections(home, Connections(online_store=server.url, event_log=url))
        log = open_event_log(home, keys=message_keys(project))
        stack.callback(log.close)
        log.make_topics(dict.fromkeys(project_topics(project)))
        store = open_online_store(home)
        stack.callback(store.close)
        topics = {state.state_id: topic_read_by(state, project, N_PARTITIONS) for state in features.states}
        assert len(set(topics.values())) == 2  # one view reads the source, the other what is keyed anew
        ends = Ends(topics, prefix, log, store, features.states, kafka.settings)
        stack.callback(ends.close)
        reader = FeatureReader(features, store)
        stack.enter_context(worker(home))
        for first in range(0, int(days.max()) + 1, AT_ONCE_DAYS):
            some = raw.filter(pa.array((days >= first) & (days < first + AT_ONCE_DAYS)))
            good = validate_events(some, "transactions", project).good
            log.append(prefix, good)
            until(ends.reached, limit_s=120)
            t_us = good.column("TX_DATETIME").cast(pa.int64()).to_numpy()
            for start in range(0, good.num_rows, 20_000):
                part = good.slice(start, 20_000)
                got = reader.read(request_arrays(part, features), t_us[start : start + 20_000])
                found.append(got.values)
    values = np.concatenate(found)
    out = pa.table(
        {
            "TRANSACTION_ID": raw.column("TRANSACTION_ID"),
            **{name: values[:, i] for i, name in enumerate(features.names)},
        }
    )
    assert mismatches(out, golden, folder) == dict.fromkeys(golden.column_names[1:], 0)
