"""The online store in Redis, in the layout that stock Feast clients read: one hash per entity and project.

A read is one HMGET per entity whatever it asks of it. A write goes through a script that compares positions, so that
writers may repeat themselves, overlap or come late; progress is told only after all rows are in.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from tidewheel.adapters.redis_link import AT_ONCE, Command, ReplyError
from tidewheel.adapters.redis_reads import ReadLayout, blobs_of, commands_of
from tidewheel.adapters.redis_servers import RedisServers, connect
from tidewheel.adapters.redis_url import RedisAddress
from tidewheel.clock import SECOND_US
from tidewheel.errors import Unavailable
from tidewheel.features.declaration import StateView
from tidewheel.features.feast_layout import (
    STATE,
    encode_bytes,
    encode_numbers,
    encode_positions,
    encode_times,
    feast_project,
    feature_field,
    key_prefix,
    position_field,
    project_of,
    time_field,
)
from tidewheel.features.ports import LostWrites, Progress, StateRows, Wanted

READ_TIMEOUT_S = 1.0  # of a request's entities
FEW = 128
WRITE_TIMEOUT_S = 5.0  # of AT_ONCE entities; of many to read, too
WRITE_BYTES = 16 << 20  # on their way at once, about

# Numbers, not strings, are compared: Lua orders strings by the server's locale. TTL is -1 where somebody keeps the
# hash for ever, -2 where it is new.
_WRITE = b"""
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and #old == 8 then
  local a, b = struct.unpack('>I4I4', old)
  local c, d = struct.unpack('>I4I4', ARGV[2])
  if a > c or (a == c and b >= d) then return 0 end
end
local left, ttl = redis.call('TTL', KEYS[1]), tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], unpack(ARGV, 4))
if left ~= -1 and left < ttl then redis.call('EXPIRE', KEYS[1], ttl) end
return 1
"""
# ARGV[3] is the position that must be there already, empty where none must.
_PROGRESS = b"""
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old and #ARGV[3] > 0 then return -1 end
if old then
  local a, b = struct.unpack('>I4I4', old)
  if #ARGV[3] > 0 then
    local e, f = struct.unpack('>I4I4', ARGV[3])
    if a < e or (a == e and b < f) then return -1 end
  end
  local c, d = struct.unpack('>I4I4', ARGV[2])
  if a > c or (a == c and b > d) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
_WRITE_SHA, _PROGRESS_SHA = (
    hashlib.sha1(script, usedforsecurity=False).hexdigest().encode() for script in (_WRITE, _PROGRESS)
)
_FACTS = struct.Struct(">5q")


class RedisOnlineStore:
    """Safe to share between threads."""

    def __init__(self, address: RedisAddress, password: str | None = None) -> None:
        self._address = address
        self._servers: RedisServers = connect(address, password)
        self._layout = ReadLayout()
        self._indexed: set[str] = set()
        self._told: dict[tuple[str, int], int] = {}  # position of a state in a partition, as it was last known
        self._lock = threading.Lock()

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        groups = self._layout.groups(wanted)
        commands: list[Command] = list(commands_of(groups))
        replies = self._run(commands, READ_TIMEOUT_S if len(commands) <= FEW else WRITE_TIMEOUT_S)
        return blobs_of(groups, len(wanted), replies)[0]

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        self._index(state)
        keys = [_progress_key(tag, state.project, state.feast_view) for tag in self._servers.tags()]
        mark, least = str(partition).encode(), self._told.get((state.state_id, partition))
        if least is not None and len(rows.keys):
            stored = self._run([(b"HGET", key, mark) for key in keys], READ_TIMEOUT_S)
            self._refuse_loss(any(facts is None or _position(facts) < least for facts in stored))
        commands = _row_commands(state, rows) if len(rows.keys) else []
        mean_bytes = 1 + sum(map(len, rows.blobs)) // max(len(commands), 1)
        # Several lots of AT_ONCE are packed while others are answered, where they are not too large for that.
        lot = max(1, min(8 * AT_ONCE, WRITE_BYTES // mean_bytes))
        for start in range(0, len(commands), lot):
            self._run_scripts(commands[start : start + lot])
        facts = _FACTS.pack(
            progress.position, progress.watermark_us, progress.end, progress.caught_up_at_us, progress.heartbeat_us
        )
        expected = b"" if least is None else least.to_bytes(8, "big")
        replies = self._run_scripts([(b"EVALSHA", _PROGRESS_SHA, b"1", key, mark, facts, expected) for key in keys])
        self._refuse_loss(-1 in replies)
        self._told[state.state_id, partition] = max(progress.position, least or 0)

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        """The smallest of what the nodes say: a node that failed over to a replica that lagged has lost the newest
        rows and the newest progress alike. A node that says nothing has lost its rows, and they are filled again."""
        if not states:
            return {}
        tags = self._servers.tags()
        commands = [(b"HGETALL", _progress_key(tag, one.project, one.feast_view)) for one in states for tag in tags]
        replies = self._run(commands, READ_TIMEOUT_S)
        told = {}
        for index, state in enumerate(states):
            mine = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in replies[index * len(tags) :][: len(tags)]]
            marks = set.intersection(*(set(one) for one in mine))
            if marks:
                told[state.state_id] = {
                    int(mark): Progress(*_FACTS.unpack(min(one[mark] for one in mine))) for mark in marks
                }
        for state_id, partitions in told.items():
            for partition, one in partitions.items():
                self._told[state_id, partition] = one.position
        return told

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        kept = {state.feast_view for state in states}
        index = _index_key(project)
        (flat,) = self._run([(b"HGETALL", index)], READ_TIMEOUT_S)
        gone = {
            name.decode(): json.loads(facts)
            for name, facts in zip(flat[::2], flat[1::2], strict=True)
            if name.decode() not in kept
        }
        for name, facts in gone.items():
            # Its entry goes last: who is killed in between starts again.
            self._forget(project, name, [tuple(pair) for pair in facts["keys"]], facts["features"])
            for found in self._servers.scan(_progress_key(b"*", project, name), READ_TIMEOUT_S):
                mine = [(b"DEL", key) for key in found if _is_progress(key, project, name)]
                self._run(mine, WRITE_TIMEOUT_S)
            self._run([(b"HDEL", index, name.encode())], WRITE_TIMEOUT_S)
        self._indexed.clear()
        removed = {facts["state_id"] for facts in gone.values()}
        self._told = {at: position for at, position in self._told.items() if at[0] not in removed}
        return sorted(gone)

    def close(self) -> None:
        self._servers.close()

    def _forget(self, project: str, feast_view: str, keys: Sequence[tuple[str, str]], features: Sequence[str]) -> None:
        """Remove a view's fields from all entities, a scan's step at a time."""
        fields = [feature_field(feast_view, feature) for feature in (*features, STATE)]
        fields += [time_field(feast_view), position_field(feast_view)]
        pattern = _literal(key_prefix(keys)) + b"*" + _literal(feast_project(project).encode())
        for found in self._servers.scan(pattern, READ_TIMEOUT_S):
            mine = [(b"HDEL", key, *fields) for key in found if project_of(key) == feast_project(project)]
            self._run(mine, WRITE_TIMEOUT_S)

    def _index(self, state: StateView) -> None:
        """Keep what it takes to remove the state when its declaration is gone."""
        if state.state_id in self._indexed:
            return
        self._refuse_eviction()
        facts = {"state_id": state.state_id, "keys": state.keys, "features": [name for name, _ in state.published]}
        entry = (b"HSET", _index_key(state.project), state.feast_view.encode(), json.dumps(facts).encode())
        self._run([entry], WRITE_TIMEOUT_S)
        self._indexed.add(state.state_id)

    def _refuse_eviction(self) -> None:
        """A server that drops keys when memory is short would lose states without a word. Who may not ask trusts it."""
        for told in self._servers.everywhere((b"INFO", b"memory"), WRITE_TIMEOUT_S):
            if isinstance(told, ReplyError):
                continue
            facts = dict(line.split(b":", 1) for line in told.split(b"\r\n") if b":" in line)
            policy = facts.get(b"maxmemory_policy", b"noeviction").decode()
            if policy != "noeviction" and int(facts.get(b"maxmemory", 0)):
                raise Unavailable(
                    f"{self._address}: the server drops keys when memory is short (maxmemory-policy {policy}), which "
                    "would lose states without a word; set maxmemory-policy noeviction"
                )

    def _refuse_loss(self, lost: bool) -> None:
        if lost:
            self._told.clear()
            raise LostWrites(
                f"{self._address}: the online store has lost writes; they are taken again from the event log"
            )

    def _run_scripts(self, commands: Sequence[Command]) -> list[Any]:
        replies = self._servers.run(commands, WRITE_TIMEOUT_S)
        if any(isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT") for reply in replies):
            # A server that restarted has forgotten them.
            with self._lock:
                for script in (_WRITE, _PROGRESS):
                    self._checked(self._servers.everywhere((b"SCRIPT", b"LOAD", script), WRITE_TIMEOUT_S))
            return self._run(commands, WRITE_TIMEOUT_S)  # all: once more changes nothing
        return self._checked(replies)

    def _run(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        return self._checked(self._servers.run(commands, timeout_s)) if commands else []

    def _checked(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise Unavailable(f"{self._address}: the online store refuses ({reply})")
        return replies


def _row_commands(state: StateView, rows: StateRows) -> list[Command]:
    """One script call per row: position, time to live, then fields and values."""
    if not all(isinstance(blob, bytes) for blob in rows.blobs):
        raise TypeError("a blob must be bytes")
    project, view = feast_project(state.project).encode(), state.feast_view
    # A second more than the retention, rounded up, so that nothing goes that a request can still ask for.
    ttl = str(-(-state.retention_us // SECOND_US) + 1).encode()
    parts: list[Any] = [
        repeat(b"EVALSHA"), repeat(_WRITE_SHA), repeat(b"1"), [key + project for key in rows.keys],
        repeat(position_field(view)), encode_positions(rows.positions), repeat(ttl),
        repeat(time_field(view)), encode_times(rows.times_us),
        repeat(feature_field(view, STATE)), map(encode_bytes, rows.blobs),
    ]  # fmt: skip
    for index, (feature, dtype) in enumerate(state.published):
        parts += [repeat(feature_field(view, feature)), encode_numbers(dtype, rows.published[:, index])]
    return list(zip(*parts, strict=False))


def _position(facts: bytes) -> int:
    return int.from_bytes(facts[:8], "big")


def _index_key(project: str) -> bytes:
    return f"tidewheel:{project}".encode()


def _progress_key(tag: bytes, project: str, feast_view: str) -> bytes:
    return b"tidewheel:%s%s:%s" % (tag, project.encode(), feast_view.encode())


def _is_progress(key: bytes, project: str, feast_view: str) -> bool:
    rest = key.removeprefix(b"tidewheel:")
    return (rest.partition(b"}:")[2] if rest[:1] == b"{" else rest) == f"{project}:{feast_view}".encode()


def _literal(text: bytes) -> bytes:
    """Text of a pattern that stands for itself."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in text)
