"""Where a Kafka cluster is: by URL, plain or TLS, with or without a user; the password comes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.adapters.server_url import FILES, ServerKind, parse_server_url, servers_text
from tidewheel.errors import InputError

SCHEMES = ("kafka", "kafkas")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
OPTIONS = (*FILES, "mechanism", "partitions", "replicas")
DEFAULT_PORT = 9092
DEFAULT_PARTITIONS = 6
FORMS = (
    "kafka://[USER@]HOST:PORT,HOST:PORT, kafkas://... for TLS with ?ca=FILE (and ?cert=FILE&key=FILE); "
    "?mechanism=SCRAM-SHA-512, ?partitions=6, ?replicas=3"
)
_KIND = ServerKind("Kafka", "kafka", SCHEMES, OPTIONS, DEFAULT_PORT, FORMS)


@dataclass(frozen=True)
class KafkaAddress:
    """``nodes`` are where to ask first; the cluster says itself which brokers it has."""

    nodes: tuple[tuple[str, int], ...]
    tls: bool = False
    user: str | None = None
    mechanism: str = MECHANISMS[0]
    ca: Path | None = None  # certificates to trust; the system's where None
    cert: Path | None = None  # the client's own, where the cluster asks for one
    key: Path | None = None
    partitions: int = DEFAULT_PARTITIONS  # of a topic that is made
    replicas: int | None = None  # of a topic that is made; the cluster's default where None

    def __str__(self) -> str:
        """The URL without options; there is nothing secret in it."""
        user = f"{self.user}@" if self.user else ""
        return f"{'kafkas' if self.tls else 'kafka'}://{user}{self.servers}"

    @property
    def servers(self) -> str:
        return servers_text(self.nodes)

    def settings(self, password: str | None) -> dict[str, Any]:
        """What every client of librdkafka needs."""
        protocol = ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")
        settings: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "security.protocol": protocol,
            "client.id": "tidewheel",
            "socket.timeout.ms": 10_000,
            "socket.connection.setup.timeout.ms": 5_000,
            "reconnect.backoff.max.ms": 1_000,
            # Errors reach the caller as errors; librdkafka's own lines would mix with ours.
            "log_level": 0,
        }
        if self.user:
            settings |= {"sasl.mechanism": self.mechanism, "sasl.username": self.user, "sasl.password": password or ""}
        names = {"ssl.ca.location": self.ca, "ssl.certificate.location": self.cert, "ssl.key.location": self.key}
        return settings | {name: str(path) for name, path in names.items() if path is not None}


def parse_kafka_url(url: str) -> KafkaAddress:
    """Raises InputError, which never repeats a password."""
    found = parse_server_url(url, _KIND)
    if found.path:
        raise InputError(f"{url}: /{found.path} has no meaning here; topics are named by the project's sources")
    mechanism = found.options.get("mechanism", MECHANISMS[0])
    if mechanism not in MECHANISMS:
        raise InputError(f"{url}: unknown mechanism {mechanism!r}; allowed: {', '.join(MECHANISMS)}")
    if found.user and mechanism == "PLAIN" and not found.tls:
        raise InputError(f"{url}: PLAIN sends the password readable; write kafkas instead of kafka")
    partitions = _number(found.options, "partitions", url) or DEFAULT_PARTITIONS
    replicas = _number(found.options, "replicas", url)
    return KafkaAddress(
        found.nodes, found.tls, found.user, mechanism, **found.files, partitions=partitions, replicas=replicas
    )


def _number(options: Mapping[str, str], name: str, url: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise InputError(f"{url}: {name} is a number from 1 to 10000 (got {text!r})")
    return int(text)
