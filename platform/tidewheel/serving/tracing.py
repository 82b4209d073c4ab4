"""Who is told of every batch, where traces are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tidewheel.errors import TidewheelError
from tidewheel.serving.request import PredictReply, PredictRequest
from tidewheel.serving.stages import Stages


class Tracer(Protocol):
    """Makes spans of requests; must not raise and must not wait."""

    def batch(
        self, requests: Sequence[PredictRequest], replies: Sequence[PredictReply | TidewheelError], stages: Stages
    ) -> None: ...

    def close(self) -> None: ...
