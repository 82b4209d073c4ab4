"""Published features straight from Redis in Feast's layout, whoever wrote them: one HMGET per entity, no Feast.

What a stock Feast client reads, in the order asked. The model server reads states instead, which are merged at the
request's time; this is for batch jobs, checks and comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidewheel.adapters.redis_link import ReplyError
from tidewheel.adapters.redis_servers import connect
from tidewheel.adapters.redis_url import RedisAddress
from tidewheel.errors import Unavailable
from tidewheel.features.feast_layout import decode_numbers, decode_time, feast_project, feature_field, time_field

READ_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class PublishedRows:
    """``values`` [n, k] in the order asked, NaN is missing."""

    values: NDArray[np.float64]
    times: Sequence[Sequence[bytes | None]]  # [n][views], as stored

    @property
    def times_us(self) -> NDArray[np.int64]:
        """[n, views] of each view's event time, -1 where the view knows nothing of the entity."""
        known = [[-1 if time is None else decode_time(time) for time in row] for row in self.times]
        return np.array(known, dtype=np.int64)


class PublishedReader:
    """Reads numbers of one entity kind; what does not change from call to call is worked out once. Safe to share
    between threads."""

    def __init__(
        self, address: RedisAddress, project: str, features: Sequence[tuple[str, str]], password: str | None = None
    ) -> None:
        """``features`` are (Feast view, feature), numbers all."""
        self._address = address
        self._servers = connect(address, password)
        self._project = feast_project(project).encode()
        self.views = tuple(dict.fromkeys(view for view, _ in features))
        fields = [feature_field(view, feature) for view, feature in features]
        self._n_values = len(fields)
        self._fields = (*fields, *(time_field(view) for view in self.views))

    def read(self, keys: Sequence[bytes]) -> PublishedRows:
        """Of entities by their keys. Raises Unavailable."""
        project, fields, n = self._project, self._fields, self._n_values
        replies = self._servers.run([(b"HMGET", key + project, *fields) for key in keys], READ_TIMEOUT_S)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise Unavailable(f"{self._address}: the online store refuses ({reply})")
        if len(replies) == 1:
            values = decode_numbers(replies[0][:n])
        else:
            values = decode_numbers([value for reply in replies for value in reply[:n]])
        return PublishedRows(values.reshape(len(keys), n), [reply[n:] for reply in replies])

    def close(self) -> None:
        self._servers.close()
