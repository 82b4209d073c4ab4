"""Real model servers of the tiny project, started and stopped by the tests."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from memory.tiny import OTHER_FEATURES_PY, caught_up, place_bundle
from servers.mlflow import free_port
from tidewheel.adapters.local_cluster import LocalCluster
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.clock import SystemClock
from tidewheel.deployment.document import DeploymentDocument, Variant
from tidewheel.deployment.status import ServerStatus
from tidewheel.features.load import load_features
from tidewheel.features.stream import no_rows
from tidewheel.spec.load import load_project

BANDS = {"approve": 0.0, "review": 0.5, "decline": 0.9}
WAIT_S = 30.0


def wait_for(what: str, happened: Any) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if answer := happened():
            return answer
        threading.Event().wait(0.02)
    raise AssertionError(f"waited {WAIT_S:g} s in vain for {what}")


@dataclass(frozen=True)
class Answered:
    """An answer over HTTP, whatever its status."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Rig:
    """One home with bundles 1 to 4 (4 has a wrong golden score) and servers that the test starts."""

    home: LocalHome
    digests: dict[str, str]
    port: int
    generation: int = 0
    grpc_port: int = 0
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(
        self, replica: int = 0, *arguments: object, ready: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "tidewheel.apps.model_server", "--home", str(self.home.root), "--project", "tiny",
            "--replica", str(replica), "--port", str(self.port), *(str(one) for one in arguments),
        ]  # fmt: skip
        with (self.home.root / f"server-{replica}.log").open("ab") as log:
            server = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
        self.servers.append(server)
        path = self.home.server_status / f"tiny-{replica}.json"
        wait_for("a status", lambda: path.is_file() and json.loads(path.read_bytes())["pid"] == server.pid)
        if ready:
            wait_for("readiness", lambda: self.status(replica).generation == self.generation)
        return server

    def status(self, replica: int = 0) -> ServerStatus:
        found = LocalCluster(self.home).server_status("tiny")
        return next(status for status in found if status.replica == replica)

    def deploy(
        self, weights: dict[str, float], *, shadow: tuple[str, ...] = (), warm: tuple[str, ...] = (), **digests: str
    ) -> None:
        self.generation += 1
        names = sorted({*weights, *shadow, *warm})
        variants = tuple(Variant(name, {**self.digests, **digests}[name], BANDS) for name in names)
        champion = list(weights)[-1] if weights else None
        LocalCluster(self.home).write_document(
            DeploymentDocument("tiny", self.generation, "customer_id", "s", champion, variants, weights, shadow, warm)
        )

    def served(self) -> None:
        wait_for("the document", lambda: self.status().generation == self.generation)

    def ask(self, customer: int = 7, path: str = "infer", **columns: Any) -> dict[str, Any]:
        kinds = {"amount": "FP64", "channel": "BYTES", "payment_id": "BYTES", "paid_at": "INT64"}
        inputs = [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [customer]}]
        inputs += [{"name": n, "shape": [1], "datatype": kinds[n], "data": [v]} for n, v in columns.items()]
        body = json.dumps({"inputs": inputs}).encode()
        answer = json.loads(self.get(path, body))
        return {"id": answer["id"], **{output["name"]: output["data"][0] for output in answer["outputs"]}}

    def get(self, path: str, body: bytes | None = None) -> bytes:
        url = f"{self.url}{path}" if path.startswith("/") else f"{self.url}/v2/models/tiny/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            data: bytes = answer.read()
            return data

    def send(self, method: str, path: str, body: bytes | str | object = b"", **headers: str) -> Answered:
        """Any request, to a path from the root; a body that is neither bytes nor text is sent as JSON."""
        if not isinstance(body, bytes | str):
            body = json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, names)
            answer = connection.getresponse()
            return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def failure(self, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        with pytest.raises(urllib.error.HTTPError) as error:
            self.get(path, body)
        return error.value.code, json.loads(error.value.read())

    def logged(self) -> list[dict[str, Any]]:
        folder = self.home.lake / "predictions" / "tiny"
        return pq.read_table(folder).to_pylist() if list(folder.glob("part-*.parquet")) else []


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder, scratch = tmp_path_factory.mktemp("template") / "bundles", tmp_path_factory.mktemp("scratch")
    return folder, {
        "1": place_bundle(folder, scratch / "1", seed=1),
        "2": place_bundle(folder, scratch / "2", seed=2, features=OTHER_FEATURES_PY),
        "3": place_bundle(folder, scratch / "3", seed=3),
        "4": place_bundle(folder, scratch / "4", seed=4, wrong_golden=True),
    }


@contextmanager
def rig_at(folder: Path, bundles: tuple[Path, dict[str, str]]) -> Iterator[Rig]:
    """A home in ``folder`` with the bundles and states that are caught up; its servers end with the block."""
    home = LocalHome(folder)
    shutil.copytree(bundles[0].parent, folder, dirs_exist_ok=True)
    store = SqliteOnlineStore(home.online_db)
    for digest in bundles[1].values():
        bundle = home.bundles / digest
        for state in load_features(bundle, load_project(bundle)).states:
            store.write(state, 0, no_rows(state), caught_up(SystemClock().now_us() + 3_600_000_000))
    store.close()
    made = Rig(home, bundles[1], free_port())
    try:
        yield made
    finally:
        for server in made.servers:
            server.kill()
            server.wait()


@pytest.fixture
def rig(tmp_path: Path, bundles: tuple[Path, dict[str, str]]) -> Iterator[Rig]:
    with rig_at(tmp_path, bundles) as made:
        yield made
