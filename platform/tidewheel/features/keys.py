"""Entity keys and event ids as bytes and numbers: what the online store is addressed by. NumPy only.

An entity key is Feast's (serialisation version 3, without the project), so that stock Feast clients find what we
write: number of keys, their names sorted, then type, length and bytes of each value. An event id (always text)
becomes a 64-bit hash, the same alone or among many and on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]

_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MASK = 2**64 - 1

_STRING, _INT64 = 2, 4  # Feast's ValueType numbers
_INT64_HEAD = struct.pack("<II", _INT64, 8)


def entity_keys(keys: Sequence[tuple[str, str]], values: Sequence[NDArray[Any]]) -> list[bytes]:
    """One key per row; ``keys`` are (column, int64 | string), sorted by column, ``values`` [n] of each."""
    head = _head(tuple(name for name, _ in keys))
    if len(keys) == 1:
        return [head + part for part in _parts(keys[0][1], values[0])]
    columns = [_parts(kind, column) for (_, kind), column in zip(keys, values, strict=True)]
    return [head + b"".join(parts) for parts in zip(*columns, strict=True)]


@cache
def _head(names: tuple[str, ...]) -> bytes:
    told = [struct.pack("<II", _STRING, len(name.encode())) + name.encode() for name in names]
    return struct.pack("<I", len(names)) + b"".join(told)


def _parts(kind: str, values: NDArray[Any]) -> list[bytes]:
    """Type, length and bytes of each value."""
    if kind == "int64":
        head = _INT64_HEAD
        data = np.ascontiguousarray(values, dtype="<i8").tobytes()
        return [head + data[at : at + 8] for at in range(0, len(data), 8)]
    encoded = [str(value).encode() for value in values]
    return [struct.pack("<II", _STRING, len(text)) + text for text in encoded]


def mixed(numbers: UInt64) -> UInt64:
    """A bijection that scatters bits. Source: splitmix64, G. Steele, D. Lea, C. Flood, 2014."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MULTIPLIER
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _SECOND
    return numbers ^ (numbers >> np.uint64(31))


def hashed_ids(ids: Sequence[bytes] | NDArray[Any]) -> UInt64:
    """uint64 [n] of UTF-8 event ids (or an array of them as text, objects or integers)."""
    texts = id_texts(ids)
    if not len(texts):
        return np.zeros(0, dtype=np.uint64)
    if len(texts) == 1:
        return np.array([_hashed_id(texts[0])], dtype=np.uint64)
    width = -(-max(texts.dtype.itemsize, 1) // 8) * 8
    words = texts.astype(f"S{width}").view("<u8").reshape(len(texts), width // 8)
    lengths = np.char.str_len(texts).astype(np.uint64)
    state = mixed(lengths + _STEP)
    for index in range(words.shape[1]):
        # Words beyond a text's own end are skipped, so that its neighbours' lengths do not matter.
        state = np.where(lengths > index * 8, mixed(state ^ words[:, index]) + _STEP, state)
    return state


def _hashed_id(text: bytes) -> int:
    """The same hash of one id, in whole numbers: a request asks about one, and small arrays cost more than it does."""
    state = _mixed_one((len(text) + int(_STEP)) & _MASK)
    for at in range(0, len(text), 8):
        state = (_mixed_one(state ^ int.from_bytes(text[at : at + 8], "little")) + int(_STEP)) & _MASK
    return state


def _mixed_one(number: int) -> int:
    number = (number ^ (number >> 30)) * int(_MULTIPLIER) & _MASK
    number = (number ^ (number >> 27)) * int(_SECOND) & _MASK
    return number ^ (number >> 31)


def id_texts(ids: Sequence[bytes] | NDArray[Any]) -> NDArray[Any]:
    """Event ids as an array of UTF-8 bytes (dtype S)."""
    if isinstance(ids, np.ndarray):
        if ids.dtype.kind == "S":
            return ids
        if ids.dtype.kind in "iu":
            return ids.astype("S20")
        if ids.dtype.kind == "U" and ids.dtype.itemsize:
            return np.char.encode(ids, "utf-8")
    encoded = [one if isinstance(one, bytes) else str("" if one is None else one).encode() for one in ids]
    return np.array(encoded, dtype=bytes) if encoded else np.zeros(0, dtype="S1")
