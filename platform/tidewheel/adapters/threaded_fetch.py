"""Reads from a store that makes its callers wait, by threads: for SQLite files and for a cluster of Redis servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tidewheel.errors import Unavailable
from tidewheel.features.ports import Fetched, OnlineStore, Wanted

THREADS = 4


class ThreadedFetcher:
    """A FetchingStore over a store that threads may share. Reads beyond the threads wait for one; what comes after its
    time is dropped."""

    def __init__(self, store: OnlineStore, loop: asyncio.AbstractEventLoop, threads: int = THREADS) -> None:
        self._store, self._loop = store, loop
        self._threads = ThreadPoolExecutor(threads, "fetch")

    def fetch(self, wanted: Wanted, timeout_us: int, done: Callable[[Fetched | Unavailable], None]) -> None:
        if not wanted:
            self._loop.call_soon(done, Fetched([]))
            return
        open_ = [True]

        def finish(found: Fetched | Unavailable) -> None:
            if open_:
                open_.clear()
                timer.cancel()
                done(found)

        late = Unavailable(f"the online store does not answer (nothing within {timeout_us / 1000:g} ms)")
        timer = self._loop.call_later(timeout_us / 1e6, finish, late)
        self._threads.submit(self._read, wanted, open_, finish)

    def _read(self, wanted: Wanted, open_: list[bool], finish: Callable[[Fetched | Unavailable], None]) -> None:
        if not open_:
            return
        found: Fetched | Unavailable
        try:
            found = Fetched(self._store.read(wanted))
        except Unavailable as error:
            found = error
        except Exception as error:  # a caller waits for an answer whatever the store does
            found = Unavailable(f"the online store failed ({type(error).__name__}: {error})")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(finish, found)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()
