"""What every protocol of a server shares: who answers, what may be asked, and what a fault is called."""

from __future__ import annotations

import hmac
import itertools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidewheel import __version__
from tidewheel.apps.model_server.versions import Versions
from tidewheel.clock import Clock
from tidewheel.errors import InputError, NotFound, TidewheelError, Unavailable, naming
from tidewheel.serving.coalescer import Coalescer
from tidewheel.serving.columns import Accepted
from tidewheel.serving.metrics import ServingMetrics
from tidewheel.serving.protocols import oip
from tidewheel.serving.protocols.assemble import Call
from tidewheel.serving.protocols.openapi import openapi_of
from tidewheel.serving.request import BadRequest, Overloaded, PredictReply, PredictRequest, TooLarge
from tidewheel.serving.snapshot import Snapshot

MAX_BODY_BYTES = 1 << 20
OUR_FAULT = "the server could not answer; its log says why"
_MAX_TIMEOUT_MS = 3_600_000


class Unauthenticated(TidewheelError):
    """No API key, or none that is known (401)."""


@dataclass(frozen=True)
class Fault:
    """How a fault is told: HTTP status, gRPC code by name, and after how long to come back where that helps."""

    status: int
    code: str
    retry_after_s: int | None = None


def fault_of(error: TidewheelError) -> Fault:
    """The one table of faults, for all protocols."""
    if isinstance(error, BadRequest):
        return Fault(400, "INVALID_ARGUMENT")
    if isinstance(error, Unauthenticated):
        return Fault(401, "UNAUTHENTICATED")
    if isinstance(error, NotFound):
        return Fault(404, "NOT_FOUND")
    if isinstance(error, TooLarge):
        return Fault(413, "RESOURCE_EXHAUSTED")
    if isinstance(error, Overloaded):
        return Fault(503, "RESOURCE_EXHAUSTED", error.retry_after_s)
    return Fault(503, "UNAVAILABLE", 1)


class ApiKeys:
    """The keys that callers may use: one per line of a file, so that one can follow another."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    @classmethod
    def of(cls, path: Path) -> ApiKeys:
        """Raises InputError where the file holds no key, OSError where it cannot be read."""
        with naming(path):
            lines = [line.strip() for line in path.read_bytes().splitlines()]
        keys = [line for line in lines if line]
        if not keys:
            raise InputError(f"{path}: holds no API key; write one per line")
        return cls(keys)

    def check(self, authorization: bytes) -> None:
        """Raises Unauthenticated. Takes the same time whichever key is wrong, and wherever."""
        kind, _, got = authorization.partition(b" ")
        known = [hmac.compare_digest(got.strip(), key) for key in self._keys]
        if kind.lower() != b"bearer" or not any(known):
            raise Unauthenticated("authorization: a known API key is needed; send 'Authorization: Bearer KEY'")


def timeout_us_of(value: bytes) -> int:
    """``x-request-timeout-ms`` in microseconds. Raises BadRequest."""
    if value.isdigit() and len(value) <= 9 and 0 < int(value) <= _MAX_TIMEOUT_MS:
        return int(value) * 1000
    raise BadRequest(
        f"x-request-timeout-ms: must be a whole number of 1 to {_MAX_TIMEOUT_MS} (got {value.decode('latin-1')[:20]!r})"
    )


class Endpoint:
    """One project's server as a caller sees it, whatever protocol the caller speaks. On the event loop."""

    def __init__(
        self,
        project: str,
        versions: Versions,
        coalescer: Coalescer,
        metrics: ServingMetrics,
        clock: Clock,
        keys: ApiKeys | None = None,
    ) -> None:
        self.project, self.versions, self.metrics, self.clock, self.keys = project, versions, metrics, clock, keys
        self._coalescer = coalescer
        self._ids = itertools.count()
        self._id_prefix = os.urandom(6).hex()
        self.draining = False

    @property
    def ready(self) -> bool:
        return self.versions.snapshot is not None and not self.draining

    def serving(self) -> Snapshot:
        """What is served. Raises Unavailable before there is anything."""
        snapshot = self.versions.snapshot
        if snapshot is None:
            raise Unavailable(f"{self.project}: no version serves yet; ask /v2/models/{self.project} for why")
        return snapshot

    def accepted(self, snapshot: Snapshot, pinned: str | None) -> Accepted:
        """What may be asked. Raises NotFound where the version that the caller names is not loaded."""
        found = snapshot.accepted.get(pinned or snapshot.document.champion or "")
        if found is None:
            raise NotFound(f"version {pinned!r} is not loaded; loaded are {', '.join(sorted(snapshot.versions))}")
        return found

    def call(self, arrived_us: int, pinned: str | None, timeout_us: int | None) -> Call:
        """A request's circumstances."""
        new_id = f"{self._id_prefix}-{next(self._ids):x}"
        return Call(new_id, self.clock.now_us(), arrived_us, pinned, timeout_us)

    async def predict(self, request: PredictRequest, snapshot: Snapshot) -> PredictReply:
        return await self._coalescer.submit(request, snapshot)

    def model_ready(self, version: str | None) -> bool:
        """Raises NotFound where the document does not name the version."""
        if version is None:
            return self.ready
        statuses = self.versions.statuses()
        if version not in statuses:
            raise NotFound(f"version {version!r} is not loaded; loaded are {', '.join(sorted(statuses)) or 'none'}")
        return statuses[version].state == "ready"

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of what is served now."""
        snapshot = self.versions.snapshot
        accepted = snapshot.accepted[snapshot.document.champion or ""] if snapshot else None
        return openapi_of(self.project, accepted, __version__)

    def metadata(self, version: str | None) -> dict[str, object]:
        """Model metadata with what is served and why something is not. Raises NotFound as ``model_ready`` does."""
        self.model_ready(version)
        snapshot, statuses = self.versions.snapshot, self.versions.statuses()
        told: dict[str, Any] = {"name": self.project, "versions": list(statuses), "platform": "tidewheel"}
        told |= {"inputs": [], "outputs": []}
        accepted = None
        if snapshot is not None:
            accepted = snapshot.accepted.get(version or "") or snapshot.accepted[snapshot.document.champion or ""]
            told = oip.metadata(self.project, accepted, list(statuses))
        document = snapshot.document if snapshot else None
        told["parameters"] = {
            "generation": document.generation if document else -1,
            "champion": document.champion if document else None,
            "weights": dict(document.weights) if document else {},
            "shadow": list(document.shadow) if document else [],
            "features": list(accepted.features) if accepted else [],
            "states": {name: asdict(state) for name, state in statuses.items()},
        }
        return told
