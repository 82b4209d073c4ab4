"""What every protocol of a server shares: who answers, what may be asked, and what a fault is called."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidewheel import __version__
from tidewheel.apps.model_server.explainer import Explainer
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


class MeshClients:
    """Clients by the identity that a service mesh proved with mutual TLS and wrote into ``x-forwarded-client-cert``.

    Only for servers that nobody reaches but through the mesh's proxy, which removes the header where a caller sent it.
    """

    HEADER = b"x-forwarded-client-cert"

    def __init__(self, identities: Sequence[bytes]) -> None:
        self._identities = frozenset(identities)

    @classmethod
    def of(cls, path: Path) -> MeshClients:
        """Identities, such as spiffe://cluster.local/ns/shop/sa/checkout, one per line. Raises InputError, OSError."""
        with naming(path):
            lines = [line.strip() for line in path.read_bytes().splitlines()]
        identities = [line for line in lines if line]
        if not identities:
            raise InputError(f"{path}: holds no client identity; write one per line")
        return cls(identities)

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """By the URI of the last element, which the nearest proxy wrote. Source: Envoy, HTTP header manipulation."""
        nearest = headers.get(self.HEADER, b"").rpartition(b",")[2]
        said = dict(part.strip().partition(b"=")[::2] for part in nearest.split(b";"))
        return said.get(b"URI", b"").strip(b'"') in self._identities


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
        explainer: Explainer,
        metrics: ServingMetrics,
        clock: Clock,
        keys: ApiKeys | None = None,
        clients: MeshClients | None = None,
    ) -> None:
        self.project, self.versions, self.metrics, self.clock, self.keys = project, versions, metrics, clock, keys
        self.clients = clients
        self._coalescer, self._explainer = coalescer, explainer
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

    @property
    def generation(self) -> int:
        """Of the document that is served, -1 before the first."""
        snapshot = self.versions.snapshot
        return snapshot.document.generation if snapshot else -1

    def call(self, arrived_us: int, pinned: str | None, timeout_us: int | None, request_id: str = "") -> Call:
        """A request's circumstances; ``request_id`` counts where its body has none."""
        new_id = request_id or f"{self._id_prefix}-{next(self._ids):x}"
        return Call(new_id, self.clock.now_us(), arrived_us, pinned, timeout_us)

    def predict(self, request: PredictRequest, snapshot: Snapshot) -> asyncio.Future[PredictReply]:
        """Raises Overloaded."""
        return self._coalescer.submit(request, snapshot)

    async def explained(self, future: asyncio.Future[PredictReply], snapshot: Snapshot) -> PredictReply:
        """The reply with what each feature added to its score. Raises Unavailable, Overloaded where too many ask."""
        reply = await future
        if reply.vectors is None:
            raise Unavailable("contributions: no model scored these rows, or several versions did; ask for one row")
        version = snapshot.versions[reply.explained_by]
        reply.contributions = await self._explainer.explain(version, reply.vectors)
        return reply

    @property
    def guarded(self) -> bool:
        """Whether callers must say who they are."""
        return self.keys is not None or self.clients is not None

    def check_caller(self, headers: Mapping[bytes, bytes]) -> None:
        """A known key, or a client that the mesh vouches for. Raises Unauthenticated."""
        if self.clients is not None and self.clients.knows(headers):
            return
        if self.keys is None:
            raise Unauthenticated("the caller's certificate is not among those that may ask")
        self.keys.check(headers.get(b"authorization", b""))

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
