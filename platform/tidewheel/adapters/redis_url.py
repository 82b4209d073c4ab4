"""Where a Redis is: one server or a cluster, plain or TLS, by URL; the password comes from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tidewheel.errors import InputError

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
OPTIONS = ("ca", "cert", "key")
DEFAULT_PORT = 6379
FORMS = (
    "redis://[USER@]HOST[:PORT][/DB], rediss://... for TLS with ?ca=FILE (and ?cert=FILE&key=FILE), "
    "redis+cluster://HOST:PORT,HOST:PORT, rediss+cluster://..."
)


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
        nodes = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        return f"{scheme}://{user}{nodes}" + (f"/{self.db}" if self.db else "")


def parse_redis_url(url: str) -> RedisAddress:
    """Raises InputError, which never repeats a password."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise InputError(f"{parts.scheme or url!r}: not a Redis URL; allowed: {FORMS}")
    user, _, nodes = parts.netloc.rpartition("@")
    if ":" in user:
        shown = f"{parts.scheme}://{user.partition(':')[0]}:***@{nodes}"
        raise InputError(f"{shown}: a password does not belong in a URL, which is shown and kept; "
                         "set TIDEWHEEL_REDIS_PASSWORD or TIDEWHEEL_REDIS_PASSWORD_FILE")  # fmt: skip
    cluster, tls = parts.scheme.endswith("+cluster"), parts.scheme.startswith("rediss")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise InputError(f"{url}: unknown option {', '.join(unknown)}; allowed: {', '.join(OPTIONS)}")
    if options and not tls:
        raise InputError(f"{url}: {', '.join(options)} need TLS; write rediss instead of redis")
    if ("cert" in options) != ("key" in options):
        raise InputError(f"{url}: cert and key go together")
    found = tuple(_node(node, url) for node in nodes.split(","))
    if len(found) > 1 and not cluster:
        raise InputError(f"{url}: several servers are a cluster; write {parts.scheme}+cluster://")
    files = {name: Path(options[name]) for name in OPTIONS if name in options}
    relative = [name for name, path in files.items() if not path.is_absolute()]
    if relative:
        raise InputError(f"{url}: {', '.join(relative)} must be a whole path, which starts with /")
    return RedisAddress(found, cluster, _db(parts.path, cluster, url), unquote(user) or None, tls, **files)


def _node(node: str, url: str) -> tuple[str, int]:
    host, colon, port = node.rpartition(":")
    if not colon or node.endswith("]"):
        host, port = node, str(DEFAULT_PORT)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{url}: {node!r} is no HOST:PORT; allowed: {FORMS}")
    return host.strip("[]"), int(port)


def _db(path: str, cluster: bool, url: str) -> int:
    text = path.strip("/")
    if not text:
        return 0
    if cluster:
        raise InputError(f"{url}: a cluster has no numbered databases (got /{text})")
    if not text.isdecimal():
        raise InputError(f"{url}: the database is a number (got {text!r}); allowed: {FORMS}")
    return int(text)
