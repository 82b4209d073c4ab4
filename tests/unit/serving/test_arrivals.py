"""When an open loop sends."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np

from tidewheel.serving.arrivals import at_random, evenly


def test_even_arrivals_do_not_drift() -> None:
    moments = list(islice(evenly(300.0), 3001))
    assert moments[0] == 0
    assert moments[3000] == 10_000_000
    assert {later - earlier for earlier, later in pairwise(moments)} == {3333, 3334}


def test_random_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    moments = np.array(list(islice(at_random(500.0, seed=3), 50_000)))
    gaps = np.diff(moments)
    assert (gaps >= 0).all()
    assert abs(gaps.mean() - 2000) < 40
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03


def test_a_seed_gives_the_same_arrivals_again() -> None:
    first, again, other = (list(islice(at_random(50.0, seed), 20)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
