"""Which reference is fit, and what a feature is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tidewheel.bundle.reference import FeatureReference, Reference
from tidewheel.clock import DAY_US
from tidewheel.evaluation.profiles import Profile
from tidewheel.monitoring.compare import feature_facts, first_days, previous_week
from tidewheel.monitoring.served import ServedProfile, past_profiles, write_profile

EDGES = (1.0, 2.0)
TRAINED = Reference(0, 28 * DAY_US, 3000, 100.0, 0.01, (FeatureReference("x", EDGES, (1000, 1000, 1000), 0),), (), (0,))


def day(number: int, counts: tuple[int, ...] = (100, 100, 100), **change: object) -> ServedProfile:
    profile = Profile(EDGES, counts, 0, 0.0, 3.0)
    made = ServedProfile(number * DAY_US, (number + 1) * DAY_US, "d", 300, 0, {"x": profile}, profile)
    return replace(made, **change)  # type: ignore[arg-type]


def compared(
    past: list[ServedProfile], *, filled_day: int | None = None, mode: str = "training", now: int = 50
) -> list[tuple[str, int]]:
    filled = {} if filled_day is None else {"x": filled_day * DAY_US}
    facts = feature_facts(["x"], {"x": "s"}, day(now), TRAINED, past, filled, mode)
    return [(one.reference, one.n_reference) for one in facts[0].comparisons]


@pytest.mark.parametrize(
    ("filled_day", "want"),
    [
        pytest.param(None, [("training", 3000), ("first days", 600)], id="no window to fill"),
        pytest.param(0, [("training", 3000), ("first days", 600)], id="full when training began"),
        pytest.param(1, [("first days", 600)], id="still filling in training"),
        pytest.param(41, [("first days", 300)], id="still filling on the first day of service"),
        pytest.param(42, [], id="still filling in every reference"),
    ],
)
def test_a_reference_is_fit_once_the_window_was_full(filled_day: int | None, want: list[tuple[str, int]]) -> None:
    assert compared([day(40), day(41)], filled_day=filled_day) == want


def test_the_previous_week_stands_alone_where_the_spec_says_so() -> None:
    past = [day(number) for number in range(30, 50)]
    assert compared(past, mode="previous_week") == [("previous week", 2100)]
    assert [one.start_us // DAY_US for one in previous_week(past, 50 * DAY_US)] == list(range(43, 50))


def test_a_reference_of_too_few_rows_is_none() -> None:
    assert compared([day(40, (60, 60, 60))]) == [("training", 3000)]


def test_the_first_days_are_a_week_and_drifted_ones_join_only_at_the_very_start() -> None:
    past = [day(40, drifted=True), day(41, (900, 50, 50)), day(42, drifted=True), *(day(n) for n in range(43, 50))]
    assert [one.start_us // DAY_US for one in first_days(past)] == [40, 41, 43, 44, 45, 46]
    assert first_days([]) == []


def test_the_distance_is_that_of_the_counts() -> None:
    facts = feature_facts(["x"], {}, day(50, (280, 10, 10)), TRAINED, [], {}, "training")[0]
    p, q = np.array([1000.5] * 3) / 3001.5, np.array([280.5, 10.5, 10.5]) / 301.5
    assert facts.comparisons[0].psi == pytest.approx(((p - q) * np.log(p / q)).sum())
    assert (facts.source, facts.n_rows, facts.constant) == ("request", 300, False)


def test_profiles_of_other_versions_broken_days_and_later_ones_are_not_the_past(tmp_path: Path) -> None:
    kept = [day(40), day(41, score=None)]
    for number, one in enumerate([*kept, day(42, digest="e"), day(43, clean=False), day(44)]):
        write_profile(tmp_path / str(number), one)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "profile.json").write_text("{")
    assert list(past_profiles(tmp_path, "d", 44 * DAY_US)) == kept
