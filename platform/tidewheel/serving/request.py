"""PredictRequest and PredictReply: what every protocol is decoded to and encoded from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import InputError, TidewheelError


class BadRequest(InputError):
    """The caller's fault (400): names the field, what was got and what is allowed."""


class TooLarge(TidewheelError):
    """The body is over the limit (413)."""


class Overloaded(TidewheelError):
    """More requests wait than can be answered in time (503); ``retry_after_s`` says when to come back."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(slots=True, eq=False)
class PredictRequest:
    """Rows to decide about. ``columns`` holds keys and request columns, each a list of n values, None where missing.

    ``t_us`` is the event time of each row; ``arrived_us`` is monotonic, the first byte's time. ``pinned`` is the
    version the caller asked for, None for whoever serves the unit. ``timeout_us`` is how long the caller waits, where
    it said so. ``vectors`` [n, k] are the pinned version's features where the caller sent them: nothing is read then.
    ``test`` requests are answered as any other and counted by nobody; ``explain`` asks for the vectors with the reply;
    ``traceparent`` is the caller's trace.
    """

    request_id: str
    n_rows: int
    columns: dict[str, list[Any]]
    event_ids: list[str]
    t_us: list[int]
    arrived_us: int
    pinned: str | None = None
    timeout_us: int | None = None
    vectors: NDArray[np.float64] | None = None
    test: bool = False
    explain: bool = False
    traceparent: str | None = None

    def row_id(self, row: int) -> str:
        """Id of one row: the request's own where it has one row."""
        return self.request_id if self.n_rows == 1 else f"{self.request_id}/{row}"


@dataclass(slots=True, eq=False)
class PredictReply:
    """One value per row. ``scores`` None where nothing could score; ``versions`` empty where no model did; ``ages_us``:
    how far the features' slowest source lagged when it was last looked at, 0 where nothing was read.

    ``vectors`` [n, k] are there where the request wanted an explanation and one version has read or got all of them;
    ``explained_by`` is that version. ``contributions`` [n, k + 1] are what each feature added to the score's logit, the
    bias last.
    """

    scores: list[float | None]
    decisions: list[str]
    versions: list[str]
    reasons: list[tuple[str, ...]] = field(default_factory=list)
    ages_us: list[int] = field(default_factory=list)
    vectors: NDArray[np.float64] | None = None
    explained_by: str = ""
    contributions: NDArray[np.float64] | None = None

    @property
    def degraded(self) -> list[bool]:
        return [bool(reasons) for reasons in self.reasons]
