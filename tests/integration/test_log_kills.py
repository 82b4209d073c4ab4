"""No prediction that a caller was told of is lost, and none is counted twice, whoever is killed whenever.

TIDEWHEEL_KILLS kills of the server and its shipper, at random moments.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import subprocess
import threading

import psutil
import pyarrow.parquet as pq
import pytest

from servers.model_server import Rig, bundles, rig, wait_for
from tidewheel.serving.prediction_log import CLOSED_SUFFIX, OPEN_SUFFIX

__all__ = ["bundles", "rig"]  # fixtures
pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("TIDEWHEEL_KILLS", "10"))


class Caller(threading.Thread):
    """Asks one request after the other on one connection and never again; keeps the ids of those that were answered."""

    def __init__(self, rig: Rig, name: str) -> None:
        super().__init__(daemon=True)
        self._rig, self._name = rig, name
        self.answered: list[str] = []
        self.end = threading.Event()

    def run(self) -> None:
        number, connection = 0, http.client.HTTPConnection("127.0.0.1", self._rig.port, timeout=5)
        while not self.end.is_set():
            number += 1
            request_id = f"{self._name}-{number}"
            inputs = [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [number % 9]}]
            try:
                connection.request("POST", "/v2/models/tiny/infer", json.dumps({"id": request_id, "inputs": inputs}))
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self.end.wait(0.02)
                continue
            if answer.status == 200 and json.loads(body)["id"] == request_id:
                self.answered.append(request_id)


def shipper_of(server: subprocess.Popen[bytes]) -> psutil.Process | None:
    try:
        children = psutil.Process(server.pid).children()
        return next((one for one in children if "tidewheel.apps.log_shipper" in one.cmdline()), None)
    except psutil.Error:
        return None


def test_kills_lose_and_double_nothing_that_was_acknowledged(rig: Rig) -> None:
    chance = random.Random(5)
    rig.deploy({"1": 1.0})
    server = rig.start()
    callers = [Caller(rig, f"caller{number}") for number in range(4)]
    for caller in callers:
        caller.start()
    kills = {"server": 0, "shipper": 0}
    while sum(kills.values()) < KILLS:
        threading.Event().wait(chance.uniform(0.0, 1.5))
        if chance.random() < 0.5 and (shipper := shipper_of(server)) is not None:
            shipper.kill()
            kills["shipper"] += 1
        else:
            server.kill()
            server.wait()
            kills["server"] += 1
            server = rig.start()
    before = sum(len(caller.answered) for caller in callers)
    wait_for("more answers", lambda: sum(len(caller.answered) for caller in callers) > before + 20)
    for caller in callers:
        caller.end.set()
        caller.join(20)
    acknowledged = [request_id for caller in callers for request_id in caller.answered]
    server.terminate()
    assert server.wait(timeout=60) == 0
    table = pq.read_table(rig.home.lake / "predictions" / "tiny")
    assert min(kills.values()) > 0
    assert len(acknowledged) > 50 * kills["server"]
    assert set(acknowledged) - set(table["request_id"].to_pylist()) == set(), "lost"
    records = table["record_id"].to_pylist()
    assert len(records) == len(set(records)), "twice in the lake"
    print(f"{kills} kills, {len(acknowledged)} acknowledged, {len(records)} in the lake")


def test_a_sink_that_is_down_costs_no_caller_anything_and_loses_nothing(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    (rig.home.lake).mkdir(parents=True)
    (rig.home.lake / "predictions").write_text("a file where the folder should be")
    server = rig.start()
    caller = Caller(rig, "caller")
    caller.start()
    wait_for("a failure of the shipper", lambda: failures(rig) > 0)
    wait_for("answers", lambda: len(caller.answered) > 100)
    assert rig.status().counters["log_lost"] == 0
    (rig.home.lake / "predictions").unlink()
    wait_for("the log", lambda: len(rig.logged()) > 100)
    caller.end.set()
    caller.join(20)
    server.terminate()
    assert server.wait(timeout=60) == 0
    ids = [row["request_id"] for row in rig.logged()]
    assert set(caller.answered) <= set(ids)
    assert len(ids) == len(set(ids))


def failures(rig: Rig) -> float:
    lines = rig.get("/metrics").decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if "prediction_log_ship_failures_total{" in line)


def test_what_a_server_left_that_was_never_started_again_is_shipped_by_its_neighbour(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    first = rig.start(0)
    asked = {rig.ask(number)["id"] for number in range(30)}
    first.kill()
    first.wait()
    rig.start(1)
    wait_for("the log", lambda: {row["request_id"] for row in rig.logged()} >= asked)
    left = [path for path in (rig.home.spool / "tiny-0").iterdir() if path.suffix in (OPEN_SUFFIX, CLOSED_SUFFIX)]
    assert left == []


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount a small file system")
def test_a_full_spool_fails_no_caller_and_counts_what_it_loses(rig: Rig) -> None:
    spool = rig.home.spool
    spool.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(spool)], check=True)
    try:
        rig.deploy({"1": 1.0})
        rig.home.lake.mkdir(parents=True)
        (rig.home.lake / "predictions").write_text("nothing can be shipped")
        server = rig.start()
        caller = Caller(rig, "caller")
        caller.start()
        wait_for("a full disk", lambda: rig.status().counters["log_lost"] > 0)
        answered = len(caller.answered)
        wait_for("answers all the same", lambda: len(caller.answered) > answered + 20)
        (rig.home.lake / "predictions").unlink()
        written = rig.status().counters["log_written"]
        wait_for("the log to go on", lambda: rig.status().counters["log_written"] > written + 20)
        caller.end.set()
        caller.join(20)
        server.terminate()
        assert server.wait(timeout=60) == 0
        rows = rig.logged()
        sequences = sorted(row["sequence"] for row in rows)
        gaps = sequences[-1] + 1 - len(sequences)
        missing = set(caller.answered) - {row["request_id"] for row in rows}
        assert gaps == len(missing) > 0, "what is missing is what the numbers say"
    finally:
        for one in rig.servers:
            one.kill()
            one.wait()
        subprocess.run(["umount", "-l", str(spool)], check=True)
