"""How a new version relates to the champion: from nothing, or from the champion's trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidewheel.training.frame import TrainingFrame
from tidewheel.training.trainer import Settings, fit

if TYPE_CHECKING:
    import xgboost


@dataclass(frozen=True, eq=False)
class Fitted:
    """A booster and, where the strategy could not do as asked, a note that says why."""

    booster: xgboost.Booster
    note: str = ""


Strategy = Callable[[TrainingFrame, Settings, "xgboost.Booster | None"], Fitted]


def stateless(frame: TrainingFrame, settings: Settings, champion: xgboost.Booster | None) -> Fitted:
    """Forget the champion and learn from the window alone."""
    return Fitted(fit(frame, settings))


def stateful(frame: TrainingFrame, settings: Settings, champion: xgboost.Booster | None) -> Fitted:
    """Keep the champion's trees and add ``n_estimators`` that correct them on the window."""
    if champion is None:
        return Fitted(fit(frame, settings), "there is no champion to continue from; trained from nothing")
    if tuple(champion.feature_names or ()) != frame.names:
        return Fitted(fit(frame, settings), "the champion has other features; trained from nothing")
    return Fitted(fit(frame, settings, start_from=champion))


STRATEGIES: Mapping[str, Strategy] = {"stateless": stateless, "stateful": stateful}
