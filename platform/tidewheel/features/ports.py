"""Ports of the features package: where online state lives and where events come from.

Adapters: SQLite and Redis stores, the file event log; memory twins live in tests. One contract suite judges all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tidewheel.errors import ContractViolation

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Progress:
    """How far a state has come in its source's log.

    ``position`` is the offset of the next event to take; all before it are in the state. ``end`` is the log's end
    when last looked at. ``watermark_us`` is the newest event time seen, 0 before the first. The last two are wall
    clock: when position last equalled end (0: never), and when the worker last said that it is alive.
    """

    position: int
    watermark_us: int
    end: int
    caught_up_at_us: int
    heartbeat_us: int


class OnlineStore(Protocol):
    """One writer per state, many readers. Raises Unavailable when the store does not answer."""

    def read(self, lookups: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        """Values for (state id, entity key bytes) pairs, in order, in one round trip."""
        ...

    def write(self, state_id: str, items: Mapping[bytes, bytes], progress: Progress) -> None:
        """Items and progress together or not at all."""
        ...

    def progress(self, state_ids: Sequence[str]) -> dict[str, Progress]:
        """Progress of those states that exist."""
        ...

    def close(self) -> None: ...


class EventLog(Protocol):
    """Append-only tables of events by topic; an offset counts rows from 0."""

    def append(self, topic: str, events: pa.Table) -> tuple[int, int]:
        """First and next offset; all rows durably or none."""
        ...

    def read(
        self, topic: str, offset: int, max_rows: int, columns: Sequence[str] | None = None
    ) -> tuple[int, pa.Table]:
        """Up to ``max_rows`` rows from ``offset`` on; no rows at the end. Raises UnreadableEvents."""
        ...

    def end(self, topic: str) -> int:
        """The offset that the next event will get; 0 for a topic that does not exist."""
        ...


class UnreadableEvents(ContractViolation):
    """Bytes of the log that are not events; rows ``first`` up to ``until`` (None: not known yet) are lost."""

    def __init__(self, message: str, first: int, until: int | None) -> None:
        super().__init__(message)
        self.first = first
        self.until = until
