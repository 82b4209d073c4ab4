"""Sticky assignment: shares are right, the same unit stays, a growing candidate keeps its units."""

from __future__ import annotations

import numpy as np
import pytest

from tidewheel.deployment.assignment import assign, assign_all, unit_places

PLACES = [0.7815104934739276, 0.5363937635685999]
UNITS = [str(unit) for unit in range(20_000)]


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_a_candidate_gets_its_share_of_the_units(share: float) -> None:
    got = assign_all(UNITS, "salt", {"new": share, "old": 1 - share})
    assert abs(got.count("new") / len(UNITS) - share) < 0.015


def test_a_unit_meets_the_same_variant_alone_and_among_others() -> None:
    weights = {"new": 0.3, "old": 0.7}
    assert [assign(unit, "salt", weights) for unit in UNITS[:200]] == assign_all(UNITS[:200], "salt", weights)


def test_a_growing_candidate_keeps_every_unit_it_had() -> None:
    small = assign_all(UNITS, "salt", {"new": 0.05, "old": 0.95})
    large = assign_all(UNITS, "salt", {"new": 0.25, "old": 0.75})
    assert all(after == "new" for before, after in zip(small, large, strict=True) if before == "new")


def test_another_salt_chooses_other_units() -> None:
    one = np.array(unit_places(UNITS, "one"))
    two = np.array(unit_places(UNITS, "two"))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


def test_places_are_the_same_on_every_machine() -> None:
    """Frozen: a change would move every unit of a running experiment."""
    assert unit_places(["1042", ""], "card-fraud").tolist() == PLACES


def test_with_one_version_nothing_is_hashed() -> None:
    assert assign_all(["a", "b"], "salt", {"1": 1.0}) == ["1", "1"]
