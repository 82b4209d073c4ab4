"""Binned summaries: edges, counts, and sums over parts."""

from __future__ import annotations

import numpy as np
import pytest

from tidewheel.evaluation.profiles import Profile, bin_counts, decile_edges, merged, profile_of

NAN = float("nan")


def test_edges_of_distinct_values_are_the_inner_deciles() -> None:
    assert decile_edges(np.arange(101.0)) == pytest.approx(np.arange(10, 100, 10))


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        pytest.param([], [], id="no value"),
        pytest.param([NAN, NAN], [], id="only missing values"),
        pytest.param([3.0], [3.0], id="one value"),
        pytest.param([0.0] * 95 + [1.0] * 5, [0.0], id="a rare flag"),
        pytest.param([0.0] * 50 + [1.0] * 50, [0.0, 0.5, 1.0], id="a fair flag"),
    ],
)
def test_ties_share_an_edge(values: list[float], edges: list[float]) -> None:
    assert decile_edges(np.array(values, dtype=np.float64)).tolist() == edges


def test_a_value_at_an_edge_counts_below_it_and_a_missing_one_nowhere() -> None:
    values = np.array([-np.inf, 1.0, 1.1, 2.0, 9.0, NAN])
    assert bin_counts(np.array([1.0, 2.0]), values).tolist() == [2, 2, 1]


def test_parts_add_up_to_the_whole() -> None:
    values = np.concatenate([np.random.default_rng(1).normal(size=999), [NAN, NAN]])
    edges = tuple(decile_edges(values))
    whole = profile_of(edges, values)
    assert merged(profile_of(edges, part) for part in np.array_split(values, 7)) == whole
    assert (whole.n_rows, whole.n_known, whole.n_missing) == (1001, 999, 2)


def test_nothing_adds_up_to_nothing_and_other_edges_are_refused() -> None:
    assert merged([]) is None
    with pytest.raises(ValueError, match="different edges"):
        merged([Profile((1.0,), (1, 1)), Profile((2.0,), (1, 1))])


def test_a_profile_knows_its_shares() -> None:
    profile = profile_of((1.0,), np.array([0.0, 0.0, 5.0, NAN]))
    assert profile == Profile((1.0,), (2, 1), 1, 0.0, 5.0)
    assert (profile.missing_ratio, round(profile.top_ratio, 3)) == (0.25, 0.667)
