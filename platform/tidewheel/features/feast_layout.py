"""Feast's online layout in bytes: field names, values, times and entity keys. NumPy only.

Source: feast 0.67, docs/specs/online_store_format.md, protos/feast/types/Value.proto; docs/reference/wire-layout.md
shows every byte. Ours are two things that Feast's clients pass over: the position field, which guards writes, and
the feature ``state``, whose bytes only the kernel understands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.features.declaration import StateView

STATE = "state"  # the Bytes feature that holds a view's state

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DOUBLE, _FLOAT, _INT32, _INT64, _BOOL, _TIME, _BYTES = 0x29, 0x35, 0x18, 0x20, 0x38, 0x40, 0x0A  # protobuf tags
_VARINTS = (_INT64, _INT32, _BOOL, _TIME)
_DOUBLES = np.dtype([("tag", "u1"), ("value", "<f8")])
_DOUBLE_TAG = bytes([_DOUBLE])
_NAN = struct.pack("<Bd", _DOUBLE, np.nan)
_MASK = 2**32 - 1


def murmur3_32(data: bytes) -> int:
    """Unsigned 32-bit MurmurHash3 (x86, seed 0). Source: A. Appleby, MurmurHash3.cpp, public domain."""
    state = 0
    n_whole = len(data) // 4 * 4
    for at in range(0, n_whole, 4):
        state ^= _scattered(int.from_bytes(data[at : at + 4], "little"))
        state = (((state << 13 | state >> 19) & _MASK) * 5 + 0xE6546B64) & _MASK
    if n_whole < len(data):
        state ^= _scattered(int.from_bytes(data[n_whole:], "little"))
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & _MASK
    state = (state ^ state >> 13) * 0xC2B2AE35 & _MASK
    return state ^ state >> 16


def _scattered(word: int) -> int:
    word = word * 0xCC9E2D51 & _MASK
    return ((word << 15 | word >> 17) & _MASK) * 0x1B873593 & _MASK


def feast_project(project: str) -> str:
    """Feast's name of a project: it refuses hyphens, and our names have no underscores."""
    return project.replace("-", "_")


def feature_field(feast_view: str, feature: str) -> bytes:
    """Name of a feature's field in its entity's hash: 4 bytes."""
    return struct.pack("<I", murmur3_32(f"{feast_view}:{feature}".encode()))


def time_field(feast_view: str) -> bytes:
    return f"_ts:{feast_view}".encode()


def position_field(feast_view: str) -> bytes:
    """Ours: up to which offset the state has its entity's events, 8 bytes big-endian."""
    return f"_o:{feast_view}".encode()


def encode_positions(positions: Ints) -> list[bytes]:
    """8 bytes big-endian each, so that bytes compare as numbers do."""
    return _fixed(np.ascontiguousarray(positions, dtype=">i8"), 8)


def encode_numbers(dtype: str, values: Floats) -> list[bytes]:
    """Values [n] of one feature (int64 | float64 | bool) as Feast's Value; NaN is null: no bytes."""
    if dtype == "float64":
        doubles = np.empty(len(values), dtype=_DOUBLES)
        doubles["tag"], doubles["value"] = _DOUBLE, values
        encoded = _fixed(doubles, 9)
    else:
        known = np.nan_to_num(values)
        if dtype == "bool":
            encoded = _varints((known != 0).astype(np.uint64), _BOOL)
        else:
            # The largest double below 2**63: beyond it a cast to int64 means nothing.
            inside = np.clip(known, -(2.0**63), np.nextafter(2.0**63, 0))
            encoded = _varints(np.rint(inside).astype(np.int64).view(np.uint64), _INT64)
    for index in np.flatnonzero(np.isnan(values)):
        encoded[index] = b""
    return encoded


def decode_numbers(values: Sequence[bytes | None]) -> Floats:
    """float64 [n] of Feast's Values; NaN where there is none or it is no number."""
    data, n = b"".join([value or _NAN for value in values]), len(values)
    # A value that begins with this tag is 9 bytes long, so the next one begins at the next 9 bytes.
    if len(data) == 9 * n and data[::9] == _DOUBLE_TAG * n:
        return np.frombuffer(data, dtype=_DOUBLES)["value"].astype(np.float64)
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: bytes | None) -> float:
    if not value:
        return np.nan
    tag = value[0]
    if tag == _DOUBLE and len(value) == 9:
        return float(struct.unpack_from("<d", value, 1)[0])
    if tag in _VARINTS:
        number, _ = _varint(value, 1)
        return float(number - 2**64 if number >> 63 else number)
    if tag == _FLOAT and len(value) == 5:
        return float(struct.unpack_from("<f", value, 1)[0])
    return np.nan


def encode_bytes(blob: bytes) -> bytes:
    n = len(blob)
    head = bytearray((_BYTES,))
    while n > 127:
        head.append(n & 127 | 128)
        n >>= 7
    head.append(n)
    return bytes(head) + blob


def decode_bytes(value: bytes | None) -> bytes | None:
    """What ``encode_bytes`` was given; None where there is none."""
    if not value or value[0] != _BYTES:
        return None
    at = 1
    while value[at] > 127:
        at += 1
    return value[at + 1 :]


def encode_times(times_us: Ints) -> list[bytes]:
    """google.protobuf.Timestamp of each; seconds and nanoseconds that are 0 have no bytes."""
    seconds, micros = np.divmod(times_us, 1_000_000)
    whole = _varints(seconds.astype(np.int64).view(np.uint64), 0x08)
    parts = _varints((micros * 1000).astype(np.uint64), 0x10)
    whole = [b"" if not second else text for second, text in zip(seconds.tolist(), whole, strict=True)]
    if not micros.any():
        return whole
    parts = [b"" if not micro else text for micro, text in zip(micros.tolist(), parts, strict=True)]
    return [a + b for a, b in zip(whole, parts, strict=True)]


def decode_time(value: bytes) -> int:
    """Microseconds of a google.protobuf.Timestamp; nanoseconds below one are cut."""
    seconds = nanos = at = 0
    while at < len(value):
        tag = value[at]
        number, at = _varint(value, at + 1)
        if tag == 0x08:
            seconds = number - 2**64 if number >> 63 else number
        elif tag == 0x10:
            nanos = number
    return seconds * 1_000_000 + nanos // 1000


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends."""
    number = shift = 0
    while True:
        byte = value[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _fixed(values: NDArray[Any], width: int) -> list[bytes]:
    encoded: list[bytes] = values.view(f"V{width}").tolist()
    return encoded


def _varints(numbers: NDArray[np.uint64], tag: int) -> list[bytes]:
    """Tag and base-128 digits of each, lowest first; all but the last have their high bit set."""
    if not len(numbers):
        return []
    n_digits = max(1, -(-int(numbers.max()).bit_length() // 7))
    digits = numbers[:, None] >> (7 * np.arange(n_digits, dtype=np.uint64))
    lengths = np.maximum((digits > 0).sum(axis=1), 1)
    data = np.empty((len(numbers), n_digits + 1), dtype=np.uint8)
    data[:, 0] = tag
    data[:, 1:] = (digits & np.uint64(127)) | np.where(
        np.arange(1, n_digits + 1) < lengths[:, None], np.uint64(128), np.uint64(0)
    )
    if n_digits == 1:
        return _fixed(data.reshape(-1).view("V2"), 2)
    flat, width = data.tobytes(), n_digits + 1
    starts = range(0, len(flat), width)
    return [flat[at : at + 1 + n] for at, n in zip(starts, lengths.tolist(), strict=True)]


def key_prefix(keys: Sequence[tuple[str, str]]) -> bytes:
    """What all entity keys of these (column, type) begin with."""
    names = [name.encode() for name, _ in keys]
    return struct.pack("<I", len(names)) + b"".join(struct.pack("<II", 2, len(name)) + name for name in names)


def project_of(redis_key: bytes) -> str | None:
    """The project that follows an entity key in a Redis key; None where it is no such key."""
    try:
        (n_keys,) = struct.unpack_from("<I", redis_key)
        at = 4
        for _ in range(2 * n_keys):  # names, then values
            at += 8 + struct.unpack_from("<I", redis_key, at + 4)[0]
        return redis_key[at:].decode() if at <= len(redis_key) else None
    except (struct.error, UnicodeDecodeError):
        return None


def layout_problems(states: Iterable[StateView]) -> list[str]:
    """Features that would share one field of an entity's hash, and states that would share one Feast view."""
    problems = []
    fields: dict[tuple[str, tuple[tuple[str, str], ...], bytes], str] = {}
    views: dict[tuple[str, str], str] = {}
    for state in states:
        known = views.setdefault((state.project, state.feast_view), state.state_id)
        if known != state.state_id:
            problems.append(
                f"view {state.view!r}: two states share the Feast view {state.feast_view!r}; rename the view"
            )
            continue
        for feature in (*(name for name, _ in state.published), STATE):
            name = f"{state.feast_view}:{feature}"
            field = feature_field(state.feast_view, feature)
            other = fields.setdefault((state.project, state.keys, field), name)
            if other != name:
                problems.append(
                    f"features {other!r} and {name!r} share the field {field.hex()} of their entity's hash in Redis; "
                    "rename one of them"
                )
    return problems
