"""Where the monitor reads and writes below one home folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tidewheel.clock import SECOND_US


@dataclass(frozen=True)
class MonitorPaths:
    """``lake`` holds sources and predictions, ``reports`` what a run leaves, ``bundles`` versions by digest."""

    lake: Path
    reports: Path
    bundles: Path

    def predictions(self, project: str) -> Path:
        return self.lake / "predictions" / project

    def run(self, project: str, as_of_us: int) -> Path:
        """Folder of one run, such as ``reports/card-fraud/20180601T000000Z``."""
        at = datetime.fromtimestamp(as_of_us // SECOND_US, tz=UTC)
        return self.reports / project / f"{at:%Y%m%dT%H%M%SZ}"

    def index(self, project: str, name: str) -> Path:
        """File that remembers the time ranges of a folder's Parquet files; may be deleted at any moment."""
        return self.reports / project / "index" / f"{name}.json"
