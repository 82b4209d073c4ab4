"""Where a Kafka cluster is: by URL, plain or TLS, with or without a user; the password comes from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tidewheel.errors import InputError

SCHEMES = ("kafka", "kafkas")
FILES = ("ca", "cert", "key")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
OPTIONS = (*FILES, "mechanism", "partitions", "replicas")
DEFAULT_PORT = 9092
DEFAULT_PARTITIONS = 6
FORMS = (
    "kafka://[USER@]HOST:PORT,HOST:PORT, kafkas://... for TLS with ?ca=FILE (and ?cert=FILE&key=FILE); "
    "?mechanism=SCRAM-SHA-512, ?partitions=6, ?replicas=3"
)


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
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)

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
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise InputError(f"{parts.scheme or url!r}: not a Kafka URL; allowed: {FORMS}")
    user, _, nodes = parts.netloc.rpartition("@")
    if ":" in user:
        shown = f"{parts.scheme}://{user.partition(':')[0]}:***@{nodes}"
        raise InputError(f"{shown}: a password does not belong in a URL, which is shown and kept; "
                         "set TIDEWHEEL_KAFKA_PASSWORD or TIDEWHEEL_KAFKA_PASSWORD_FILE")  # fmt: skip
    if parts.path.strip("/"):
        raise InputError(f"{url}: {parts.path} has no meaning here; topics are named by the project's sources")
    tls = parts.scheme == "kafkas"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise InputError(f"{url}: unknown option {', '.join(unknown)}; allowed: {', '.join(OPTIONS)}")
    files = {name: Path(options[name]) for name in FILES if name in options}
    if files and not tls:
        raise InputError(f"{url}: {', '.join(files)} need TLS; write kafkas instead of kafka")
    if ("cert" in files) != ("key" in files):
        raise InputError(f"{url}: cert and key go together")
    relative = [name for name, path in files.items() if not path.is_absolute()]
    if relative:
        raise InputError(f"{url}: {', '.join(relative)} must be a whole path, which starts with /")
    mechanism = options.get("mechanism", MECHANISMS[0])
    if mechanism not in MECHANISMS:
        raise InputError(f"{url}: unknown mechanism {mechanism!r}; allowed: {', '.join(MECHANISMS)}")
    if user and mechanism == "PLAIN" and not tls:
        raise InputError(f"{url}: PLAIN sends the password readable; write kafkas instead of kafka")
    found = tuple(_node(node, url) for node in nodes.split(","))
    partitions = _number(options, "partitions", url) or DEFAULT_PARTITIONS
    replicas = _number(options, "replicas", url)
    return KafkaAddress(found, tls, unquote(user) or None, mechanism, **files, partitions=partitions, replicas=replicas)


def _node(node: str, url: str) -> tuple[str, int]:
    host, colon, port = node.rpartition(":")
    if not colon or node.endswith("]"):
        host, port = node, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{url}: {node!r} is no HOST:PORT; allowed: {FORMS}")
    return host.strip("[]"), int(port)


def _number(options: dict[str, str], name: str, url: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise InputError(f"{url}: {name} is a number from 1 to 10000 (got {text!r})")
    return int(text)
