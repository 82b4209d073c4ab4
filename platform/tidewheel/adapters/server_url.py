"""What URLs of servers have in common: user, hosts and files for TLS. The password comes from elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tidewheel.errors import InputError

FILES = ("ca", "cert", "key")

Nodes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ServerKind:
    """``name`` as people say it; ``scheme`` is plain, and TLS with an ``s`` behind it."""

    name: str
    scheme: str
    schemes: Collection[str]
    options: Collection[str]
    default_port: int
    forms: str


@dataclass(frozen=True)
class ServerUrl:
    """A URL taken apart; ``options`` are those that are no files."""

    scheme: str
    user: str | None
    nodes: Nodes
    path: str
    tls: bool
    files: Mapping[str, Path]
    options: Mapping[str, str]


def parse_server_url(url: str, kind: ServerKind) -> ServerUrl:
    """Raises InputError, which never repeats a password."""
    parts = urlsplit(url)
    if parts.scheme not in kind.schemes:
        raise InputError(f"{parts.scheme or url!r}: not a {kind.name} URL; allowed: {kind.forms}")
    user, _, nodes = parts.netloc.rpartition("@")
    if ":" in user:
        shown = f"{parts.scheme}://{user.partition(':')[0]}:***@{nodes}"
        variable = f"TIDEWHEEL_{kind.name.upper()}_PASSWORD"
        raise InputError(
            f"{shown}: a password does not belong in a URL, which is shown and kept; set {variable} or {variable}_FILE"
        )
    tls = parts.scheme.startswith(f"{kind.scheme}s")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = [name for name in options if name not in kind.options]
    if unknown:
        raise InputError(f"{url}: unknown option {', '.join(unknown)}; allowed: {', '.join(kind.options)}")
    files = {name: Path(options.pop(name)) for name in FILES if name in options}
    if files and not tls:
        raise InputError(f"{url}: {', '.join(files)} need TLS; write {kind.scheme}s instead of {kind.scheme}")
    if ("cert" in files) != ("key" in files):
        raise InputError(f"{url}: cert and key go together")
    relative = [name for name, path in files.items() if not path.is_absolute()]
    if relative:
        raise InputError(f"{url}: {', '.join(relative)} must be a whole path, which starts with /")
    found = tuple(_node(node, url, kind) for node in nodes.split(","))
    return ServerUrl(parts.scheme, unquote(user) or None, found, parts.path.strip("/"), tls, files, options)


def servers_text(nodes: Nodes) -> str:
    """HOST:PORT,HOST:PORT, an IPv6 address in brackets."""
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in nodes)


def _node(node: str, url: str, kind: ServerKind) -> tuple[str, int]:
    host, colon, port = node.rpartition(":")
    if not colon or node.endswith("]"):
        host, port = node, str(kind.default_port)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{url}: {node!r} is no HOST:PORT; allowed: {kind.forms}")
    return host.strip("[]"), int(port)
