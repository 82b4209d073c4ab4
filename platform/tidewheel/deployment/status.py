"""What a model server replica says about itself: one JSON file, written by the server, read by the controller."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

LoadState = Literal["loading", "ready", "failed"]


@dataclass(frozen=True)
class VersionStatus:
    """One version in one server. ``ready`` means verified and golden-checked; ``features_ready`` means that every
    state it reads is caught up; ``reason`` is a findings reason where it failed."""

    digest: str
    state: LoadState
    reason: str = ""
    message: str = ""
    features_ready: bool = False


@dataclass(frozen=True)
class ServerStatus:
    """One replica. ``generation`` is that of the document it serves, -1 before the first."""

    project: str
    pid: int
    replica: int
    port: int
    generation: int
    written_at_us: int
    versions: Mapping[str, VersionStatus] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def status_from_json(data: bytes) -> ServerStatus:
    """Parse a status; raises ValueError, KeyError or TypeError where it is not one."""
    body = json.loads(data)
    versions = {version: VersionStatus(**state) for version, state in body.pop("versions").items()}
    return ServerStatus(versions=versions, **body)
