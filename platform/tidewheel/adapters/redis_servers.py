"""Redis as the store sees it: commands go to the node that has their key, whether there is one server or a cluster."""

from __future__ import annotations

import itertools
import threading
from binascii import crc_hqx
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from tidewheel.adapters.redis_link import Command, Node, RedisNode, ReplyError
from tidewheel.adapters.redis_url import RedisAddress
from tidewheel.errors import Unavailable

N_SLOTS = 16384
MAX_ROUNDS = 4  # a slot that moved is followed this often
SCAN_COUNT = b"1000"
TOPOLOGY_TIMEOUT_S = 1.0

_KEY_AT = {b"EVALSHA": 3}


class RedisServers(Protocol):
    """Safe to share between threads. Raises Unavailable; what a server refuses comes back as a ReplyError."""

    def run(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """A reply per command, in order; each has its key as first argument (EVALSHA: its only key)."""
        ...

    def everywhere(self, command: Command, timeout_s: float) -> list[Any]:
        """The reply of every node that keeps keys."""
        ...

    def tags(self) -> list[bytes]:
        """What to put into a key so that each node that keeps keys gets one of these."""
        ...

    def scan(self, pattern: bytes, timeout_s: float) -> Iterator[list[bytes]]:
        """Keys that match, some thousand at a time; a key may come twice."""
        ...

    def close(self) -> None: ...


def connect(address: RedisAddress, password: str | None) -> RedisServers:
    return ClusterServers(address, password) if address.cluster else OneServer(address, password)


class OneServer:
    """A single Redis."""

    def __init__(self, address: RedisAddress, password: str | None) -> None:
        self._node = RedisNode(address, address.nodes[0], password)
        self.run = self._node.run
        self.close = self._node.close

    def everywhere(self, command: Command, timeout_s: float) -> list[Any]:
        return self._node.run([command], timeout_s)

    def tags(self) -> list[bytes]:
        return [b""]

    def scan(self, pattern: bytes, timeout_s: float) -> Iterator[list[bytes]]:
        return _scanned(self._node, pattern, timeout_s)


class ClusterServers:
    """A Redis Cluster: slots as the cluster told them last, corrected by every MOVED."""

    def __init__(self, address: RedisAddress, password: str | None) -> None:
        self._address, self._password = address, password
        self._nodes: dict[Node, RedisNode] = {}
        self._slots: list[Node | None] = [None] * N_SLOTS
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="redis-cluster")
        self._known = False

    def run(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        if not self._known:
            self._learn()
        replies: list[Any] = [None] * len(commands)
        left = {index: (self._owner(command), False) for index, command in enumerate(commands)}
        for round_no in range(MAX_ROUNDS):
            try:
                replies_of = self._side_by_side(left, commands, timeout_s)
            except Unavailable:
                if round_no:
                    raise
                self._learn()  # a replica may have taken over
                left = {index: (self._owner(commands[index]), False) for index in left}
                continue
            for index, reply in replies_of.items():
                replies[index] = reply
            moved = {index: self._elsewhere(replies[index], commands[index]) for index in left}
            left = {index: place for index, place in moved.items() if place is not None}
            if not left:
                return replies
        raise Unavailable(f"{self._address}: the cluster keeps moving its keys; trying again later helps")

    def _side_by_side(
        self, places: Mapping[int, tuple[Node, bool]], commands: Sequence[Command], timeout_s: float
    ) -> dict[int, Any]:
        """Replies by the command's index; the nodes answer at the same time."""
        by_place: dict[tuple[Node, bool], list[int]] = {}
        for index, place in places.items():
            by_place.setdefault(place, []).append(index)

        def one(work: tuple[tuple[Node, bool], list[int]]) -> list[Any]:
            (node, asking), indexes = work
            if not asking:
                return self._node(node).run([commands[index] for index in indexes], timeout_s)
            sent = [part for index in indexes for part in ((b"ASKING",), commands[index])]
            return self._node(node).run(sent, timeout_s)[1::2]

        works = list(by_place.items())
        told = [one(works[0])] if len(works) == 1 else list(self._threads.map(one, works))
        return {
            index: reply
            for (_, indexes), some in zip(works, told, strict=True)
            for index, reply in zip(indexes, some, strict=True)
        }

    def _elsewhere(self, reply: Any, command: Command) -> tuple[Node, bool] | None:
        """Where to send a command again, and whether ASKING goes first; None where the reply is one."""
        if not isinstance(reply, ReplyError):
            return None
        kind, *rest = str(reply).split()
        if kind not in ("MOVED", "ASK") or len(rest) != 2:
            return None
        host, _, port = rest[1].rpartition(":")
        node = (host or self._owner(command)[0], int(port))
        if kind == "MOVED":
            self._slots[int(rest[0])] = node
        return node, kind == "ASK"

    def everywhere(self, command: Command, timeout_s: float) -> list[Any]:
        return [reply for node in self._primaries() for reply in self._node(node).run([command], timeout_s)]

    def tags(self) -> list[bytes]:
        nodes, tags = set(self._primaries()), []
        for number in itertools.count():
            tag = b"{%d}:" % number
            node = self._slots[slot_of(tag)]
            if node in nodes:
                nodes.remove(node)
                tags.append(tag)
            if not nodes:
                return tags
        raise AssertionError("some number has each slot")

    def scan(self, pattern: bytes, timeout_s: float) -> Iterator[list[bytes]]:
        for node in self._primaries():
            yield from _scanned(self._node(node), pattern, timeout_s)

    def close(self) -> None:
        self._threads.shutdown()
        for node in self._nodes.values():
            node.close()

    def _owner(self, command: Command) -> Node:
        node = self._slots[slot_of(command[_KEY_AT.get(command[0], 1)])]
        if node is None:
            raise Unavailable(f"{self._address}: no node of the cluster has the slot of a key")
        return node

    def _primaries(self) -> list[Node]:
        if not self._known:
            self._learn()
        return sorted({node for node in self._slots if node is not None})

    def _node(self, node: Node) -> RedisNode:
        with self._lock:
            if node not in self._nodes:
                self._nodes[node] = RedisNode(self._address, node, self._password)
            return self._nodes[node]

    def _learn(self) -> None:
        """Ask for the slots, whoever answers first."""
        failed: Unavailable | None = None
        for node in dict.fromkeys((*self._address.nodes, *self._nodes)):
            try:
                (told,) = self._node(node).run([(b"CLUSTER", b"SLOTS")], TOPOLOGY_TIMEOUT_S)
            except Unavailable as error:
                failed = error
                continue
            if isinstance(told, ReplyError):
                raise Unavailable(f"{self._address}: {node[0]}:{node[1]} is no cluster node for us ({told})")
            slots: list[Node | None] = [None] * N_SLOTS
            for first, last, primary, *_ in told:
                host = primary[0].decode() if primary[0] else node[0]
                slots[first : last + 1] = [(host, int(primary[1]))] * (last + 1 - first)
            self._slots, self._known = slots, True
            return
        raise failed or Unavailable(f"{self._address}: no node of the cluster is known")


def slot_of(key: bytes) -> int:
    """Hash slot of a key; of what is between the first braces where there is anything. Source: Redis Cluster
    specification, "Hash tags"."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % N_SLOTS


def _scanned(node: RedisNode, pattern: bytes, timeout_s: float) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        (reply,) = node.run([(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT)], timeout_s)
        if isinstance(reply, ReplyError):
            raise Unavailable(f"{node.node[0]}:{node.node[1]}: the online store refuses to list its keys ({reply})")
        cursor, keys = reply
        if keys:
            yield keys
        if cursor == b"0":
            return
