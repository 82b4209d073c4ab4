"""Entity keys and event ids as bytes and numbers: what the online store is addressed by. NumPy only.

An int64 key is 8 bytes, little-endian; a string key is its UTF-8. An event id (always text) becomes a 64-bit hash,
the same alone or among many and on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]

_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MASK = 2**64 - 1


def key_bytes(values: NDArray[Any], key_type: str) -> list[bytes]:
    """One key per value."""
    if key_type == "int64":
        data = np.ascontiguousarray(values, dtype="<i8").tobytes()
        return [data[at : at + 8] for at in range(0, len(data), 8)]
    return [str(value).encode() for value in values]


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
