"""A folder that stock Feast clients are pointed at: feature_store.yaml, the definitions and, embedded, the registry."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidewheel.adapters.child_processes import python_module
from tidewheel.adapters.connections import Connections, online_store_kind, sqlite_path
from tidewheel.adapters.passwords import password
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.errors import InputError
from tidewheel.whole_file import write_whole

CONFIG_FILE, DEFINITIONS_FILE, REGISTRY_FILE, WRITTEN_FILE = (
    "feature_store.yaml", "definitions.json", "registry.db", "written",
)  # fmt: skip
TIMEOUT_S = 120


@dataclass(frozen=True)
class Writing:
    """A registry that is being written, by a process of its own; ``finish`` waits for it."""

    process: subprocess.Popen[bytes]

    def finish(self) -> str:
        """Empty where it is written, else why it is not."""
        try:
            _, told = self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            return f"nothing within {TIMEOUT_S} s"
        if self.process.returncode:
            lines = told.decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"exit code {self.process.returncode}"
        return ""


def why_not() -> str:
    """Why no registry is written here; empty where one is."""
    if os.environ.get("TIDEWHEEL_FEAST") == "off":
        return "off"
    return "" if importlib.util.find_spec("feast") is not None else "not installed"


def start_writing(
    folder: Path, definitions: Mapping[str, Any], connections: Connections, online_db: Path
) -> Writing | None:
    """Start to write the registry; None where it is as it should be. Raises InputError for a wrong connection."""
    config = feast_config(str(definitions["project"]), connections, online_db).encode()
    body = json.dumps(definitions, indent=1).encode()
    digest = hashlib.sha256(config + b"\0" + body).hexdigest()
    written, registry = folder / WRITTEN_FILE, folder / REGISTRY_FILE
    if written.is_file() and written.read_text() == digest and (connections.feast_registry or registry.is_file()):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG_FILE, config)
    write_whole(folder / DEFINITIONS_FILE, body)
    command = python_module("tidewheel.adapters.feast_registry", str(folder), "--digest", digest)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    return Writing(process)


def feast_config(project: str, connections: Connections, online_db: Path) -> str:
    """feature_store.yaml; Feast puts the environment's variables in when it reads it, so no password is in the file."""
    lines = [f"project: {project}", "provider: local", "entity_key_serialization_version: 3", "registry:"]
    if connections.feast_registry is None:
        lines += [f"  path: {REGISTRY_FILE}"]
    else:
        lines += ["  registry_type: sql", f"  path: {json.dumps(checked_registry(connections.feast_registry))}"]
    lines += ["  cache_ttl_seconds: 60", "online_store:"]
    url = connections.online_store
    if online_store_kind(url) == "sqlite":
        lines += ["  type: sqlite", f"  path: {json.dumps(str(sqlite_path(url, online_db)))}"]
    else:
        assert url is not None
        cluster, connection = _feast_redis(url)
        lines += ["  type: redis", f"  redis_type: {'redis_cluster' if cluster else 'redis'}"]
        lines += [f"  connection_string: {json.dumps(connection)}"]
    return "\n".join([*lines, "offline_store:", "  type: file", ""])


def _feast_redis(url: str) -> tuple[bool, str]:
    """Whether it is a cluster, and Feast's way to say where."""
    address = parse_redis_url(url)
    parts = [f"{host}:{port}" for host, port in address.nodes]
    if address.db:
        parts.append(f"db={address.db}")
    if address.user:
        parts.append(f"username={address.user}")
    if address.user or password("REDIS") is not None:
        parts.append("password=${TIDEWHEEL_REDIS_PASSWORD}")
    if address.tls:
        parts.append("ssl=true")
        files = {"ssl_ca_certs": address.ca, "ssl_certfile": address.cert, "ssl_keyfile": address.key}
        parts += [f"{name}={path}" for name, path in files.items() if path is not None]
    return address.cluster, ",".join(parts)


def checked_registry(url: str) -> str:
    """A SQL registry's URL without a password. Raises InputError."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in ("postgresql", "postgresql+psycopg"):
        raise InputError(
            f"Feast registry {url.partition('@')[2] or url!r}: unknown; allowed: postgresql://[USER@]HOST[:PORT]/DATABASE"
        )
    user, at, where = rest.rpartition("@")
    if at and ":" in user:
        raise InputError(
            f"{scheme}://{user.partition(':')[0]}:***@{where}: a password does not belong in a URL, which is shown and "
            "kept; set PGPASSWORD or PGPASSFILE"
        )
    return f"postgresql+psycopg://{rest}"
