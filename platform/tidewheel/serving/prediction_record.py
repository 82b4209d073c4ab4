"""Rows of the prediction log as the spool keeps them, without a library for tables: a model server needs none.

A frame is length, CRC-32 and a msgpack map, so that a torn or damaged tail is seen and cut off.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

TEST_ROLE = "test"
_HEAD = struct.Struct("<II")
MAX_FRAME_BYTES = 16 * 2**20

_encoder = msgspec.msgpack.Encoder()


class PredictionRecord(msgspec.Struct, array_like=True, gc=False):
    """Values of ``records.PREDICTION_COLUMNS``; ``features`` are float64 bytes, ``positions`` int64 bytes.

    ``columns`` maps a request column to its value; types are those of the schema that the log was opened with.
    """

    record_id: str
    request_id: str
    project: str
    version: str
    digest: str
    role: str
    generation: int
    event_time_us: int
    event_id: str
    unit: str
    features: bytes
    feature_digest: str
    score: float | None
    decision: str
    degraded: bool
    reasons: Sequence[str]
    latency_us: int
    logged_at_us: int
    columns: dict[str, Any]
    positions: bytes = b""
    writer: str = ""
    sequence: int = 0


class RecordFrame(msgspec.Struct, array_like=True, gc=False):
    """Several rows that were answered alike, as the spool keeps them: lists run parallel to ``request_ids``.

    ``tests`` and ``reasons`` are empty where no row has any, ``features`` and ``positions`` where there are none.
    ``writer`` and ``first_sequence`` are the log's own.
    """

    project: str
    version: str
    digest: str
    feature_digest: str
    role: str
    generation: int
    logged_at_us: int
    request_ids: Sequence[str]
    tests: Sequence[bool]
    event_times_us: Sequence[int]
    event_ids: Sequence[str]
    units: Sequence[str]
    features: bytes
    positions: bytes
    scores: Sequence[float | None]
    decisions: Sequence[str]
    reasons: Sequence[Sequence[str]]
    latencies_us: Sequence[int]
    columns: dict[str, list[Any]]
    writer: str = ""
    first_sequence: int = 0

    @property
    def n_rows(self) -> int:
        return len(self.request_ids)

    def records(self) -> list[PredictionRecord]:
        """The rows one by one."""
        n = self.n_rows
        width, depth = len(self.features) // n if n else 0, len(self.positions) // n if n else 0
        made = []
        for at, request_id in enumerate(self.request_ids):
            role = TEST_ROLE if self.tests and self.tests[at] else self.role
            reasons = tuple(self.reasons[at]) if self.reasons else ()
            made.append(
                PredictionRecord(
                    record_id=record_id(self.project, request_id, self.version, role),
                    request_id=request_id,
                    project=self.project,
                    version=self.version,
                    digest=self.digest,
                    role=role,
                    generation=self.generation,
                    event_time_us=self.event_times_us[at],
                    event_id=self.event_ids[at],
                    unit=self.units[at],
                    features=self.features[at * width : (at + 1) * width],
                    feature_digest=self.feature_digest,
                    score=self.scores[at],
                    decision=self.decisions[at],
                    degraded=bool(reasons),
                    reasons=reasons,
                    latency_us=self.latencies_us[at],
                    logged_at_us=self.logged_at_us,
                    columns={name: values[at] for name, values in self.columns.items()},
                    positions=self.positions[at * depth : (at + 1) * depth],
                    writer=self.writer,
                    sequence=self.first_sequence + at,
                )
            )
        return made


_frame_decoder = msgspec.msgpack.Decoder(RecordFrame)


def record_id(project: str, request_id: str, version: str, role: str) -> str:
    """The key by which duplicates drop: one per request and version that scored it."""
    text = f"{project}\x00{request_id}\x00{version}\x00{'shadow' if role == 'shadow' else ''}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


def encode_frames(frames: Iterable[RecordFrame]) -> bytes:
    """Frames for the spool, to be written at once."""
    parts: list[bytes] = []
    for frame in frames:
        payload = _encoder.encode(frame)
        parts += (_HEAD.pack(len(payload), zlib.crc32(payload)), payload)
    return b"".join(parts)


def decode_frames(data: bytes) -> tuple[list[PredictionRecord], int]:
    """The records of whole frames and the offset behind the last good one; the rest is a torn tail."""
    records: list[PredictionRecord] = []
    good = 0
    for payload, end in _frames(data):
        try:
            records += _frame_decoder.decode(payload).records()
        except (msgspec.DecodeError, IndexError):
            break
        good = end
    return records, good


def _frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        start, at = at + _HEAD.size, at + _HEAD.size + length
        if length > MAX_FRAME_BYTES or at > len(data):
            return
        payload = data[start:at]
        if zlib.crc32(payload) != checksum:
            return
        yield payload, at
