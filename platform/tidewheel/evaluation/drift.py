"""How far a distribution moved, from counts alone, and how far it moves by chance.

The index works on reference deciles, so it knows ranks only: an outlier or a change of unit cannot fool it the way
equal-width bins are fooled. SciPy is not imported: its statistics cost more than a second at start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

FALSE_ALARM_RATIO = 0.01  # nominal chance of any false drift in one run over stationary, independent rows


def psi(reference: Sequence[int], current: Sequence[int]) -> float:
    """Population stability index of two count vectors over the same bins; half a row is added to each bin.

    >>> round(psi([100, 100], [100, 100]), 6)
    0.0
    """
    p, q = (_shares(counts) for counts in (reference, current))
    return float(((p - q) * np.log(p / q)).sum())


def sampling_limit(
    n_current: int, n_reference: int, n_bins: int, n_columns: int, alpha: float = FALSE_ALARM_RATIO
) -> float:
    """The index that equal distributions exceed by chance with probability ``alpha`` over all columns (Bonferroni).

    PSI times n m / (n + m) is asymptotically chi-squared with bins - 1 degrees of freedom.
    Source: B. Yurdakul and J. Naranjo, Statistical properties of the population stability index, 2020.
    """
    if n_bins < 2 or not n_current or not n_reference:
        return 0.0
    return chi2_quantile(1.0 - alpha / max(1, n_columns), n_bins - 1) * (1.0 / n_current + 1.0 / n_reference)


def chi2_quantile(probability: float, degrees: int) -> float:
    """Quantile of the chi-squared distribution from the median up: exact for one or two degrees of freedom, else
    within 2.5 %, on the high side where it matters.

    Source: E. Wilson and M. Hilferty, The distribution of chi-square, PNAS 17, 1931.
    """
    if degrees == 1:
        return NormalDist().inv_cdf((1.0 + probability) / 2.0) ** 2
    if degrees == 2:
        return -2.0 * math.log(1.0 - probability)
    z = NormalDist().inv_cdf(probability)
    share = 2.0 / (9.0 * degrees)
    return float(degrees * (1.0 - share + z * math.sqrt(share)) ** 3)


def _shares(counts: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    raised = np.asarray(counts, dtype=np.float64) + 0.5
    shares: np.ndarray[tuple[int], np.dtype[np.float64]] = raised / raised.sum()
    return shares
