"""Inputs by name to a PredictRequest, whatever protocol they came by.

A caller sends entity keys and request columns, and features are read; or it sends the model's whole feature vector,
by name or as one tensor ``features`` of shape [n, k] in the model's order, and nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidewheel.serving.columns import FLOAT_DATATYPES, Accepted, Column
from tidewheel.serving.request import BadRequest, PredictRequest

MAX_ROWS = 4096
MAX_ID = 200
VECTOR = "features"
VECTOR_DATATYPES = ("FP64", "FP32")
_NUMBERS = {int, float, bool, type(None)}


@dataclass(frozen=True, slots=True)
class Call:
    """What a server knows of a request besides its body. ``arrived_us`` is monotonic, the first byte's time;
    ``now_us`` the event time of a caller that sends none, ``new_id`` likewise; ``timeout_us`` the caller's patience."""

    new_id: str
    now_us: int
    arrived_us: int
    pinned: str | None = None
    timeout_us: int | None = None


class Tensor(Protocol):
    """An input. Without a ``datatype`` it is a plain list of one value per row."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def datatype(self) -> str | None: ...
    @property
    def data(self) -> list[Any]: ...


def assemble(inputs: Iterable[Tensor], accepted: Accepted, call: Call, request_id: str | None) -> PredictRequest:
    """Check inputs whole. Raises BadRequest that names the field, what was got and what is allowed."""
    columns = accepted.columns
    known, n_rows = columns.by_name, -1
    got: dict[str, list[Any]] = {}
    given: dict[str, NDArray[np.float64]] = {}  # features by name, or all of them
    for tensor in inputs:
        column = known.get(tensor.name)
        if column is None:
            n = _take_features(tensor, accepted, given)
        elif _is_plain(tensor, column, got):  # nearly every request
            data = tensor.data
            n = len(data)
            got[column.name] = column.checked(data)
        else:
            if column.name in got:
                raise BadRequest(f"{column.name}: sent twice; send each input once")
            if tensor.datatype is not None and tensor.datatype not in column.datatypes:
                allowed = ", ".join(column.datatypes)
                raise BadRequest(f"{column.name}: wrong datatype (got {tensor.datatype[:20]!r}); allowed are {allowed}")
            data = _flat(column.name, tensor)
            n = _rows(column.name, tensor.shape, data)
            got[column.name] = column.checked(data)
        if n_rows not in (-1, n):
            name = tensor.name if column is None else column.name
            raise BadRequest(f"{name}: every input must have the same number of rows (got {n} and {n_rows})")
        n_rows = n
    if not given:
        missing = [name for name in columns.required if name not in got]
        if missing:
            raise BadRequest(f"inputs: required but missing: {', '.join(missing)}")
    request_id = request_id or call.new_id
    if len(request_id) > MAX_ID:
        raise BadRequest(f"id: must be at most {MAX_ID} characters (got {len(request_id)})")
    vectors = _vectors(accepted, given, got) if given else None
    times = got.pop(columns.event_time, None) or [None] * n_rows
    events = got.pop(columns.event_id, None) or [None] * n_rows
    request = PredictRequest(
        request_id,
        n_rows,
        got,
        [],
        [call.now_us if at_us is None else at_us for at_us in times],
        call.arrived_us,
        # A vector is of one version: the one that was named, else the champion.
        call.pinned if vectors is None else call.pinned or accepted.version,
        call.timeout_us,
        vectors,
    )
    request.event_ids = [request.row_id(row) if event is None else event for row, event in enumerate(events)]
    return request


def _is_plain(tensor: Tensor, column: Column, got: Mapping[str, object]) -> bool:
    """Whether there is nothing to find fault with but the values: a list of the shape that it says, sent once."""
    data, datatype = tensor.data, tensor.datatype
    n = len(data)
    return (
        0 < n <= MAX_ROWS
        and tensor.shape == [n]
        and (datatype is None or datatype in column.accepted)
        and type(data[0]) is not list
        and column.name not in got
    )


def _flat(name: str, tensor: Tensor) -> list[Any]:
    """The values in one list; nested lists must have the sizes that the shape says."""
    data = tensor.data
    if not data or type(data[0]) is not list:
        return data
    inner = tensor.shape[1] if len(tensor.shape) == 2 else -1
    if tensor.shape[:1] != [len(data)] or any(type(row) is not list or len(row) != inner for row in data):
        raise BadRequest(f"{name}: shape does not fit the nested data (got {tensor.shape[:8]} for {len(data)} lists)")
    return [value for row in data for value in row]


def _rows(name: str, shape: list[int], data: list[Any]) -> int:
    n = len(data)
    if shape not in ([n], [n, 1]) or n == 0:
        raise BadRequest(f"{name}: shape does not fit data (got {shape[:8]} for {n} values); allowed is [n] or [n, 1]")
    if n > MAX_ROWS:
        raise BadRequest(f"{name}: at most {MAX_ROWS} rows in one request (got {n}); split it")
    return n


def _take_features(tensor: Tensor, accepted: Accepted, given: dict[str, NDArray[np.float64]]) -> int:
    """Add a feature, or all of them, to ``given``; the number of rows."""
    name, k = tensor.name, len(accepted.features)
    whole = name == VECTOR and k > 0 and name not in accepted.features
    if not whole and name not in accepted.only_features:
        allowed = ", ".join(accepted.columns.by_name)
        also = f", or all features of version {accepted.version}, by name or as {VECTOR!r}" if k else ""
        raise BadRequest(f"inputs: unknown name (got {name[:100]!r}); allowed are {allowed}{also}")
    if name in given:
        raise BadRequest(f"{name}: sent twice; send each input once")
    allowed_types = VECTOR_DATATYPES if whole else (*FLOAT_DATATYPES, "BOOL")
    if tensor.datatype is not None and tensor.datatype not in allowed_types:
        allowed = ", ".join(allowed_types)
        raise BadRequest(f"{name}: wrong datatype (got {tensor.datatype[:20]!r}); allowed are {allowed}")
    data = _flat(name, tensor)
    if whole:
        n = tensor.shape[0] if len(tensor.shape) == 2 else -1
        if tensor.shape != [n, k] or len(data) != n * k or n < 1:
            raise BadRequest(
                f"{name}: must have shape [n, {k}], one value per feature of version {accepted.version} "
                f"(got {tensor.shape[:8]} for {len(data)} values)"
            )
        if n > MAX_ROWS:
            raise BadRequest(f"{name}: at most {MAX_ROWS} rows in one request (got {n}); split it")
    else:
        n = _rows(name, tensor.shape, data)
    given[name] = _floats(name, data)
    return n


def _floats(name: str, data: list[Any]) -> NDArray[np.float64]:
    """Values of features; null is missing."""
    wrong = [value for value in data if type(value) not in _NUMBERS]
    if wrong:
        raise BadRequest(f"{name}: must be a number (got {repr(wrong[0])[:40]})")
    try:
        return np.array(data, dtype=np.float64)
    except OverflowError:
        raise BadRequest(f"{name}: a number does not fit in 64 bits of a float") from None


def _vectors(
    accepted: Accepted, given: dict[str, NDArray[np.float64]], got: dict[str, list[Any]]
) -> NDArray[np.float64]:
    """[n, k]; a feature that passes a request column on may be sent as that column."""
    if VECTOR in given and VECTOR not in accepted.features:
        if len(given) > 1:
            raise BadRequest(f"{VECTOR}: holds every feature already (got {', '.join(list(given)[:8])} as well)")
        return given[VECTOR].reshape(-1, len(accepted.features))
    missing = [name for name in accepted.features if name not in given and name not in got]
    if missing:
        raise BadRequest(f"inputs: features are sent all or none; missing: {', '.join(missing[:20])}")
    return np.column_stack([given[name] if name in given else _floats(name, got[name]) for name in accepted.features])
