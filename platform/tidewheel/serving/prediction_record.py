"""One row of the prediction log: how it is framed in the spool and what columns it has in the lake.

A frame is length, CRC-32 and a msgpack map, so that a torn or damaged tail is seen and cut off.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidewheel.records import PREDICTION_COLUMNS, REQUEST_PREFIX

TEST_ROLE = "test"
_HEAD = struct.Struct("<II")
MAX_FRAME_BYTES = 16 * 2**20
_LISTS = {
    "list<double>": pa.list_(pa.float64()),
    "list<int64>": pa.list_(pa.int64()),
    "list<string>": pa.list_(pa.string()),
}
_ARRAYS = {"features": "<f8", "positions": "<i8"}  # kept as bytes in a record
_COPY_OF = "copy_of"
_ALIASES = {"float64": "double", "float32": "float"}

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


def prediction_schema(request_columns: Mapping[str, str], event_time: str = "", event_id: str = "") -> pa.Schema:
    """Arrow schema of the log; ``request_columns`` maps keys and the request's columns to spec types.

    ``event_time`` and ``event_id`` are the source's names for what the log has as event_time_us and event_id.
    """
    fields = [
        pa.field(name, _LISTS[kind] if kind in _LISTS else pa.type_for_alias(kind))
        for name, kind in PREDICTION_COLUMNS.items()
    ]
    fields += [
        pa.field(REQUEST_PREFIX + name, pa.type_for_alias(_ALIASES.get(kind, kind)))
        for name, kind in request_columns.items()
    ]
    if event_time:
        copied = {_COPY_OF: "event_time_us"}
        fields.append(pa.field(REQUEST_PREFIX + event_time, pa.timestamp("us", tz="UTC"), metadata=copied))
    if event_id:
        fields.append(pa.field(REQUEST_PREFIX + event_id, pa.string(), metadata={_COPY_OF: "event_id"}))
    return pa.schema(fields)


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


def to_table(records: Sequence[PredictionRecord], schema: pa.Schema) -> pa.Table:
    """Records as a table of ``schema``; the first record of an id stays, a column that a record lacks is null."""
    kept = list({record.record_id: record for record in reversed(records)}.values())[::-1]
    columns: list[pa.Array] = []
    for field in schema:
        source = (field.metadata or {}).get(_COPY_OF.encode())
        if source is not None:
            values = [getattr(record, source.decode()) for record in kept]
            columns.append(pa.array(values, field.type))
        elif field.name.startswith(REQUEST_PREFIX):
            name = field.name.removeprefix(REQUEST_PREFIX)
            columns.append(_column([record.columns.get(name) for record in kept], field.type))
        elif field.name in _ARRAYS:
            columns.append(_vectors([getattr(record, field.name) for record in kept], _ARRAYS[field.name]))
        else:
            columns.append(pa.array([getattr(record, field.name) for record in kept], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # A version with another schema wrote them: what fits the present type is kept.
        return pa.array([_one(value, kind) for value in values], kind)


def _one(value: Any, kind: pa.DataType) -> Any:
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None


def _vectors(raw: list[bytes], kind: str) -> pa.Array:
    vectors: list[NDArray[Any]] = [np.frombuffer(value, dtype=kind) for value in raw]
    offsets = np.cumsum([0, *(len(vector) for vector in vectors)]).astype(np.int32)
    flat = np.concatenate(vectors) if vectors else np.empty(0, dtype=kind)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))
