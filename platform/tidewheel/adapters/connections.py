"""What a connection URL stands for; passwords come from the environment, never from a URL or a file of ours."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.redis_url import SCHEMES, parse_redis_url
from tidewheel.errors import InputError
from tidewheel.features.ports import OnlineStore
from tidewheel.whole_file import write_whole

ONLINE_STORE_FORMS = "sqlite:PATH, redis://HOST:PORT/DB, rediss://..., redis+cluster://HOST:PORT,HOST:PORT"


@dataclass(frozen=True)
class Connections:
    """What a home is connected to, by URL; None is the home's own files. ``tidewheel up`` keeps them."""

    online_store: str | None = None
    event_log: str | None = None
    feast_registry: str | None = None


def read_connections(home: LocalHome) -> Connections:
    """What was kept, all None before that. Raises InputError where the file is damaged."""
    try:
        body = json.loads(home.connections.read_bytes())
        return Connections(**body)
    except FileNotFoundError:
        return Connections()
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{home.connections}: damaged ({error}); remove it and name the connections again: tidewheel up --help"
        ) from error


def write_connections(home: LocalHome, connections: Connections) -> None:
    home.root.mkdir(parents=True, exist_ok=True)
    write_whole(home.connections, json.dumps(asdict(connections), indent=1).encode())


def open_online_store(home: LocalHome) -> OnlineStore:
    """The store that the home is connected to. Raises InputError for a URL that cannot be used, Unavailable where the
    store is damaged."""
    return online_store_at(read_connections(home).online_store, home.online_db)


def online_store_at(url: str | None, default: Path) -> OnlineStore:
    """The store at ``url``; where that is None the SQLite file ``default``. A client library is imported only where
    the URL asks for it."""
    if online_store_kind(url) == "sqlite":
        from tidewheel.adapters.sqlite_store import SqliteOnlineStore

        return SqliteOnlineStore(sqlite_path(url, default))
    assert url is not None
    address = parse_redis_url(url)
    try:
        from tidewheel.adapters.redis_store import RedisOnlineStore
    except ModuleNotFoundError as error:
        raise InputError(f"{address}: {error.name} is not installed; install tidewheel[online]") from error
    return RedisOnlineStore(address, password("REDIS"))


def has_online_store(home: LocalHome) -> bool:
    """False where nothing was ever written: the SQLite file is not there yet."""
    url = read_connections(home).online_store
    return online_store_kind(url) != "sqlite" or sqlite_path(url, home.online_db).is_file()


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
    """The URL as it is kept: usable from any folder, nothing secret in it. Raises InputError."""
    if online_store_kind(url) == "redis":
        parse_redis_url(url)
        return url
    if not url.startswith("sqlite:") or url == "sqlite:":
        raise InputError(f"online store {url!r}: a path is missing; allowed: {ONLINE_STORE_FORMS}")
    return f"sqlite:{Path(url.removeprefix('sqlite:')).absolute()}"


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
