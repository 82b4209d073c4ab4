"""A registry whose aliases are asked for all models at once, and no more often than every two seconds."""

from __future__ import annotations

from tidewheel.adapters.mlflow_registry import MlflowRegistry
from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import Unavailable

POLL_US = 2 * SECOND_US


class PolledRegistry(MlflowRegistry):
    """A ModelRegistry for a controller of many projects. Its own changes are seen at once."""

    def __init__(self, tracking_uri: str, timeout_s: float, clock: Clock) -> None:
        super().__init__(tracking_uri, timeout_s, clock)
        self._polled: dict[str, dict[str, str]] | None = None
        self._polled_at_us = 0
        self._fault: Unavailable | None = None

    def aliases(self, name: str, *, fresh: bool = False) -> dict[str, str]:
        if fresh:
            self._forget()
        now_us = self._clock.monotonic_us()
        if now_us - self._polled_at_us >= POLL_US or (self._polled is None and self._fault is None):
            self._polled_at_us = now_us
            try:
                self._polled, self._fault = self.all_aliases(), None
            except Unavailable as error:
                self._polled, self._fault = None, error
        if self._polled is None:
            raise self._fault or Unavailable("MLflow has not answered yet")
        return dict(self._polled.get(name, {}))

    def set_alias(self, name: str, alias: str, number: str) -> None:
        try:
            super().set_alias(name, alias, number)
        finally:
            self._forget()

    def delete_alias(self, name: str, alias: str) -> None:
        try:
            super().delete_alias(name, alias)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._polled = self._fault = None
