"""Which variant answers a unit: a salted hash puts each unit at one place of [0, 1), weights cut it into bands.

The same unit meets the same variant on every server and after every restart. A version whose weight grows keeps
all units it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def unit_places(units: Iterable[str], salt: str) -> NDArray[np.float64]:
    """Place of each unit in [0, 1): uniform over units, independent between salts."""
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    hashed = [
        int.from_bytes(hashlib.blake2b(unit.encode("utf-8", "replace"), key=key, digest_size=8).digest(), "little")
        for unit in units
    ]
    return (np.array(hashed, dtype=np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def assign_all(units: Sequence[str], salt: str, weights: Mapping[str, float]) -> list[str]:
    """The version that answers each unit.

    Bands follow the order of ``weights``; the last version takes the rest. Put the champion last: a candidate's band
    starts at 0 and only ever takes units from the champion.
    """
    versions = list(weights)
    if len(versions) == 1:
        return versions * len(units)
    edges = np.cumsum([weights[version] for version in versions[:-1]])
    bands = np.searchsorted(edges, unit_places(units, salt), side="right")
    return [versions[band] for band in bands]


def assign(unit: str, salt: str, weights: Mapping[str, float]) -> str:
    """The version that answers one unit.

    >>> assign("1042", "card-fraud:7", {"7": 0.0, "3": 1.0})
    '3'
    """
    return assign_all([unit], salt, weights)[0]
