"""Training rows -> SQL text: labels joined to their requests by event id, the first arrival of each."""

from __future__ import annotations

from dataclasses import dataclass

from tidewheel.features.sql import Once, source_relation
from tidewheel.features.sql_dialects import Dialect, quoted
from tidewheel.spec.project import ModelProject


@dataclass(frozen=True)
class TrainingQuery:
    """Requests with event time in [start, end), in us, and their labels."""

    project: ModelProject
    start_us: int
    end_us: int

    @property
    def requests(self) -> Once:
        event_id = self.project.request_source.event_id or ""
        return Once(self.project.request, (event_id,), (event_id,))

    @property
    def labels(self) -> Once:
        event_id = self.project.label_source.event_id or ""
        return Once(self.project.label.source, (event_id,), (event_id,))

    @property
    def columns(self) -> tuple[str, ...]:
        """Entity keys, event time, event id and what else a request carries: the label is not among them."""
        request, label = self.project.request_source, self.project.label
        hidden = label.column if label.source == self.project.request else None
        others = (column for column in request.columns if column != hidden)
        return (*self.project.entity_keys(), request.event_time, request.event_id or "", *others)

    def rows_sql(self, dialect: Dialect, repeated: frozenset[str]) -> str:
        """``columns`` and ``label`` (BIGINT), ordered by time and id. ``repeated`` names sources with repetitions."""
        request, label = self.project.request_source, self.project.label
        time, event_id = quoted(request.event_time), quoted(request.event_id or "")
        names = ", ".join(quoted(name) for name in self.columns)
        within = self._within(request.event_time, dialect)
        order = f"ORDER BY {time}, {event_id}"
        if label.source == self.project.request:
            truth = quoted(label.column)
            found = self.requests.sql(
                dialect, f"{names}, CAST({truth} AS BIGINT) AS label", f"{within} AND {truth} IS NOT NULL",
                repeated=label.source in repeated,
            )  # fmt: skip
            return f"SELECT * FROM (\n  {found}\n) AS labelled {order}"
        requests = self.requests.sql(dialect, names, within, repeated=self.project.request in repeated)
        label_id = quoted(self.project.label_source.event_id or "")
        labels = self.labels.sql(
            dialect, f"{label_id} AS label_id, CAST({quoted(label.column)} AS BIGINT) AS label", "TRUE",
            repeated=label.source in repeated,
        )  # fmt: skip
        picked = ", ".join(f"r.{quoted(name)}" for name in self.columns)
        return f"""WITH requests AS (
  {requests}
), labels AS (
  {labels}
)
SELECT {picked}, l.label FROM requests r JOIN labels l ON r.{event_id} = l.label_id
WHERE l.label IS NOT NULL {order}"""

    def unmatched_sql(self, dialect: Dialect) -> str:
        """Column n: how many different labels in the window of time have no request with their event id."""
        label, request = self.project.label_source, self.project.request_source
        event_id = quoted(label.event_id or "")
        known = f"SELECT 1 FROM {source_relation(self.project.request)} r WHERE r.{quoted(request.event_id or '')}"
        return f"""SELECT count(DISTINCT {event_id}) AS n FROM {source_relation(self.project.label.source)} AS l
WHERE {self._within(label.event_time, dialect)} AND NOT EXISTS ({known} = l.{event_id})"""

    def _within(self, column: str, dialect: Dialect) -> str:
        time = quoted(column)
        return f"{time} >= {dialect.timestamp(self.start_us)} AND {time} < {dialect.timestamp(self.end_us)}"
