"""Where predictions are kept until they are in the lake: spooled on disk before the reply.

``write`` returns after the operating system has the bytes, so an acknowledged prediction survives kill -9 of the
process; ``sync`` now and then, so that a power loss takes no more than what came since. A full disk never fails a
request: what could not be written is counted. Another process ships the segments that were closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidewheel.clock import Clock
from tidewheel.serving.prediction_record import RecordFrame, encode_frames

MAX_SPOOL_BYTES = 1 << 30
OPEN_SUFFIX, CLOSED_SUFFIX = ".open", ".spool"


@dataclass
class LogCounters:
    """What happened to records since the process started."""

    written: int = 0
    lost: int = 0  # could not be spooled: disk full or spool over its limit
    failing: bool = False  # the newest write failed
    syncs: int = 0
    sync_us: int = 0  # all of them together


class PredictionLog:
    """The spool of one process. Thread-safe. ``folder`` is locked, so that nobody ships a living spool."""

    def __init__(self, folder: Path, clock: Clock, max_spool_bytes: int = MAX_SPOOL_BYTES, pod_uid: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.counters = folder, LogCounters()
        self._clock, self._max_bytes = clock, max_spool_bytes
        self._owner = lock_folder(folder)
        if self._owner is None:
            raise BlockingIOError(f"{folder}: another model server writes this spool")
        self._lock = threading.Lock()
        self._segment: int | None = None
        self._path, self._newest = folder, 0
        self._size = self._waiting = 0
        self._synced = (folder, 0)
        # The pod's own id where there is one; a start each, since a sequence begins anew with it.
        self._token = os.urandom(6).hex()
        self.writer = f"{pod_uid or folder.name}:{self._token}"
        self._sequence = 0
        for left in folder.glob(f"*{OPEN_SUFFIX}"):  # by a predecessor that was killed
            left.rename(left.with_suffix(CLOSED_SUFFIX))

    def write(self, frames: Sequence[RecordFrame]) -> bool:
        """Spool records with one write; False where they are lost (counted, never raised)."""
        n = sum(frame.n_rows for frame in frames)
        with self._lock:
            for frame in frames:
                # A number is used up whether its record can be kept or not: a gap in the lake is a loss.
                frame.writer, frame.first_sequence = self.writer, self._sequence
                self._sequence += frame.n_rows
            try:
                self._append(encode_frames(frames))
            except OSError:
                self.counters.lost += n
                self.counters.failing = True
                return False
            self.counters.written += n
            self.counters.failing = False
            return True

    def _append(self, data: bytes) -> None:
        if self._waiting + self._size + len(data) > self._max_bytes:
            raise OSError("spool over its limit")
        if self._segment is None:
            self._open()
        assert self._segment is not None
        written = 0
        try:
            while written < len(data):
                written += os.write(self._segment, data[written:] if written else data)
        except OSError:
            # A half-written frame in the middle would hide every record behind it.
            os.ftruncate(self._segment, self._size)
            os.lseek(self._segment, self._size, os.SEEK_SET)
            raise
        self._size += len(data)

    def _open(self) -> None:
        # A name is never used twice, whatever the clock does across restarts: the lake's part is named after it.
        self._newest = max(self._clock.now_us(), self._newest + 1)
        self._path = self.folder / f"{self._newest:017d}-{self._token}{OPEN_SUFFIX}"
        self._segment = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = 0

    def rotate(self) -> tuple[Path, ...]:
        """Close the open segment where it holds anything, for whoever ships; every closed segment, oldest first."""
        with self._lock:
            if self._segment is not None and self._size:
                os.close(self._segment)
                self._path.rename(self._path.with_suffix(CLOSED_SUFFIX))
                self._segment, self._size = None, 0
            closed = tuple(segments(self.folder))
        self._waiting = _bytes_of(closed)
        return closed

    def sync(self) -> None:
        """Have the disk hold what was written so far. Writes go on meanwhile."""
        with self._lock:
            if self._segment is None or self._synced == (self._path, self._size):
                return
            self._synced = (self._path, self._size)
            descriptor = os.dup(self._segment)
        began_us = self._clock.monotonic_us()
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self.counters.syncs += 1
        self.counters.sync_us += self._clock.monotonic_us() - began_us

    @property
    def waiting_bytes(self) -> int:
        """Of segments that wait to be shipped, as of the newest rotation, and of the open one."""
        return self._waiting + self._size

    def close(self) -> None:
        """Release the spool; what is in it is shipped by whoever takes it next."""
        self.sync()
        self.rotate()
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None


def segments(folder: Path) -> list[Path]:
    """Closed segments of a spool, oldest first."""
    return sorted(folder.glob(f"*{CLOSED_SUFFIX}"))


def _bytes_of(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # shipped meanwhile
            total += path.stat().st_size
    return total


def lock_folder(folder: Path) -> int | None:
    """Take a spool for this process; None where a living process has it. Closing the descriptor releases it."""
    descriptor = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    os.close(descriptor)
    return None
