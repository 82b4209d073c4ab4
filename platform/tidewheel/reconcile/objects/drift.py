"""Whether a live object is as a built one asks: what we own is compared, what others add is not looked at."""

from __future__ import annotations

from typing import Any


def is_as_wanted(wanted: Any, live: Any) -> bool:
    """Every field of ``wanted`` is in ``live`` with the same value; lists of equal length, item by item."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            name in live and is_as_wanted(value, live[name]) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(wanted) == len(live)
            and all(is_as_wanted(one, other) for one, other in zip(wanted, live, strict=True))
        )
    return bool(wanted == live)
