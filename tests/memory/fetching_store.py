"""A store that is read without waiting, over one in memory; reads can be held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidewheel.errors import Unavailable
from tidewheel.features.ports import Fetched, OnlineStore, Wanted

Done = Callable[[Fetched | Unavailable], None]


class MemoryFetcher:
    """``held`` reads wait until ``release`` or their time-out; ``n_keys`` counts what was wanted, read by read."""

    def __init__(self, store: OnlineStore, *, held: bool = False) -> None:
        self._store, self.held = store, held
        self.n_keys: list[int] = []
        self.down: Unavailable | None = None
        self.refused: dict[tuple[int, int], str] = {}
        self._waiting: list[Callable[[], None]] = []

    def fetch(self, wanted: Wanted, timeout_us: int, done: Done) -> None:
        loop = asyncio.get_running_loop()
        self.n_keys.append(max((len(keys) for _, keys in wanted), default=0))
        told: list[bool] = []

        def tell(outcome: Fetched | Unavailable | None = None) -> None:
            if not told:
                told.append(True)
                timer.cancel()
                done(outcome or self.down or Fetched(self._store.read(wanted), self.refused))

        late = Unavailable(f"the online store does not answer (nothing within {timeout_us / 1000:g} ms)")
        timer = loop.call_later(timeout_us / 1e6, tell, late)
        if self.held:
            self._waiting.append(tell)
        else:
            loop.call_soon(tell)

    def release(self) -> None:
        """Let those that are held up, and all later ones, through."""
        self.held = False
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell()

    def close(self) -> None:
        self.release()
