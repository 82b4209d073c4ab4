"""What each feature added to a score, asked of a child: XGBoost is no part of the server's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import InputError, Unavailable
from tidewheel.features.vector import model_input
from tidewheel.serving.parse_child import ParseChild
from tidewheel.serving.request import Overloaded
from tidewheel.serving.snapshot import LoadedVersion

MAX_WAITING = 8


class Explainer:
    """One child, one question at a time; it starts with the first. On the event loop."""

    def __init__(self, bundles: Path, environment: Mapping[str, str]) -> None:
        self._bundles = bundles
        self._child = ParseChild(environment)
        self._thread = ThreadPoolExecutor(1, "explain")
        self._n_waiting = 0

    async def explain(self, version: LoadedVersion, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Contributions [n, k + 1] to the log odds, the bias last. Raises Overloaded, and Unavailable where the child
        has no answer."""
        if self._n_waiting >= MAX_WAITING:
            raise Overloaded(f"contributions: {self._n_waiting} requests wait already; try again later")
        folder, loop = self._bundles / version.digest, asyncio.get_running_loop()
        self._n_waiting += 1
        try:
            return await loop.run_in_executor(
                self._thread, self._child.explain, folder, version.digest, model_input(vectors)
            )
        except InputError as error:
            raise Unavailable(f"contributions: {error}") from error
        finally:
            self._n_waiting -= 1

    def stop(self) -> None:
        self._child.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)
