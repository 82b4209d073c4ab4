"""Tensors as bytes: every datatype there and back, and every lie about sizes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from tidewheel.serving.protocols.tensors import DATATYPES, MAX_ELEMENTS, raw_of, values_of
from tidewheel.serving.request import BadRequest

NUMPY = {
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8, "UINT16": np.uint16,
    "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


@pytest.mark.parametrize("datatype", NUMPY)
def test_numbers_of_every_datatype_are_read_as_numpy_wrote_them(datatype: str) -> None:
    kind = NUMPY[datatype]
    ends = np.iinfo(kind) if datatype[0] in "IU" else np.finfo(kind)
    written = np.array([ends.min, 0, 1, ends.max], dtype=kind)
    assert values_of("x", datatype, [4], written.tobytes()) == written.tolist()
    assert values_of("x", datatype, [2, 2], written.tobytes()) == written.tolist()


def test_flags_texts_and_short_floats_are_read() -> None:
    assert values_of("x", "BOOL", [2], b"\x01\x00") == [True, False]
    assert values_of("x", "BYTES", [2], raw_of("BYTES", ["", "né"])) == ["", "né"]
    assert values_of("x", "BF16", [2], struct.pack("<HH", 0x3FC0, 0xC000)) == [1.5, -2.0]


def test_nan_is_a_missing_value_there_and_back() -> None:
    assert values_of("x", "FP64", [3], raw_of("FP64", [0.5, None, 2.0])) == [0.5, None, 2.0]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_an_infinity_is_refused(datatype: str) -> None:
    raw = {"BF16": struct.pack("<H", 0x7F80)}.get(datatype) or np.array([np.inf], NUMPY[datatype]).tobytes()
    with pytest.raises(BadRequest, match="x: must be finite"):
        values_of("x", datatype, [1], raw)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "message"),
    [
        pytest.param("INT64", [2], b"\0" * 8, "x: INT64 of shape [2] takes 16 bytes (got 8)", id="too few bytes"),
        pytest.param("INT64", [1], b"\0" * 9, "x: INT64 of shape [1] takes 8 bytes (got 9)", id="too many bytes"),
        pytest.param("INT8", [-1], b"", "x: a shape has no negative sizes (got [-1])", id="a negative size"),
        pytest.param(
            "INT8", [2**40, 2**40], b"", f"x: at most {MAX_ELEMENTS} values in one tensor (got shape {[2**40] * 2})",
            id="a shape that lies about memory",
        ),
        pytest.param("BOOL", [1], b"\x02", "x: a BOOL is the byte 0 or 1 (got 2)", id="a flag that is neither"),
        pytest.param("BYTES", [1], b"\xff", "x: lengths of texts do not fit the 1 bytes and 1 values of the tensor",
                     id="half a length"),
        pytest.param("BYTES", [1], b"\xff\xff\xff\xffa", "x: lengths of texts do not fit the 5 bytes and 1 values of "
                     "the tensor", id="a length beyond the end"),
        pytest.param("BYTES", [1], b"\0" * 8, "x: lengths of texts do not fit the 8 bytes and 1 values of the tensor",
                     id="more texts than values"),
        pytest.param("BYTES", [2], b"\0" * 4, "x: must hold 2 texts (got 1)", id="fewer texts than values"),
        pytest.param("BYTES", [1], b"\1\0\0\0\xff", "x: texts must be UTF-8 (got b'\\xff')", id="not UTF-8"),
        pytest.param("FP8", [1], b"\0", f"x: wrong datatype (got 'FP8'); allowed are {', '.join(DATATYPES)}",
                     id="an unknown datatype"),
    ],
)  # fmt: skip
def test_bytes_that_are_not_what_the_tensor_says_are_refused(
    datatype: str, shape: list[int], raw: bytes, message: str
) -> None:
    with pytest.raises(BadRequest) as error:
        values_of("x", datatype, shape, raw)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        pytest.param("BOOL", [True, False], id="flags"),
        pytest.param("FP64", [0.25, -1.0], id="scores"),
        pytest.param("BYTES", ["approve", ""], id="texts"),
    ],
)
def test_a_reply_reads_as_it_was_written(datatype: str, values: list[Any]) -> None:
    assert values_of("x", datatype, [2], raw_of(datatype, values)) == values
