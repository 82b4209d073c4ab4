"""Drift statistics: false alarms and power on seeded simulations, quantiles against tables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tidewheel.evaluation.drift import FALSE_ALARM_RATIO, chi2_quantile, psi, sampling_limit
from tidewheel.evaluation.profiles import bin_counts, decile_edges

COLUMNS, WINDOWS, N_REFERENCE, N_CURRENT = 20, 50, 3_000, 500
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

SHAPES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(sigma=2, size=n),
    "heavy tails": lambda rng, n: rng.standard_t(3, size=n),
    "counts": lambda rng, n: rng.poisson(5, size=n).astype(float),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.8, 0.0, rng.exponential(size=n)),
    "rare flag": lambda rng, n: (rng.random(n) < 0.02).astype(float),
}


def distances(draw: Draw, moved: float, seed: int, n_columns: int) -> NDArray[np.float64]:
    """[windows, columns, 2]: index and chance limit; the reference is drawn anew each time, the current one moved by
    this many standard deviations."""
    rng = np.random.default_rng(seed)
    told = np.empty((WINDOWS, n_columns, 2))
    for window, column in np.ndindex(WINDOWS, n_columns):
        reference, current = draw(rng, N_REFERENCE), draw(rng, N_CURRENT)
        edges = decile_edges(reference)
        was, now = bin_counts(edges, reference), bin_counts(edges, current + moved * reference.std())
        limit = sampling_limit(N_CURRENT, N_REFERENCE, len(was), COLUMNS)
        told[window, column] = psi(was.tolist(), now.tolist()), limit
    return told


@pytest.mark.parametrize("shape", list(SHAPES))
def test_stationary_rows_pass_the_chance_limit_as_rarely_as_it_says_and_the_floor_never(shape: str) -> None:
    told = distances(SHAPES[shape], 0.0, 1, COLUMNS)
    alarms = int((told[:, :, 0] > told[:, :, 1]).any(axis=1).sum())
    # Binomial bound: 4 alarms in 50 windows at a nominal 1 % have a probability of 0.2 %.
    assert FALSE_ALARM_RATIO == 0.01
    assert alarms <= 3
    assert told[:, :, 0].max() < 0.1  # half the usual floor


@pytest.mark.parametrize("shape", ["normal", "heavy tails"])
def test_half_a_standard_deviation_is_always_over_the_chance_limit(shape: str) -> None:
    told = distances(SHAPES[shape], 0.5, 3, 1)
    assert (told[:, :, 0] > told[:, :, 1]).all()


def test_one_standard_deviation_is_always_over_the_usual_floor_too() -> None:
    assert distances(SHAPES["normal"], 1.0, 4, 1)[:, :, 0].min() > 0.2


def test_one_wild_value_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    reference, current = rng.normal(size=5000), rng.normal(0.5, 1, size=5000)
    edges = decile_edges(reference)
    was = bin_counts(edges, reference).tolist()
    plain = psi(was, bin_counts(edges, current).tolist())
    wild = psi(was, bin_counts(edges, np.append(current, 1e6)).tolist())
    assert abs(plain - wild) < 0.002 < 0.2 < plain


@pytest.mark.parametrize(
    ("was", "now", "value"),
    [
        pytest.param([10, 10], [100, 100], 0.0, id="the same shares"),
        pytest.param([0, 0], [0, 0], 0.0, id="no rows"),
        pytest.param([7], [9], 0.0, id="one bin"),
    ],
)
def test_there_is_no_distance_between(was: list[int], now: list[int], value: float) -> None:
    assert psi(was, now) == value


def test_without_rows_or_bins_there_is_no_limit() -> None:
    assert [sampling_limit(0, 10, 5, 3), sampling_limit(10, 0, 5, 3), sampling_limit(10, 10, 1, 3)] == [0.0, 0.0, 0.0]


# Degrees of freedom, probability and quantile as SciPy gives it; importing SciPy here would cost seconds.
QUANTILES = [
    (1, 0.5, 0.4549),
    (1, 0.95, 3.8415),
    (1, 0.99, 6.6349),
    (1, 0.9995, 12.1157),
    (2, 0.5, 1.3863),
    (2, 0.95, 5.9915),
    (2, 0.99, 9.2103),
    (2, 0.9995, 15.2018),
    (3, 0.5, 2.366),
    (3, 0.95, 7.8147),
    (3, 0.99, 11.3449),
    (3, 0.9995, 17.73),
    (5, 0.5, 4.3515),
    (5, 0.95, 11.0705),
    (5, 0.99, 15.0863),
    (5, 0.9995, 22.1053),
    (9, 0.5, 8.3428),
    (9, 0.95, 16.919),
    (9, 0.99, 21.666),
    (9, 0.9995, 29.6658),
]


@pytest.mark.parametrize(("degrees", "probability", "quantile"), QUANTILES)
def test_quantiles_agree_with_tables(degrees: int, probability: float, quantile: float) -> None:
    assert chi2_quantile(probability, degrees) == pytest.approx(quantile, rel=0.025)
