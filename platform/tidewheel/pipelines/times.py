"""What a run is about: its as-of time, the decision it belongs to and the run that carries that out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from tidewheel.clock import parse_utc, utc_text
from tidewheel.findings import decision_id
from tidewheel.spec.project import ModelProject
from tidewheel.spec.stages import newest_boundary_us

AS_OF_PATTERN = r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2}))?$"
KIND = "retrain"  # of decisions, as `tidewheel train --if-needed` records them


class Run(Protocol):
    """What is looked at of Airflow's run."""

    run_id: str
    run_after: datetime
    data_interval_end: datetime | None


@dataclass(frozen=True)
class RunTimes:
    """The words that the commands of a project's DAGs are made of."""

    project: ModelProject

    def as_of(self, run: Run, params: Mapping[str, Any]) -> str:
        """``conf.as_of``, else the newest boundary of the cadence whose data is complete at the run's time."""
        given = params.get("as_of")
        if given:
            return utc_text(parse_utc(str(given)))
        at = run.data_interval_end or run.run_after
        return utc_text(newest_boundary_us(self.project, self.project.monitoring.every_us, parse_utc(at.isoformat())))

    def decision(self, run: Run, params: Mapping[str, Any]) -> str:
        """The id of the one decision about a retrain as of that time."""
        return decision_id(KIND, parse_utc(self.as_of(run, params)))

    def retrain_run(self, run: Run, params: Mapping[str, Any]) -> str:
        """The one run that carries the decision out."""
        return f"{KIND}__{self.decision(run, params)}"

    def next_question(self, run: Run, params: Mapping[str, Any]) -> str:
        """The run that asks about the same decision again."""
        asked = re.search(r"__question-(\d+)$", run.run_id)
        return f"{self.retrain_run(run, params)}__question-{int(asked[1]) + 1 if asked else 2}"
