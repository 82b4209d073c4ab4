"""Rows to compute features for: from a table to arrays, and from values back to a table.

Shared by the engines over files; the reader is given arrays by the model server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.errors import InputError
from tidewheel.features.declaration import FeatureSet, RequestView
from tidewheel.features.events import validate_events
from tidewheel.features.functions import run_function
from tidewheel.features.record_events import exact_names
from tidewheel.spec.project import ModelProject

Values = NDArray[np.float64]

_GREATEST_INT = float(np.nextafter(2.0**63, 0))  # the greatest double that an int64 can hold


@dataclass(frozen=True)
class TrainingRows:
    """Requests with mature labels. ``rows`` has keys, event time, event id, request columns and ``label`` (int8)."""

    rows: pa.Table
    n_unmatched: int  # labels in the window whose request is not known


def normalised_rows(rows: pa.Table, project: ModelProject, features: FeatureSet) -> pa.Table:
    """``rows`` with their request columns normalised, same order; raises InputError where one cannot be used."""
    request = project.request_source
    optional = {request.event_id or ""}
    if project.label.source == project.request:
        optional.add(project.label.column)
    checked = validate_events(rows, project.request, project, keys=features.key_columns, optional=optional)
    if checked.rejected.num_rows:
        raise InputError(
            f"{checked.rejected.num_rows} of {rows.num_rows} row(s) cannot be used; the first: "
            f"{checked.rejected.column('reason')[0].as_py()}"
        )
    return checked.good


def request_arrays(normal: pa.Table, features: FeatureSet) -> dict[str, NDArray[Any]]:
    """Request fields as request functions get them: numbers, NaN where missing, text as objects, times as us.

    Of integers with nulls, which become float64, there are ``exact_names``, too.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name in features.request.fields:
        if name not in normal.column_names:
            continue
        column = normal.column(name)
        arrays[name] = column_array(column)
        if pa.types.is_int64(column.type) and column.null_count:
            exact, null = exact_names(name)
            arrays[exact], arrays[null] = filled_integers(column)
    return arrays


def filled_integers(column: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Integers or bools in their type, 0 where they are null, and where they are null."""
    filled = pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0)
    return column_array(filled), ~np.asarray(pc.is_valid(column), dtype=bool)


def column_array(column: pa.ChunkedArray) -> NDArray[Any]:
    """One column as NumPy: int64 or float64 (NaN for null), bool, object text, datetime64[us]."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return np.asarray(column.cast(pa.timestamp("us")).to_numpy(), dtype="M8[us]")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), dtype=object)
    if pa.types.is_integer(kind) and not column.null_count:
        return np.asarray(column.to_numpy(), dtype=np.int64)
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy(), dtype=bool)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def apply_defaults(values: Values, default: float | None) -> Values:
    """``values`` with the feature's default where they are missing."""
    return values if default is None else np.where(np.isnan(values), default, values)


def run_request_views(features: FeatureSet, found: dict[str, Values], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Add every request function's values to ``found``, whose values have their defaults already."""
    n = len(next(iter(arrays.values()))) if arrays else 0
    for view in features.views:
        if isinstance(view, RequestView):
            # A request field wins over a feature of the same name: only a function that passes it on may share it.
            given = {name: arrays[name] if name in arrays else found[name] for name in view.arguments}
            found[view.name] = run_function(view.name, view.function, given, n)


def with_features(rows: pa.Table, features: FeatureSet, found: Mapping[str, Values]) -> pa.Table:
    """``rows`` and one column per feature: null where missing; a column that has a feature's name gives way to it."""
    for name, dtype in zip(features.names, features.dtypes, strict=True):
        values = found[name]
        if dtype == "int64":
            values = np.clip(values, -(2.0**63), _GREATEST_INT)  # a whole number next to the limit rounds beyond it
        column = pa.array(values, pa.float64(), from_pandas=True)
        if dtype != "float64":
            column = column.cast(pa.int64() if dtype == "int64" else pa.bool_(), safe=False)
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, column)
        else:
            rows = rows.append_column(name, column)
    return rows
