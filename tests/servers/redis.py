"""Real Redis servers on loopback for tests: plain, with TLS and users, and a cluster of three."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from servers.mlflow import free_port
from waiting import until

USER, PASSWORD = "tidewheel", "not-told-anyone"
# What docs/how-to/connect-redis.md tells to allow.
ALLOWED = (
    "+hmget +hgetall +hget +hset +hdel +del +ttl +expire +evalsha +script|load +scan +info +select "
    "+cluster|slots +asking"
)
N_SLOTS = 16384


@dataclass
class RedisServer:
    """A running server; ``stop`` and ``start`` keep its port."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    password: str | None = None
    ca: Path | None = None

    @property
    def url(self) -> str:
        if self.ca is not None:
            return f"rediss://{USER}@127.0.0.1:{self.port}/0?ca={self.ca}"
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        """A plain client of the test's own; as the default user."""
        tls = {} if self.ca is None else {"ssl": True, "ssl_ca_certs": str(self.ca)}
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=10, **tls)

    def start(self) -> None:
        command = ["redis-server", "--dir", str(self.folder), "--save", "", "--bind", "127.0.0.1", *self.options]
        if self.ca is None:
            command += ["--port", str(self.port)]
        with (self.folder / f"redis-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until(self._answers, limit_s=30)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / f"redis-{self.port}.log").read_text()[-2000:]
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)
            self.process.wait(timeout=10)


def need_redis() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; install it by 'make test-servers'")


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server without persistence whose files are under ``folder``; gone afterwards."""
    need_redis()
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, free_port(), options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def secure_redis_server(folder: Path) -> Iterator[RedisServer]:
    """TLS alone, a certificate of the test's own, and a user who may do only what tidewheel needs."""
    need_redis()
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = make_certificate(folder)
    port = free_port()
    users = folder / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser {USER} on >{PASSWORD} ~* {ALLOWED}\n")
    options = (
        "--port", "0", "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
        "--tls-auth-clients", "no", "--aclfile", str(users),
    )  # fmt: skip
    server = RedisServer(folder, port, options, password=PASSWORD, ca=certificate)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "server.crt", folder / "server.key"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tidewheel test",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@contextmanager
def redis_cluster(folder: Path, n_nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Primaries that share all slots; the first one's address is enough to find the others."""
    need_redis()
    with ExitStack() as stack:
        nodes, buses = [], []
        for number in range(n_nodes):
            buses.append(free_port())
            home = folder / f"node-{number}"
            options = ("--cluster-enabled", "yes", "--cluster-port", str(buses[-1]), "--cluster-node-timeout", "5000")
            nodes.append(stack.enter_context(redis_server(home, *options)))
        for number, node in enumerate(nodes):
            first, last = number * N_SLOTS // n_nodes, (number + 1) * N_SLOTS // n_nodes - 1
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, buses[0])
        until(lambda: all(_complete(node, n_nodes) for node in nodes))
        yield nodes


def _complete(node: RedisServer, n_nodes: int) -> bool:
    with node.client() as client:
        told = client.execute_command("CLUSTER INFO")
        told = told if isinstance(told, dict) else dict(line.split(":") for line in told.decode().split())
        return told["cluster_state"] == "ok" and int(told["cluster_known_nodes"]) == n_nodes


def cluster_url(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes[:2])
