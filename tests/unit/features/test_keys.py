"""Event ids as numbers: the same alone or among many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidewheel.features.keys import hashed_ids


@given(st.lists(st.text(max_size=40), min_size=2, max_size=20))
def test_an_id_has_the_same_hash_alone_and_among_others(ids: list[str]) -> None:
    together = hashed_ids(np.array(ids, dtype=object))
    alone = [hashed_ids(np.array([one], dtype=object))[0] for one in ids]
    assert together.tolist() == alone


def test_a_number_as_id_is_hashed_as_its_digits() -> None:
    assert hashed_ids(np.array([12]))[0] == hashed_ids(np.array(["12"], dtype=object))[0]
