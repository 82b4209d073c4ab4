"""Ports of the features package: where online state lives and where events come from.

Adapters: SQLite and Redis stores, file and Kafka event logs; memory twins live in tests. One contract suite judges
all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import ContractViolation, Unavailable
from tidewheel.features.declaration import StateView

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Progress:
    """How far a state has come in one partition of its source's log.

    ``position`` is the offset of the next event to take; all before it are in the state. ``end`` is the log's end
    when last looked at. ``watermark_us`` is the newest event time seen, 0 before the first. The last two are wall
    clock: when position last equalled end (0: never), and when the worker last said that it is alive.
    """

    position: int
    watermark_us: int
    end: int
    caught_up_at_us: int
    heartbeat_us: int


@dataclass(frozen=True)
class StateRows:
    """New values of some entities of one state; everything runs parallel to ``keys``.

    ``positions``: every event of the entity with a smaller offset is in its blob. ``times_us``: its newest event.
    ``published``: the view's features as of then, NaN missing, in the order of ``StateView.published``.
    """

    keys: Sequence[bytes]
    blobs: Sequence[bytes]
    positions: Ints  # int64 [n]
    times_us: Ints  # int64 [n]
    published: NDArray[np.float64]  # [n, k]


Wanted = Sequence[tuple[StateView, Sequence[bytes]]]


class OnlineStore(Protocol):
    """States by entity. Raises Unavailable when the store does not answer."""

    def read(self, wanted: Wanted) -> list[list[bytes | None]]:
        """Blobs of each state's entities, in order, in one round trip."""
        ...

    def write(self, state: StateView, partition: int, rows: StateRows, progress: Progress) -> None:
        """Each row only where its position is larger than what is stored; progress only after all rows are in.

        Raises LostWrites where the store knows less progress than this object has read or written before: rows made
        from what it still had would claim to include events that it lost."""
        ...

    def progress(self, states: Sequence[StateView]) -> dict[str, dict[int, Progress]]:
        """Progress by state id and partition, of those states that exist."""
        ...

    def keep_only(self, project: str, states: Sequence[StateView]) -> list[str]:
        """Remove the project's states that are not among ``states``; the Feast views that were removed."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Fetched:
    """What a store had: blobs as ``OnlineStore.read`` gives them. ``refused`` maps (index of the state, index of the
    key) to why that one could not be read; its blob is None."""

    blobs: list[list[bytes | None]]
    refused: Mapping[tuple[int, int], str] = field(default_factory=dict)


class FetchingStore(Protocol):
    """An online store read without waiting, on one event loop. Reads may overlap; a stalled one delays no other."""

    def fetch(self, wanted: Wanted, timeout_us: int, done: Callable[[Fetched | Unavailable], None]) -> None:
        """Read; ``done`` is called once, on the loop, never before this returns, and within about ``timeout_us``."""
        ...

    def close(self) -> None: ...


class LostWrites(Unavailable):
    """The store has forgotten progress that it had told: an empty restart, an old snapshot, a replica that lagged.

    Rows are lost with it, so whoever writes begins again where the store now says; nothing was written."""


@dataclass(frozen=True)
class RejectedEvent:
    """A message of the log that is no event of its source, with the reason and what it said."""

    offset: int
    reason: str
    body: bytes


@dataclass(frozen=True)
class LogBatch:
    """Events of one partition in order. Offsets may have gaps; ``following`` is where to read on."""

    offsets: Ints  # int64 [n]
    following: int
    events: pa.Table  # n rows
    rejected: tuple[RejectedEvent, ...] = ()


class EventLog(Protocol):
    """Append-only events by topic and partition. Raises Unavailable when the log does not answer."""

    def append(self, topic: str, events: pa.Table) -> None:
        """All rows durably, or none of them."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions; 1 for a topic that does not exist yet."""
        ...

    def begin(self, topic: str, partition: int) -> int:
        """The oldest offset that can still be read."""
        ...

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next event will get; 0 for a topic that does not exist."""
        ...

    def read(
        self, topic: str, partition: int, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> LogBatch:
        """Up to ``max_rows`` events from ``offset`` on; none at the end. Raises UnreadableEvents."""
        ...


class UnreadableEvents(ContractViolation):
    """Bytes of the log that are not events; rows ``first`` up to ``until`` (None: not known yet) are lost."""

    def __init__(self, message: str, first: int, until: int | None) -> None:
        super().__init__(message)
        self.first = first
        self.until = until
