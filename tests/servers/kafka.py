"""A real Kafka broker on loopback for tests: one node, KRaft, plain or with TLS and a user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from servers.mlflow import free_port
from servers.redis import make_certificate
from waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent
USER, PASSWORD = "tidewheel", "not-told-anyone"
CLUSTER_ID = "dGlkZXdoZWVsLXRlc3RzLQ"  # 22 characters of base64: 16 bytes


@dataclass
class KafkaServer:
    """A running broker; ``stop`` and ``start`` keep its ports and its files."""

    folder: Path
    port: int
    ca: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    _admin: list[AdminClient] = field(default_factory=list)

    @property
    def url(self) -> str:
        if self.ca is not None:
            return f"kafkas://{USER}@127.0.0.1:{self.port}?ca={self.ca}&mechanism=PLAIN"
        return f"kafka://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a plain client of the test's own needs."""
        settings = {"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": "0"}
        if self.ca is not None:
            settings |= {
                "security.protocol": "SASL_SSL", "ssl.ca.location": str(self.ca), "sasl.mechanism": "PLAIN",
                "sasl.username": USER, "sasl.password": PASSWORD,
            }  # fmt: skip
        return settings

    def admin(self) -> AdminClient:
        if not self._admin:
            self._admin.append(AdminClient(self.settings))
        return self._admin[0]

    def topic(self, n_partitions: int = 1, name: str | None = None, **config: str) -> str:
        """A topic of its own for a test."""
        name = name or f"t-{uuid4().hex[:12]}"
        made = self.admin().create_topics([NewTopic(name, n_partitions, 1, config=config)], request_timeout=20)
        made[name].result(20)
        return name

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*java(), "kafka.Kafka", str(self.folder / "server.properties")],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        until(self._answers, limit_s=90)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "broker.log").read_text()[-3000:]
        try:
            return bool(self.admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=10)


def jars() -> Path:
    """Where infra/test-servers puts them."""
    return Path(os.environ.get("TIDEWHEEL_CACHE") or Path.home() / ".cache" / "tidewheel") / "kafka"


def need_kafka() -> None:
    if shutil.which("java") is None or not (jars() / ".ready").is_file():
        pytest.skip(f"Kafka is not in {jars()} or java is missing; install it by 'make test-servers'")


def java() -> list[str]:
    """A small machine that starts fast; a broker of a few topics needs no more."""
    return ["java", "-Xmx300m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            "-Dlog4j2.level=WARN", "-cp", f"{jars()}/*"]  # fmt: skip


@contextmanager
def kafka_server(folder: Path, secure: bool = False, more: str = "") -> Iterator[KafkaServer]:
    """A broker whose files are under ``folder``; gone afterwards. ``more``: further lines of its properties."""
    need_kafka()
    folder.mkdir(parents=True, exist_ok=True)
    server = KafkaServer(folder, free_port())
    protocol = "PLAINTEXT"
    if secure:
        server.ca, key = make_certificate(folder)
        (folder / "server.pem").write_text(key.read_text() + server.ca.read_text())
        protocol, more = "SASL_SSL", f"{more}\n{_secure(folder)}"
    template = (ROOT / "infra" / "kafka" / "server.properties.template").read_text()
    properties = folder / "server.properties"
    properties.write_text(
        template.format(
            port=server.port, controller_port=free_port(), folder=folder / "data", protocol=protocol, more=more
        )
    )
    formatted = [*java(), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
    done = subprocess.run(formatted, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _secure(folder: Path) -> str:
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required username="{USER}" password="{PASSWORD}"'
    return (
        f"ssl.keystore.type=PEM\nssl.keystore.location={folder / 'server.pem'}\n"
        f"ssl.truststore.type=PEM\nssl.truststore.location={folder / 'server.crt'}\n"
        "listener.name.broker.sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
        f'listener.name.broker.plain.sasl.jaas.config={login} user_{USER}="{PASSWORD}";\n'
    )


if __name__ == "__main__":
    with kafka_server(Path(sys.argv[1]).absolute()) as running:
        print(running.url, flush=True)
        Event().wait()
