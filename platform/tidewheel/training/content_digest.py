"""One digest of a table's content that comes in pieces, whatever the pieces: equal data, equal digest.

Floats count as float32, which is what a model is given: engines that add in another order differ in the last bits of
a float64. Minus zero is zero.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class ContentDigest:
    """SHA-256 per column, joined by name and type at the end."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._hashes = [[hashlib.sha256() for _ in range(3)] for _ in schema]  # validity, values, lengths

    def update(self, table: pa.Table) -> None:
        """Add the next rows; the columns are the schema's."""
        for (valid, values, lengths), column in zip(self._hashes, table.columns, strict=True):
            for chunk in column.chunks:
                valid.update(np.asarray(pc.is_valid(chunk), dtype=bool).tobytes())
                kind = chunk.type
                if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                    texts = pc.fill_null(chunk, "")
                    lengths.update(np.asarray(pc.binary_length(texts), dtype="<i8").tobytes())
                    values.update("".join(texts.to_pylist()).encode())
                else:
                    values.update(_plain(chunk).tobytes())

    def hexdigest(self) -> str:
        parts = [
            [field.name, str(field.type), *(one.hexdigest() for one in hashes)]
            for field, hashes in zip(self._schema, self._hashes, strict=True)
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _plain(chunk: pa.Array) -> np.ndarray[Any, Any]:
    """Values as little-endian numbers, 0 where null."""
    kind = chunk.type
    if pa.types.is_timestamp(kind):
        chunk, kind = chunk.cast(pa.timestamp("us", kind.tz)).cast(pa.int64()), pa.int64()
    if pa.types.is_floating(kind):
        numbers = np.asarray(pc.fill_null(chunk, 0.0).to_numpy(zero_copy_only=False))
        with np.errstate(over="ignore"):
            return numbers.astype("<f4") + np.float32(0.0)
    if pa.types.is_boolean(kind):
        return np.asarray(pc.fill_null(chunk, False), dtype=bool)
    return np.asarray(pc.fill_null(chunk, 0).to_numpy(zero_copy_only=False)).astype("<i8")
