"""Columns of a table's newest row, entity by entity: for some requests cheaper than arrays, and the same values."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from tidewheel.features.declaration import BatchView
from tidewheel.features.kernel import HEADER, RAW
from tidewheel.features.record_events import BITS, COLUMNS, MAX_FILTERS, TIME

_COUNT = struct.Struct("<q")
_AT_COUNT, _AT_RECORDS = 8 * RAW, 8 * HEADER
_NAN = math.nan


class NewestRows:
    """What one batch view reads of a state. ``batch_values`` is the same for many requests."""

    def __init__(self, view: BatchView) -> None:
        state = view.state
        kinds = "".join("q" if whole else "d" for whole in state.integers)
        self._record = struct.Struct(f"<{'q' * COLUMNS}{kinds}")
        self._ttl_us = view.ttl_us
        places = [state.column_index(column) for column in view.columns]
        self._takes = [COLUMNS + place for place in places]
        self._null_bits = [1 << (MAX_FILTERS + place) if state.integers[place] else 0 for place in places]
        # Nearly always: every column of the state, in its order, and no whole numbers.
        self._as_they_are = places == list(range(len(state.columns))) and not any(state.integers)
        self._nothing = (_NAN,) * len(places)

    def of(self, blob: bytes | None, t_us: int) -> tuple[float, ...]:
        """The view's columns at ``t_us``, NaN where there is none. Raises struct.error where the state is damaged."""
        if not blob:
            return self._nothing
        size = self._record.size
        (count,) = _COUNT.unpack_from(blob, _AT_COUNT)
        at = _AT_RECORDS + (count - 1) * size
        if count < 0 or at + size > len(blob):
            raise struct.error(f"a state of {len(blob)} bytes says that it has {count} rows")
        while at >= _AT_RECORDS:
            record = self._record.unpack_from(blob, at)
            if record[TIME] <= t_us:
                return self._columns(record) if record[TIME] >= t_us - self._ttl_us else self._nothing
            at -= size
        return self._nothing

    def _columns(self, record: tuple[float, ...]) -> tuple[float, ...]:
        if self._as_they_are:
            return record[COLUMNS:]
        nulls = int(record[BITS])
        pairs = zip(self._takes, self._null_bits, strict=True)
        return tuple([_NAN if nulls & bit else float(record[take]) for take, bit in pairs])

    def rows(
        self, blobs: Sequence[bytes | None], entity_of: Sequence[int], t_us: Sequence[int]
    ) -> list[tuple[float, ...]]:
        """The same of several requests."""
        of = self.of
        return [of(blobs[entity], at_us) for entity, at_us in zip(entity_of, t_us, strict=True)]
