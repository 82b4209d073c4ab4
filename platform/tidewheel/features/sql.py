"""Feature views -> SQL text, pure. The dialect is DuckDB's; adapters run it.

Relations that must exist: ``rows`` (row_no, t in us, event_id, keys and request columns under their own names) and
one relation of normalised events per source, named by ``source_relation``. A result has row_no and one column per
feature of its view, defaults not applied.

Every row of ``rows`` joins the events of its entity in one ordered stream (UNION ALL), and each window is a RANGE
frame over it: W - 1 us PRECEDING up to the row's own time, ties included, so (t-W, t]. A delay shifts the events.
A row whose own event needs care (to count although the source does not have it, never to count although the
source has it) takes a path of its own, so that one request's event never counts for another row.
"""

from __future__ import annotations

from typing import Any

from tidewheel.features.aggregations import SqlEvents
from tidewheel.features.declaration import BatchView, Filter, StateView, WindowedFeature, WindowedView
from tidewheel.features.events import OFFSET_COLUMN


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Any) -> str:
    """An SQL literal of a bool, a number or text."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def source_relation(source: str) -> str:
    return quoted(f"source_{source}")


def view_sql(view: WindowedView | BatchView) -> str:
    """The query that computes one view for every row."""
    return windowed_sql(view) if isinstance(view, WindowedView) else batch_sql(view)


def windowed_sql(view: WindowedView) -> str:
    """Aggregations over windows, as of each row's t."""
    columns, filters = _record(view.state, "")
    reach_us = max(view.windows_us)
    fields = "".join(f", {expression} AS {name}" for name, expression in {**columns, **filters}.items())
    names = "".join(f", {name}" for name in (*columns, *filters))
    nothing = ", NULL" * len(columns) + ", FALSE" * len(filters)
    key = quoted(view.keys[0])
    frames = ",\n".join(
        f"  w{index} AS (PARTITION BY k ORDER BY t RANGE BETWEEN {length_us - 1} PRECEDING AND CURRENT ROW)"
        for index, length_us in enumerate(view.windows_us)
    )
    framed = ",\n".join(f"  {_aggregate(view, f, 'is_event', f' OVER w{f.window_index}')}" for f in view.features)
    query = f"""WITH arrived AS (
  SELECT {key} AS k, epoch_us({quoted(view.state.event_time)}) + {view.delay_us} AS t,
    {quoted(view.state.event_id or "")} AS id{fields}
  FROM {source_relation(view.source)}
  WHERE {key} IN (SELECT {key} FROM rows)
  QUALIFY row_number() OVER (PARTITION BY k, id ORDER BY {OFFSET_COLUMN}) = 1
), events AS (
  SELECT * FROM arrived
  WHERE t > (SELECT min(t) FROM rows) - {reach_us} AND t <= (SELECT max(t) FROM rows)
), asked AS (
  SELECT r.row_no, r.{key} AS k, r.t, {_is_apart(view)} AS apart FROM rows r
), stream AS (
  SELECT CAST(NULL AS BIGINT) AS row_no, k, t, TRUE AS is_event{names} FROM events
  UNION ALL
  SELECT row_no, k, t, FALSE{nothing} FROM asked WHERE NOT apart
)
SELECT row_no,
{framed}
FROM stream
WINDOW
{frames}
QUALIFY row_no IS NOT NULL"""
    return query if view.own_event == "as any" else f"{query}\nUNION ALL\n{_apart_sql(view, names, nothing)}"


def _apart_sql(view: WindowedView, names: str, nothing: str) -> str:
    """Rows whose own event needs care, each with its events in a group of its own."""
    columns, filters = _record(view.state, "r.")
    counted = ",\n".join(
        f"  {_aggregate(view, f, f't > asked_at - {view.windows_us[f.window_index]}', '')}" for f in view.features
    )
    found = "".join(f", e.{name}" for name in (*columns, *filters))
    own = "".join(f", {expression}" for expression in (*columns.values(), *filters.values()))
    groups = [
        f"  SELECT a.row_no, a.t, e.t{found} FROM asked a JOIN rows r USING (row_no) JOIN events e"
        f" ON e.k = a.k AND e.t > a.t - {max(view.windows_us)} AND e.t <= a.t AND e.id IS DISTINCT FROM r.event_id"
        "  WHERE a.apart",
        f"  SELECT row_no, t, NULL{nothing} FROM asked WHERE apart",  # so that an empty window has its row, too
    ]
    if view.own_event == "counts":
        groups.append(f"  SELECT r.row_no, r.t, r.t{own} FROM asked a JOIN rows r USING (row_no) WHERE a.apart")
    pairs = "\n  UNION ALL\n".join(groups)
    return f"""SELECT row_no,
{counted}
FROM (SELECT * FROM (
{pairs}
) AS pairs(row_no, asked_at, t{names}))
GROUP BY row_no, asked_at"""


def _is_apart(view: WindowedView) -> str:
    key = quoted(view.keys[0])
    known = f"EXISTS (SELECT 1 FROM arrived e WHERE e.k = r.{key} AND e.id = r.event_id AND e.t <= r.t)"
    return {"counts": f"NOT {known}", "never": known, "as any": "FALSE"}[view.own_event]


def _aggregate(view: WindowedView, feature: WindowedFeature, member: str, over: str) -> str:
    if feature.filter_index is not None:
        member = f"{member} AND f{feature.filter_index}"
    value = "NULL" if feature.column is None else f"c{view.state.column_index(feature.column)}"
    events = SqlEvents("duckdb", value, member, over, integer=False, time="t", id_hash="id", asked="asked_at")
    return f"{feature.aggregation.sql(events)} AS {quoted(feature.name)}"


def _record(state: StateView, prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """Names and expressions of what the state keeps of an event: columns as doubles, filters as booleans."""
    columns = {f"c{i}": f"CAST({prefix}{quoted(column)} AS DOUBLE)" for i, (column, _) in enumerate(state.columns)}
    filters = {f"f{i}": _condition(one, prefix) for i, one in enumerate(state.filters)}
    return columns, filters


def _condition(one: Filter, prefix: str) -> str:
    parts = " AND ".join(f"{prefix}{quoted(column)} = {literal(value)}" for column, value in one)
    return f"coalesce({parts}, FALSE)"


def batch_sql(view: BatchView) -> str:
    """Columns of the newest row at or before t and no older than the ttl; of equal times the last arrival."""
    key, time = quoted(view.keys[0]), quoted(view.state.event_time)
    columns = ", ".join(quoted(column) for column in view.columns)
    picked = ",\n".join(
        f"  CASE WHEN e.t >= r.t - {view.ttl_us} THEN CAST(e.{quoted(c)} AS DOUBLE) END AS {quoted(c)}"
        for c in view.columns
    )
    return f"""WITH known AS (
  SELECT {key} AS k, epoch_us({time}) AS t, {columns}
  FROM {source_relation(view.source)}
  WHERE {key} IN (SELECT {key} FROM rows)
  QUALIFY row_number() OVER (PARTITION BY k, t ORDER BY {OFFSET_COLUMN} DESC) = 1
)
SELECT r.row_no,
{picked}
FROM rows r ASOF LEFT JOIN known e ON r.{key} = e.k AND r.t >= e.t"""


def training_sql(request: str, label: str, facts: dict[str, str]) -> str:
    """Mature labels joined to their requests: all request columns and ``label``, ordered by time and id.

    ``facts`` names the columns: time, id, label_id, label_column, columns (an SQL list of request columns).
    Parameters of the query: start (closed) and end (open) of event time.
    """
    time, event_id, label_id = quoted(facts["time"]), quoted(facts["id"]), quoted(facts["label_id"])
    return f"""WITH requests AS (
  SELECT {facts["columns"]} FROM {source_relation(request)}
  QUALIFY row_number() OVER (PARTITION BY {event_id} ORDER BY {OFFSET_COLUMN}) = 1
), labels AS (
  SELECT {label_id} AS label_id, {quoted(facts["label_column"])} AS label FROM {source_relation(label)}
  QUALIFY row_number() OVER (PARTITION BY {label_id} ORDER BY {OFFSET_COLUMN}) = 1
)
SELECT {", ".join(f"r.{name}" for name in facts["columns"].split(", "))}, CAST(l.label AS BIGINT) AS label
FROM requests r JOIN labels l ON r.{event_id} = l.label_id
WHERE l.label IS NOT NULL AND epoch_us(r.{time}) >= $start AND epoch_us(r.{time}) < $end
ORDER BY r.{time}, r.{event_id}"""


def unmatched_sql(request: str, label: str, facts: dict[str, str]) -> str:
    """How many different labels in the window of time have no request with their event id."""
    time, event_id, label_id = quoted(facts["label_time"]), quoted(facts["id"]), quoted(facts["label_id"])
    return f"""SELECT count(DISTINCT l.{label_id}) FROM {source_relation(label)} l
ANTI JOIN {source_relation(request)} r ON r.{event_id} = l.{label_id}
WHERE epoch_us(l.{time}) >= $start AND epoch_us(l.{time}) < $end"""
