"""Tensors as bytes: little-endian, row-major, one after the other; texts have a length of four bytes in front.

The binary extension of the Open Inference Protocol over REST and ``raw_input_contents`` over gRPC are both this.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.serving.request import BadRequest

_DTYPES = {
    "BOOL": "<u1", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2",
}  # fmt: skip
DATATYPES = (*_DTYPES, "BYTES")
MAX_ELEMENTS = 1 << 20
_LENGTH = struct.Struct("<I")


def elements_of(name: str, shape: Sequence[int]) -> int:
    """How many values a shape holds. Raises BadRequest where it is no shape or a lie about memory."""
    n = 1
    for size in shape:
        if size < 0:
            raise BadRequest(f"{name}: a shape has no negative sizes (got {list(shape)[:8]})")
        n *= size
        if n > MAX_ELEMENTS:
            raise BadRequest(f"{name}: at most {MAX_ELEMENTS} values in one tensor (got shape {list(shape)[:8]})")
    return n if shape else 0


def values_of(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> list[Any]:
    """The values of a tensor. NaN, which binary forms have for want of a null, is None: missing.

    Raises BadRequest where the bytes are not what datatype and shape say, or hold an infinity.
    """
    n = elements_of(name, shape)
    if datatype == "BYTES":
        return _texts(name, n, bytes(raw))
    kind = _DTYPES.get(datatype)
    if kind is None:
        raise BadRequest(f"{name}: wrong datatype (got {datatype[:20]!r}); allowed are {', '.join(DATATYPES)}")
    dtype = np.dtype(kind)
    if len(raw) != n * dtype.itemsize:
        raise BadRequest(
            f"{name}: {datatype} of shape {list(shape)[:8]} takes {n * dtype.itemsize} bytes (got {len(raw)})"
        )
    values: NDArray[Any] = np.frombuffer(raw, dtype)
    if datatype == "BOOL":
        if n and values.max() > 1:
            raise BadRequest(f"{name}: a BOOL is the byte 0 or 1 (got {int(values.max())})")
        values = values.astype(np.bool_)
    if datatype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if values.dtype.kind == "f":
        return finite_or_missing(name, values)
    listed: list[Any] = values.tolist()
    return listed


def finite_or_missing(name: str, values: NDArray[Any] | Sequence[float]) -> list[Any]:
    """Floats with None for NaN. Raises BadRequest for an infinity."""
    array = np.asarray(values)
    listed: list[Any] = array.tolist()
    if np.isfinite(array).all():
        return listed
    if np.isinf(array).any():
        raise BadRequest(f"{name}: must be finite (got an infinity); NaN is a missing value")
    for at in np.flatnonzero(np.isnan(array)).tolist():
        listed[at] = None
    return listed


def _texts(name: str, n: int, raw: bytes) -> list[Any]:
    values: list[Any] = []
    at = 0
    while at < len(raw):
        start = at + 4
        end = start + _LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else len(raw) + 1
        if end > len(raw) or len(values) == n:
            raise BadRequest(f"{name}: lengths of texts do not fit the {len(raw)} bytes and {n} values of the tensor")
        values.append(as_text(name, raw[start:end]))
        at = end
    if len(values) != n:
        raise BadRequest(f"{name}: must hold {n} texts (got {len(values)})")
    return values


def as_text(name: str, raw: bytes) -> str:
    """Raises BadRequest where it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{name}: texts must be UTF-8 (got {raw[:20]!r})") from None


def raw_of(datatype: str, values: Sequence[Any]) -> bytes:
    """Values of a reply as bytes; None in a float is NaN."""
    if datatype == "BYTES":
        texts = [str(value).encode() for value in values]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return np.array(values, dtype=_DTYPES[datatype]).tobytes()
