"""The model server as a process: real HTTP, real bundles, kills, swaps under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory.signing import KEY
from memory.tiny import T0_US
from servers.model_server import Rig, bundles, rig, wait_for
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.signature import SigningKey, sign_bundle
from tidewheel.clock import SystemClock
from tidewheel.serving.client import LoadResult, OpenLoop

__all__ = ["bundles", "rig"]  # fixtures

pytestmark = pytest.mark.integration


class Load:
    """An open loop of requests in a thread; never retries."""

    def __init__(self, url: str, rate_rps: float, n: int) -> None:
        body = json.dumps(
            {"inputs": [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [7]}]}
        ).encode()
        self._loop = OpenLoop(url, "/v2/models/tiny/infer", 8, rate_rps, SystemClock())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(iter([body] * n))))

    async def _run(self, bodies: Iterator[bytes]) -> None:
        await self._loop.run(bodies)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join()

    @property
    def result(self) -> LoadResult:
        return self._loop.result


def test_a_server_is_ready_only_when_a_golden_checked_version_serves(rig: Rig) -> None:
    rig.start(ready=False)
    assert rig.get("/v2/health/live")
    assert rig.failure("/v2/health/ready") == (503, {"ready": False, "generation": -1})
    assert rig.failure("infer", b"{}")[0] == 503
    rig.deploy({"4": 1.0})
    wait_for("a refusal", lambda: (told := rig.status().versions.get("4")) and told.state == "failed")
    assert rig.status().versions["4"].reason == "GoldenMismatch"
    assert rig.failure("/v2/health/ready")[0] == 503
    rig.deploy({"1": 1.0})
    rig.served()
    assert rig.get("/v2/health/ready")
    assert rig.ask(amount=290.0)["model_version"] == "1"
    told = json.loads(rig.get("/v2/models/tiny"))["parameters"]
    assert (told["generation"], told["champion"], told["states"]["1"]["features_ready"]) == (2, "1", True)


def test_wrong_bytes_are_refused_and_the_old_version_serves_on(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    model = rig.home.bundles / rig.digests["3"] / "model.onnx"
    data = bytearray(model.read_bytes())
    data[100] ^= 1
    model.write_bytes(bytes(data))
    rig.deploy({"3": 1.0}, warm=("1",))
    wait_for("a refusal", lambda: (told := rig.status().versions.get("3")) and told.state == "failed")
    told = rig.status().versions["3"]
    assert (told.reason, "model.onnx was changed" in told.message) == ("DigestMismatch", True)
    assert rig.ask()["model_version"] == "1"
    assert rig.get("/v2/health/ready")
    assert json.loads(rig.get("/v2/models/tiny"))["parameters"]["states"]["3"]["reason"] == "DigestMismatch"


def test_a_version_without_a_trusted_signature_is_refused_and_loads_once_it_is_signed(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    bundle = rig.home.bundles / rig.digests["3"]
    for reason, prepare in (
        ("SignatureMissing", (bundle / "model.sig").unlink),
        ("SignatureInvalid", lambda: sign_bundle(bundle, rig.digests["3"], SigningKey.make())),
    ):
        prepare()
        rig.deploy({"3": 1.0}, warm=("1",))
        wait_for(reason, lambda reason=reason: (told := rig.status().versions.get("3")) and told.reason == reason)
        assert rig.ask()["model_version"] == "1"
    sign_bundle(bundle, rig.digests["3"], KEY)
    rig.deploy({"3": 1.0}, warm=("1",))
    rig.served()
    assert rig.ask()["model_version"] == "3"


def test_a_model_that_kills_its_parser_is_refused_and_the_server_has_no_part_in_it(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    server = rig.start()
    bundle = rig.home.bundles / rig.digests["3"]
    (bundle / "model.ubj").write_bytes(b"")  # XGBoost 3.2 crashes on it
    digest = write_manifest(bundle)
    sign_bundle(bundle, digest, KEY)
    bundle.rename(rig.home.bundles / digest)
    rig.digests = {**rig.digests, "3": digest}
    rig.deploy({"3": 1.0}, warm=("1",))
    wait_for("a refusal", lambda: (told := rig.status().versions.get("3")) and told.state == "failed")
    told = rig.status().versions["3"]
    assert (told.reason, "the child that parses ended by SIG" in told.message) == ("LoadFailed", True)
    assert (server.poll(), rig.ask()["model_version"]) == (None, "1")
    assert b"xgboost" not in Path(f"/proc/{server.pid}/maps").read_bytes()


def test_a_start_with_a_verdict_does_not_wait_for_the_parser(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    first = rig.start()
    first.terminate()
    first.wait(timeout=15)
    assert [path.name for path in rig.home.verdicts.iterdir()] == [rig.digests["1"]]
    began = time.monotonic()
    rig.start()
    took_s = time.monotonic() - began
    assert rig.ask()["model_version"] == "1"
    print(f"ready after {took_s:.2f} s")
    assert took_s < 5.0  # the figure is 2 s on an idle machine


def test_a_damaged_document_changes_nothing(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    (rig.home.deployments / "tiny.json").write_text('{"project": "tiny"')
    rig.ask()
    (rig.home.deployments / "tiny.json").unlink()
    threading.Event().wait(0.3)
    assert rig.ask()["model_version"] == "1"


def test_versions_swap_under_load_without_a_failed_request(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    with Load(rig.url, rate_rps=300, n=1500) as load:
        for weights, warm in (
            ({"2": 1.0}, ("1",)), ({"1": 1.0}, ("2",)), ({"3": 0.5, "1": 0.5}, ()), ({"3": 1.0}, ("1",)),
        ):  # fmt: skip
            rig.deploy(weights, warm=warm)
            rig.served()
            threading.Event().wait(0.3)
    assert (load.result.n_ok, load.result.n_failed, dict(load.result.errors)) == (1500, 0, {})
    assert {"1", "2", "3"} == set(load.result.versions)


def test_rolling_back_brings_the_old_features_back(rig: Rig) -> None:
    """Version 1 has three features and calls 220 large, version 2 has two and calls 100 large."""
    asked = {"amount": 150.0, "paid_at": T0_US}
    scores = []
    rig.deploy({"1": 1.0})
    rig.start()
    for weights, warm in (({"1": 1.0}, ("2",)), ({"2": 1.0}, ("1",)), ({"1": 1.0}, ("2",))):
        rig.deploy(weights, warm=warm)
        rig.served()
        scores.append(rig.ask(**asked)["score"])
    assert scores[0] == scores[2] != scores[1]
    rows = wait_for("the log", lambda: rows if len(rows := rig.logged()) == 3 else None)
    vectors = {row["version"]: row["features"] for row in rows}
    assert vectors == {"1": [1.0, 150.0, 0.05], "2": [1.0, 0.95]}


def test_a_killed_server_loses_and_doubles_nothing_that_was_acknowledged(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    acknowledged: set[str] = set()
    for _ in range(3):
        server = rig.start()

        def ask_until_dead() -> None:
            with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
                while True:
                    acknowledged.add(rig.ask(amount=9.0)["id"])

        asking = [threading.Thread(target=ask_until_dead) for _ in range(4)]
        before = len(acknowledged)
        for thread in asking:
            thread.start()
        wait_for("some requests", lambda before=before: len(acknowledged) > before + 150)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        for thread in asking:
            thread.join()
    torn = sorted((rig.home.spool / "tiny-0").glob("*.spool"))
    if torn:
        with torn[-1].open("ab") as file:
            file.write(b"\x40\x00\x00\x00half a record")
    last = rig.start()
    wait_for("recovery", lambda: not list((rig.home.spool / "tiny-0").glob("*.spool")))
    ids = [row["request_id"] for row in rig.logged()]
    assert not acknowledged - set(ids)
    assert len(ids) == len(set(ids))
    last.terminate()
    assert last.wait(timeout=15) == 0


def test_sigterm_drains_flushes_the_log_and_exits_0(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    server = rig.start()
    asked = {rig.ask()["id"] for _ in range(5)}
    server.terminate()
    assert server.wait(timeout=15) == 0
    assert {row["request_id"] for row in rig.logged()} == asked
    assert not (rig.home.server_status / "tiny-0.json").exists()


def test_replicas_share_the_port_and_one_may_leave_gracefully(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    first = rig.start(0)
    rig.start(1)
    with Load(rig.url, rate_rps=200, n=600) as load:
        threading.Event().wait(0.8)
        first.terminate()
        assert first.wait(timeout=15) == 0
    assert (load.result.n_ok, dict(load.result.errors)) == (600, {})


def test_a_shadow_scores_every_request_and_callers_see_the_champion(rig: Rig) -> None:
    rig.deploy({"1": 1.0}, shadow=("2",))
    rig.start()
    wait_for("the shadow", lambda: rig.status().versions["2"].state == "ready")
    threading.Event().wait(0.3)
    assert {rig.ask(customer)["model_version"] for customer in range(20)} == {"1"}
    rows = wait_for("the log", lambda: rows if len(rows := rig.logged()) >= 40 else None)
    roles = {role: {row["request_id"] for row in rows if row["role"] == role} for role in ("champion", "shadow")}
    assert roles["champion"] == roles["shadow"]
    assert {(row["role"], row["version"], row["generation"]) for row in rows} == {
        ("champion", "1", 1),
        ("shadow", "2", 1),
    }


def test_faults_are_typed_and_the_server_goes_on(rig: Rig) -> None:
    rig.deploy({"1": 1.0}, warm=("2",))
    rig.start()
    wait_for("both versions", lambda: rig.status().versions["2"].state == "ready")
    threading.Event().wait(0.3)
    assert rig.ask(path="versions/2/infer")["model_version"] == "2"
    assert rig.failure("versions/9/infer", b"{}")[0] == 404
    assert rig.failure("/v2/models/other/infer", b"{}")[0] == 404
    assert rig.failure("infer")[0] == 405
    assert rig.failure("infer", b"{}") == (
        400,
        {"error": "body: not a request of the Open Inference Protocol v2: Object missing required field `inputs`"},
    )
    assert rig.ask()["model_version"] == "1"
    assert b"tidewheel_request_latency_seconds_bucket" in rig.get("/metrics")


def test_a_body_that_lies_about_its_length_is_cut_off(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    with socket.create_connection(("127.0.0.1", rig.port), timeout=10) as raw:
        raw.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        assert b" 413 " in raw.recv(1000)
    with socket.create_connection(("127.0.0.1", rig.port), timeout=10) as raw:
        raw.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(17):  # one over the limit: what a server leaves unread resets the connection
                raw.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert b" 413 " in raw.recv(1000)
    assert rig.ask()["model_version"] == "1"


def test_without_its_online_store_a_server_answers_degraded(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    assert rig.ask(7, amount=9.0, paid_at=T0_US)["degraded"] is False
    for path in rig.home.root.glob("online.db*"):
        path.write_bytes(b"not a database any more" * 1000)
    reply = wait_for("degraded replies", lambda: r if (r := rig.ask(8, amount=290.0, paid_at=T0_US))["degraded"] else 0)
    assert (reply["reasons"], reply["model_version"]) == ("FeaturesUnavailable;FeatureDefaults", "1")
    assert rig.ask(7, amount=9.0, paid_at=T0_US)["reasons"] == "FeaturesUnavailable;LastGood"
    assert rig.get("/v2/health/ready")
