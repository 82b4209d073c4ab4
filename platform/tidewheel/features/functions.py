"""Request functions: which arguments they take, what they return, and running them in order.

The same code serves training rows and requests. NumPy only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import ContractViolation
from tidewheel.features.declaration import RequestSchema

Arrays = Mapping[str, NDArray[Any]]

_EMPTY_DTYPES = {"float64": "f8", "float32": "f8", "int64": "i8", "int32": "i8", "bool": "?", "string": "O"}


def function_arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a request function's arguments; raises ValueError where it cannot be called by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ValueError("@request needs a Python function") from error
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"argument {parameter.name!r} must be plain: a request field or a feature, by name")
        if parameter.default is not parameter.empty:
            raise ValueError(f"argument {parameter.name!r} must not have a default: it is always given")
    if not parameters:
        raise ValueError("a request function needs at least one argument")
    return tuple(parameter.name for parameter in parameters)


def probe_function(
    function: Callable[..., Any], arguments: Sequence[str], request: RequestSchema, features: Mapping[str, str]
) -> str:
    """Run on zero rows; the feature's dtype. Raises ValueError where it fails or returns something else."""
    given = {name: np.empty(0, dtype=_field_dtype(name, request, features)) for name in arguments}
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function(**given))
    except Exception as error:  # whatever the project's own code raises is the project's mistake
        raise ValueError(f"fails on an empty batch of rows: {type(error).__name__}: {error}") from error
    if result.shape != (0,):
        raise ValueError(
            f"must return one value per row (got shape {result.shape} for 0 rows); use vectorised NumPy functions"
        )
    if result.dtype.kind not in "bifu":
        raise ValueError(f"must return numbers or bool (got {result.dtype})")
    return {"b": "bool", "f": "float64"}.get(result.dtype.kind, "int64")


def _field_dtype(name: str, request: RequestSchema, features: Mapping[str, str]) -> str:
    if name == request.event_time:
        return "M8[us]"
    if name == request.event_id:
        return "O"
    if name in request.keys:
        return "i8" if request.keys[name] == "int64" else "O"
    if name in request.columns:
        return _EMPTY_DTYPES[request.columns[name]]
    return "f8" if name in features else "O"


def run_function(name: str, function: Callable[..., Any], arguments: Mapping[str, Any], n: int) -> NDArray[np.float64]:
    """float64 [n]; infinities become missing. Raises ContractViolation where the function fails."""
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(function(**arguments))
    except Exception as error:  # whatever the project's own code raises is the project's mistake
        raise ContractViolation(f"feature {name!r}: its function failed: {type(error).__name__}: {error}") from error
    if result.shape != (n,) or result.dtype.kind not in "bifu":
        raise ContractViolation(
            f"feature {name!r}: its function must return {n} number(s) (got shape {result.shape}, {result.dtype})"
        )
    values = result.astype(np.float64)
    values[np.isinf(values)] = np.nan
    return values
