"""Where a Redis is: one server or a cluster, plain or TLS, by URL; the password comes from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidewheel.adapters.server_url import FILES, ServerKind, parse_server_url, servers_text
from tidewheel.errors import InputError

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379
FORMS = (
    "redis://[USER@]HOST[:PORT][/DB], rediss://... for TLS with ?ca=FILE (and ?cert=FILE&key=FILE), "
    "redis+cluster://HOST:PORT,HOST:PORT, rediss+cluster://..."
)
_KIND = ServerKind("Redis", "redis", SCHEMES, FILES, DEFAULT_PORT, FORMS)


@dataclass(frozen=True)
class RedisAddress:
    """``nodes`` are where to ask first; a cluster says itself which nodes it has."""

    nodes: tuple[tuple[str, int], ...]
    cluster: bool = False
    db: int = 0
    user: str | None = None
    tls: bool = False
    ca: Path | None = None  # certificates to trust; the system's where None
    cert: Path | None = None  # the client's own, where the server asks for one
    key: Path | None = None

    def __str__(self) -> str:
        """The URL without what is secret: there is nothing secret in it."""
        scheme = ("rediss" if self.tls else "redis") + ("+cluster" if self.cluster else "")
        user = f"{self.user}@" if self.user else ""
        return f"{scheme}://{user}{servers_text(self.nodes)}" + (f"/{self.db}" if self.db else "")


def parse_redis_url(url: str) -> RedisAddress:
    """Raises InputError, which never repeats a password."""
    found = parse_server_url(url, _KIND)
    cluster = found.scheme.endswith("+cluster")
    if len(found.nodes) > 1 and not cluster:
        raise InputError(f"{url}: several servers are a cluster; write {found.scheme}+cluster://")
    return RedisAddress(found.nodes, cluster, _db(found.path, cluster, url), found.user, found.tls, **found.files)


def _db(text: str, cluster: bool, url: str) -> int:
    if not text:
        return 0
    if cluster:
        raise InputError(f"{url}: a cluster has no numbered databases (got /{text})")
    if not text.isdecimal():
        raise InputError(f"{url}: the database is a number (got {text!r}); allowed: {FORMS}")
    return int(text)
