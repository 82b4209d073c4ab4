"""Connection URLs: what they stand for, what is refused, and that no password is kept or shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tidewheel.adapters.connections import (
    Connections,
    checked_event_log,
    checked_online_store,
    has_online_store,
    online_store_at,
    open_event_log,
    open_online_store,
    password,
    read_connections,
    write_connections,
)
from tidewheel.adapters.feast_folder import checked_registry, feast_config
from tidewheel.adapters.file_event_log import FileEventLog
from tidewheel.adapters.kafka_url import KafkaAddress, parse_kafka_url
from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.redis_url import RedisAddress, parse_redis_url
from tidewheel.adapters.sqlite_store import SqliteOnlineStore
from tidewheel.errors import InputError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        pytest.param("redis://store", RedisAddress((("store", 6379),)), id="the port has a default"),
        pytest.param("redis://store:7000/2", RedisAddress((("store", 7000),), db=2), id="a database has a number"),
        pytest.param("redis://[::1]:7000", RedisAddress((("::1", 7000),)), id="an IPv6 address is in brackets"),
        pytest.param(
            "rediss://svc@store:7000?ca=/etc/ca.pem&cert=/c.pem&key=/k.pem",
            RedisAddress(
                (("store", 7000),),
                user="svc",
                tls=True,
                ca=Path("/etc/ca.pem"),
                cert=Path("/c.pem"),
                key=Path("/k.pem"),
            ),
            id="TLS with a user and certificates",
        ),
        pytest.param(
            "redis+cluster://a:1,b:2",
            RedisAddress((("a", 1), ("b", 2)), cluster=True),
            id="a cluster has several nodes",
        ),
        pytest.param("rediss+cluster://a", RedisAddress((("a", 6379),), cluster=True, tls=True), id="a cluster by TLS"),
    ],
)
def test_a_redis_url_says_where(url: str, address: RedisAddress):
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "told"),
    [
        pytest.param("http://store", "not a Redis URL", id="another scheme"),
        pytest.param("redis://store:port", "is no HOST:PORT", id="no port number"),
        pytest.param("redis://", "is no HOST:PORT", id="no host"),
        pytest.param("redis://a:1,b:2", r"write redis\+cluster://", id="several servers without a cluster"),
        pytest.param("redis+cluster://a:1/3", "no numbered databases", id="a cluster's database"),
        pytest.param("redis://a/x", "the database is a number", id="a database by name"),
        pytest.param("redis://a?ca=/x", "write rediss", id="a certificate without TLS"),
        pytest.param("rediss://a?tls=no", "unknown option tls; allowed: ca, cert, key", id="an unknown option"),
        pytest.param("rediss://a?cert=/x", "cert and key go together", id="half a certificate"),
        pytest.param("rediss://a?ca=x.pem", "must be a whole path", id="a path that depends on the folder"),
    ],
)
def test_a_wrong_redis_url_is_refused(url: str, told: str):
    with pytest.raises(InputError, match=told):
        parse_redis_url(url)


@pytest.mark.parametrize("refuse", [parse_redis_url, checked_online_store])
def test_a_password_in_a_url_is_refused_and_not_repeated(refuse):
    with pytest.raises(InputError, match="set TIDEWHEEL_REDIS_PASSWORD") as caught:
        refuse("redis://svc:hunter2@store:7000")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InputError, match="set PGPASSWORD") as caught:
        checked_registry("postgresql://svc:hunter2@db/feast")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://svc@a:1/2", "rediss+cluster://a:1,[::1]:2"])
def test_an_address_is_shown_as_its_url(url: str):
    assert str(parse_redis_url(url)) == url


def test_a_password_comes_from_the_environment_or_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert password("REDIS") is None
    monkeypatch.setenv("TIDEWHEEL_REDIS_PASSWORD", "one")
    assert password("REDIS") == "one"
    (tmp_path / "secret").write_text("two\n")
    monkeypatch.setenv("TIDEWHEEL_REDIS_PASSWORD_FILE", str(tmp_path / "secret"))
    assert password("REDIS") == "two"
    monkeypatch.setenv("TIDEWHEEL_REDIS_PASSWORD_FILE", str(tmp_path / "absent"))
    with pytest.raises(InputError, match="absent cannot be read"):
        password("REDIS")


def test_an_unknown_online_store_is_refused_with_what_is_allowed():
    for url in ("mongodb://a", "online.db", "sqlite:"):
        with pytest.raises(InputError, match=r"allowed: sqlite:PATH, redis://"):
            checked_online_store(url)


def test_without_connections_a_home_has_a_file_of_its_own(tmp_path: Path):
    home = LocalHome(tmp_path)
    assert read_connections(home) == Connections()
    assert not has_online_store(home)
    store = open_online_store(home)
    assert isinstance(store, SqliteOnlineStore)
    assert home.online_db.is_file()
    assert has_online_store(home)
    store.close()


def test_connections_are_kept(tmp_path: Path):
    home = LocalHome(tmp_path / "home")
    kept = Connections(online_store=f"sqlite:{tmp_path / 'elsewhere.db'}", event_log="kafka://a:1")
    write_connections(home, kept)
    assert read_connections(home) == kept
    open_online_store(home).close()
    assert (tmp_path / "elsewhere.db").is_file()


def test_damaged_connections_are_named(tmp_path: Path):
    home = LocalHome(tmp_path)
    for text in ("{", "[]", '{"unknown": 1}'):
        home.connections.write_text(text)
        with pytest.raises(InputError, match=r"connections\.json: damaged"):
            read_connections(home)


def test_a_path_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert checked_online_store("sqlite:x.db") == f"sqlite:{tmp_path / 'x.db'}"


def test_a_redis_store_connects_only_when_it_is_asked(tmp_path: Path):
    online_store_at("redis://127.0.0.1:1", tmp_path / "unused").close()


@pytest.mark.parametrize(
    ("url", "lines"),
    [
        pytest.param(None, ["  type: sqlite", '  path: "/home/online.db"'], id="the home's file"),
        pytest.param(
            "rediss://svc@a:1/2?ca=/ca.pem",
            ["  type: redis", "  redis_type: redis", '  connection_string: "a:1,db=2,username=svc,'
             'password=${TIDEWHEEL_REDIS_PASSWORD},ssl=true,ssl_ca_certs=/ca.pem"'],
            id="one server with TLS and a user",
        ),
        pytest.param(
            "redis+cluster://a:1,b:2",
            ["  type: redis", "  redis_type: redis_cluster", '  connection_string: "a:1,b:2"'],
            id="a cluster",
        ),
    ],
)  # fmt: skip
def test_feast_is_told_the_same_store(url: str | None, lines: list[str]):
    told = feast_config("card_fraud", Connections(online_store=url), Path("/home/online.db")).splitlines()
    begin = told.index("online_store:") + 1
    assert told[begin : begin + len(lines)] == lines


def test_feast_is_told_a_sql_registry_where_there_is_one():
    told = feast_config("p", Connections(feast_registry="postgresql://svc@db:5432/feast"), Path("/x"))
    assert '  registry_type: sql\n  path: "postgresql+psycopg://svc@db:5432/feast"\n' in told
    with pytest.raises(InputError, match="allowed: postgresql://"):
        checked_registry("mysql://db/feast")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        pytest.param("kafka://log", KafkaAddress((("log", 9092),)), id="the port has a default"),
        pytest.param("kafka://a:1,[::1]:2?partitions=12&replicas=3",
                     KafkaAddress((("a", 1), ("::1", 2)), partitions=12, replicas=3), id="several brokers"),
        pytest.param("kafkas://svc@a:1?ca=/ca.pem&mechanism=PLAIN",
                     KafkaAddress((("a", 1),), True, "svc", "PLAIN", Path("/ca.pem")), id="TLS and a user"),
    ],
)  # fmt: skip
def test_a_kafka_url_says_where(url: str, address: KafkaAddress):
    assert parse_kafka_url(url) == address
    assert checked_event_log(url) == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        pytest.param("http://a", "not a Kafka URL", id="another scheme"),
        pytest.param("kafka://a:x", "is no HOST:PORT", id="no port number"),
        pytest.param("kafka://u:secret@a", "a password does not belong in a URL", id="a password"),
        pytest.param("kafka://a/topic", "topics are named by the project's sources", id="a path"),
        pytest.param("kafka://a?ca=/x", "need TLS; write kafkas", id="a certificate without TLS"),
        pytest.param("kafkas://a?ca=x", "must be a whole path", id="a relative path"),
        pytest.param("kafkas://a?cert=/x", "cert and key go together", id="half a client certificate"),
        pytest.param("kafka://u@a?mechanism=PLAIN", "sends the password readable", id="PLAIN without TLS"),
        pytest.param("kafkas://u@a?mechanism=MD5", "unknown mechanism", id="another mechanism"),
        pytest.param("kafka://a?x=1", "unknown option x", id="an unknown option"),
        pytest.param("kafka://a?partitions=0", "is a number from 1", id="no partitions"),
    ],
)
def test_a_kafka_url_that_cannot_be_used_is_refused_and_no_password_shown(url: str, told: str):
    with pytest.raises(InputError) as caught:
        parse_kafka_url(url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_event_log_is_in_files_unless_a_url_says_otherwise(tmp_path: Path, monkeypatch):
    home = LocalHome(tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    write_connections(home, Connections(event_log=checked_event_log("file:events")))
    log = open_event_log(home)
    assert isinstance(log, FileEventLog)
    log.append("t", pa.table({"n": [1]}))
    assert (tmp_path / "events" / "t").is_dir()
    assert isinstance(open_event_log(LocalHome(tmp_path / "other")), FileEventLog)
    for url in ("file:", "events", "nats://a"):
        with pytest.raises(InputError):
            checked_event_log(url)
