"""What a connection URL stands for; passwords come from the environment, never from a URL or a file of ours."""

from __future__ import annotations

import os
from pathlib import Path

from tidewheel.adapters.redis_url import SCHEMES, parse_redis_url
from tidewheel.errors import InputError
from tidewheel.features.ports import OnlineStore

ONLINE_STORE_FORMS = "sqlite:PATH, redis://HOST:PORT/DB, rediss://..., redis+cluster://HOST:PORT,HOST:PORT"


def open_online_store(url: str | None, default: Path) -> OnlineStore:
    """The store at ``url``; where that is None the SQLite file ``default``. A client library is imported only where
    the URL asks for it. Raises InputError for a URL that cannot be used, Unavailable where the store is damaged."""
    kind, path = online_store_kind(url), sqlite_path(url, default)
    if kind == "sqlite":
        from tidewheel.adapters.sqlite_store import SqliteOnlineStore

        return SqliteOnlineStore(path)
    assert url is not None
    address = parse_redis_url(url)
    try:
        from tidewheel.adapters.redis_store import RedisOnlineStore
    except ModuleNotFoundError as error:
        raise InputError(f"{address}: {error.name} is not installed; install tidewheel[online]") from error
    return RedisOnlineStore(address, password("REDIS"))


def online_store_kind(url: str | None) -> str:
    """sqlite or redis. Raises InputError for any other URL."""
    scheme = (url or "sqlite").partition(":")[0]
    if scheme == "sqlite":
        return "sqlite"
    if scheme in SCHEMES:
        return "redis"
    raise InputError(f"online store {url!r}: unknown; allowed: {ONLINE_STORE_FORMS}")


def sqlite_path(url: str | None, default: Path) -> Path:
    text = (url or "").removeprefix("sqlite:")
    return Path(text) if text and text != url else default


def checked_online_store(url: str) -> str:
    """The URL where it can be used and says nothing secret. Raises InputError."""
    if online_store_kind(url) == "redis":
        parse_redis_url(url)
    elif not url.startswith("sqlite:") or url == "sqlite:":
        raise InputError(f"online store {url!r}: a path is missing; allowed: {ONLINE_STORE_FORMS}")
    return url


def password(server: str) -> str | None:
    """TIDEWHEEL_<server>_PASSWORD, or what the file TIDEWHEEL_<server>_PASSWORD_FILE says. Raises InputError."""
    name = f"TIDEWHEEL_{server}_PASSWORD"
    path = os.environ.get(f"{name}_FILE")
    if path is None:
        return os.environ.get(name)
    try:
        return Path(path).read_text().rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{name}_FILE: {path} cannot be read ({error.strerror})") from error
