"""Feast's layout, byte by byte; tests/contract holds it against the real SDK."""

from __future__ import annotations

import hashlib
import itertools

import mmh3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.clock import DAY_US
from tidewheel.features import feast_layout as layout
from tidewheel.features.declaration import StateView
from tidewheel.features.keys import entity_keys

INT64 = st.integers(-(2**63), 2**63 - 1)
# Times that datetime can say.
TIMES_US = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


def state(view: str, *features: str, project: str = "p") -> StateView:
    return StateView(
        state_id=hashlib.sha256(view.encode()).hexdigest()[:32], kind="windowed", project=project, view=view,
        source="s", topic="s", keys=(("customer", "int64"),), columns=(), filters=(), retention_us=DAY_US,
        published=tuple((name, "float64") for name in features), event_time="at", event_id="id",
    )  # fmt: skip


@given(st.binary(max_size=70))
def test_the_hash_is_murmur3(data: bytes):
    assert layout.murmur3_32(data) == mmh3.hash(data, signed=False)


def test_a_feature_has_four_bytes_of_its_view_and_name():
    assert layout.feature_field("customer_1a2b3c4d", "n_1h") == mmh3.hash(
        "customer_1a2b3c4d:n_1h", signed=False
    ).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("dtype", "value", "encoded"),
    [
        pytest.param("float64", 1.5, "29 00 00 00 00 00 00 f8 3f", id="a double has a tag and eight bytes"),
        pytest.param("float64", 0.0, "29 00 00 00 00 00 00 00 00", id="zero is written"),
        pytest.param("int64", 0, "20 00", id="an integer has at least one digit"),
        pytest.param("int64", 300, "20 ac 02", id="an integer's digits go from low to high"),
        pytest.param("int64", -1, "20 ff ff ff ff ff ff ff ff ff 01", id="a negative integer has ten digits"),
        pytest.param("int64", 1e300, "20 80 f8 ff ff ff ff ff ff 7f", id="what is too large for int64 is cut"),
        pytest.param("bool", 1, "38 01", id="true"),
        pytest.param("bool", 0, "38 00", id="false"),
        pytest.param("float64", np.nan, "", id="a missing double has no bytes"),
        pytest.param("int64", np.nan, "", id="a missing integer has no bytes"),
    ],
)
def test_a_value_is_written_as_feast_writes_it(dtype: str, value: float, encoded: str):
    assert layout.encode_numbers(dtype, np.array([value], dtype=np.float64)) == [bytes.fromhex(encoded)]


@given(st.lists(st.one_of(st.floats(), st.just(np.nan)), max_size=20))
def test_doubles_come_back(values: list[float]):
    array = np.array(values, dtype=np.float64)
    assert np.array_equal(layout.decode_numbers(layout.encode_numbers("float64", array)), array, equal_nan=True)


@given(st.lists(st.tuples(st.sampled_from(["float64", "int64", "bool"]), st.integers(-(2**53), 2**53)), max_size=20))
def test_values_of_different_types_side_by_side_come_back(values: list[tuple[str, int]]):
    encoded = [layout.encode_numbers(dtype, np.array([float(value)]))[0] for dtype, value in values]
    expected = [float(value != 0) if dtype == "bool" else float(value) for dtype, value in values]
    assert layout.decode_numbers([*encoded, None]).tolist()[:-1] == expected


@pytest.mark.parametrize(
    ("value", "number"),
    [
        pytest.param("35 00 00 c0 3f", 1.5, id="a float"),
        pytest.param("18 2a", 42, id="an int32"),
        pytest.param("40 80 e2 cf aa 06", 1_700_000_000, id="a time"),
    ],
)
def test_numbers_that_others_write_are_read(value: str, number: float):
    assert layout.decode_numbers([bytes.fromhex(value), None])[0] == number


def test_what_is_no_number_is_missing():
    text, blob = b"\x12\x02ab", layout.encode_bytes(b"x" * 300)
    assert np.isnan(layout.decode_numbers([text, blob, b"", None])).all()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_100_000])
def test_bytes_come_back_whatever_their_length(size: int):
    blob = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert layout.decode_bytes(layout.encode_bytes(blob)) == blob


@given(st.lists(TIMES_US, min_size=1, max_size=10))
def test_times_come_back(times_us: list[int]):
    assert [layout.decode_time(time) for time in layout.encode_times(np.array(times_us))] == times_us


def test_a_time_is_written_as_protobuf_does():
    times = np.array([1_700_000_000_123_456, 1_700_000_000_000_000, 0])
    assert [time.hex(" ") for time in layout.encode_times(times)] == [
        "08 80 e2 cf aa 06 10 80 94 ef 3a", "08 80 e2 cf aa 06", "",
    ]  # fmt: skip


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=10))
def test_positions_sort_as_their_bytes(positions: list[int]):
    encoded = layout.encode_positions(np.array(positions))
    assert [int.from_bytes(one, "big") for one in sorted(encoded)] == sorted(positions)


@given(INT64, st.text(max_size=20))
def test_the_project_behind_an_entity_key_is_found(number: int, text: str):
    keys = (("customer", "int64"), ("shop", "string"))
    (key,) = entity_keys(keys, [np.array([number]), np.array([text], dtype=object)])
    assert key.startswith(layout.key_prefix(keys))
    assert layout.project_of(key + b"card_fraud") == "card_fraud"


@pytest.mark.parametrize(
    "key", [b"", b"abc", b"tidewheel:card-fraud", b"\x01\x00\x00\x00\x02\x00\x00\x00\xff\xff\xff\xff"]
)
def test_another_key_has_no_project(key: bytes):
    assert layout.project_of(key) is None


def test_features_of_different_views_may_have_any_names():
    assert layout.layout_problems([state("a", "n", "mean"), state("b", "n", "mean")]) == []


def test_two_features_that_would_share_a_field_are_named():
    fields: dict[bytes, str] = {}
    view = state("a").feast_view
    for number in itertools.count():  # some 80,000 names until two meet
        name = f"f{number}"
        other = fields.setdefault(layout.feature_field(view, name), name)
        if other != name:
            break
    (problem,) = layout.layout_problems([state("a", other, name)])
    assert f"'{view}:{other}' and '{view}:{name}' share the field" in problem
    assert layout.layout_problems([state("a", other), state("a", name, project="q")]) == []


def test_two_states_that_would_share_a_view_are_named():
    one = state("a", "n")
    (problem,) = layout.layout_problems([one, StateView(**{**vars(one), "state_id": one.state_id[:8] + "0" * 24})])
    assert "two states share the Feast view" in problem
