"""What a connection URL stands for. In a pod the environment names the URLs, on one machine the home keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidewheel.adapters.kafka_url import SCHEMES as KAFKA_SCHEMES
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.passwords import password
from tidewheel.adapters.redis_url import SCHEMES, parse_redis_url
from tidewheel.errors import InputError
from tidewheel.features.ports import EventLog, FetchingStore, OnlineStore
from tidewheel.whole_file import write_whole

if TYPE_CHECKING:
    import asyncio

    from tidewheel.features.json_events import Decoder

ONLINE_STORE_FORMS = "sqlite:PATH, redis://HOST:PORT/DB, rediss://..., redis+cluster://HOST:PORT,HOST:PORT"
VARIABLES = {
    "online_store": "TIDEWHEEL_ONLINE_STORE",
    "event_log": "TIDEWHEEL_EVENT_LOG",
    "feast_registry": "TIDEWHEEL_FEAST_REGISTRY",
}
EVENT_LOG_FORMS = "file:PATH, kafka://HOST:PORT,HOST:PORT, kafkas://..."


@dataclass(frozen=True)
class Connections:
    """What a home is connected to, by URL; None is the home's own files. ``tidewheel up`` keeps them."""

    online_store: str | None = None
    event_log: str | None = None
    feast_registry: str | None = None


def read_connections(home: LocalHome) -> Connections:
    """What was kept, all None before that; TIDEWHEEL_ONLINE_STORE and its like, where they are set, instead of it.

    Raises InputError where the file is damaged or a variable names nothing that can be used.
    """
    named = {name: os.environ[variable] for name, variable in VARIABLES.items() if os.environ.get(variable)}
    if named:
        store, log = named.get("online_store"), named.get("event_log")
        return Connections(
            store and checked_online_store(store), log and checked_event_log(log), named.get("feast_registry")
        )
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


def open_fetching_store(home: LocalHome, loop: asyncio.AbstractEventLoop) -> FetchingStore:
    """The same store for reads that do not wait. One Redis is read on the loop itself, the others by threads."""
    url = read_connections(home).online_store
    if online_store_kind(url) == "redis":
        assert url is not None
        address = parse_redis_url(url)
        if not address.cluster:
            try:
                from tidewheel.adapters.redis_fetch import RedisFetcher
            except ModuleNotFoundError as error:
                raise InputError(f"{address}: {error.name} is not installed; install tidewheel[online]") from error
            fetcher = RedisFetcher(address, password("REDIS"), loop)
            fetcher.open()
            return fetcher
    from tidewheel.adapters.threaded_fetch import ThreadedFetcher

    return ThreadedFetcher(open_online_store(home), loop)


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


def open_event_log(
    home: LocalHome, decoders: Mapping[str, Decoder] | None = None, keys: Mapping[str, str] | None = None
) -> EventLog:
    """The log that the home is connected to. ``decoders`` and ``keys`` by topic: what its messages are, and the column
    that names them; a log in files needs neither. Raises InputError for a URL that cannot be used."""
    return event_log_at(read_connections(home).event_log, home.event_log, decoders, keys)


def event_log_at(
    url: str | None,
    default: Path,
    decoders: Mapping[str, Decoder] | None = None,
    keys: Mapping[str, str] | None = None,
) -> EventLog:
    """The log at ``url``; where that is None the folder ``default``."""
    if event_log_kind(url) == "file":
        from tidewheel.adapters.file_event_log import FileEventLog

        return FileEventLog(Path(url.removeprefix("file:")) if url else default)
    assert url is not None
    address = parse_kafka_url(url)
    try:
        from tidewheel.adapters.kafka_event_log import KafkaEventLog
    except ModuleNotFoundError as error:
        raise InputError(f"{address}: {error.name} is not installed; install tidewheel[stream]") from error
    return KafkaEventLog(address, password("KAFKA"), decoders, keys)


def make_event_topics(home: LocalHome, topics: Iterable[str]) -> list[str]:
    """Make what is missing of a project's topics, so that producers need no right to; their names. A log in files makes
    them by itself."""
    if event_log_kind(read_connections(home).event_log) == "file":
        return []
    from tidewheel.adapters.kafka_event_log import KafkaEventLog

    log = open_event_log(home)
    assert isinstance(log, KafkaEventLog)
    try:
        return log.make_topics(dict.fromkeys(topics))
    finally:
        log.close()


def has_moved(log: EventLog, topic: str, target: str, ends: Sequence[int]) -> bool:
    """Whether the messages before ``ends``, by partition, are in the topic where they are keyed anew."""
    from tidewheel.adapters.kafka_event_log import KafkaEventLog

    return not isinstance(log, KafkaEventLog) or log.has_moved(topic, target, ends)


def event_log_kind(url: str | None) -> str:
    """file or kafka. Raises InputError for any other URL."""
    scheme = (url or "file").partition(":")[0]
    if scheme == "file":
        return "file"
    if scheme in KAFKA_SCHEMES:
        return "kafka"
    raise InputError(f"event log {url!r}: unknown; allowed: {EVENT_LOG_FORMS}")


def checked_event_log(url: str) -> str:
    """The URL as it is kept: usable from any folder, nothing secret in it. Raises InputError."""
    if event_log_kind(url) == "kafka":
        parse_kafka_url(url)
        return url
    path = url.removeprefix("file:")
    if not path or path == url:
        raise InputError(f"event log {url!r}: a path is missing; allowed: {EVENT_LOG_FORMS}")
    return f"file:{Path(path).absolute()}"
