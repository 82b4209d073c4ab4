"""Equal content has an equal digest, in whatever pieces it comes, and different content another."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tidewheel.training.content_digest import ContentDigest

TABLE = pa.table(
    {
        "id": ["a", "bb", None, "ü"],
        "at": pa.array([1, 2, 3, None], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "value": [0.1, None, -0.0, 2.5],
        "n": pa.array([1, None, 3, 2**62], pa.int64()),
        "yes": [True, None, False, True],
    }
)


def digest_of(table: pa.Table, size: int = 100) -> str:
    made = ContentDigest(table.schema)
    for start in range(0, len(table), size):
        made.update(table.slice(start, size))
    return made.hexdigest()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_pieces_do_not_matter(size):
    assert digest_of(TABLE, size) == digest_of(TABLE)


def test_the_last_bits_of_a_float64_and_the_sign_of_zero_do_not_matter():
    other = TABLE.set_column(2, "value", pa.array([0.1 + 1e-16, None, 0.0, 2.5]))
    assert digest_of(other) == digest_of(TABLE)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(TABLE.slice(1), id="a row less"),
        pytest.param(TABLE.rename_columns(["id", "at", "value", "n", "no"]), id="another name"),
        pytest.param(TABLE.set_column(0, "id", pa.array(["ab", "b", None, "ü"])), id="text cut elsewhere"),
        pytest.param(TABLE.set_column(0, "id", pa.array(["a", "bb", "", "ü"])), id="empty for null"),
        pytest.param(TABLE.set_column(2, "value", pa.array([0.1, 0.0, -0.0, 2.5])), id="zero for null"),
        pytest.param(TABLE.take([1, 0, 2, 3]), id="another order"),
    ],
)
def test_another_content_has_another_digest(other):
    assert digest_of(other) != digest_of(TABLE)
