"""Windowed views -> SQL text, for DuckDB and Spark.

Rows join the events of their entity in one ordered stream (UNION ALL), and each window is a RANGE frame over it. The
stream's axis is ``p``, 1024 steps to the microsecond. The events of a microsecond lie on 511 steps in the middle of
arrival's order, so that sums add in the same order whenever they run; a row that sees its own microsecond stands
behind them, and one whose own event must not count, and is the only one of that microsecond, stands before them.

Other rows whose own event needs care (to count although the source does not have it, never to count among others of
its time) are ``apart``: each is joined with its events alone, so that one request's event never counts for another.
Where a frame cannot have bounds of its own per row (Spark), all rows of precision hop go that way.
"""

from __future__ import annotations

from tidewheel.features.aggregations import SqlEvents
from tidewheel.features.declaration import Filter, WindowedFeature, WindowedView
from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.features.sources import ID_HASH_COLUMN
from tidewheel.features.sql import ASKED, RowFacts, of_asked_entities, once
from tidewheel.features.sql_dialects import Dialect, quoted

_STEPS = 1024  # per microsecond
_RANKS = 511  # of events of one microsecond, from step 1
_BEHIND = 512  # a row that sees them


def asked_sql(view: WindowedView, dialect: Dialect, facts: RowFacts) -> str:
    """Relation ``asked``: row_no, k0.., t, p, ``known`` (the own event is in the source by then), ``apart``."""
    state = view.state
    keys = "".join(f", r.{quoted(key)} AS k{i}" for i, key in enumerate(view.keys))
    always = "TRUE" if view.precision == "hop" and not dialect.row_frames else "FALSE"
    if view.own_event == "as any":
        place = f"r.t * {_STEPS} + {_BEHIND}"
        return f"SELECT r.row_no{keys}, r.t, {place} AS p, FALSE AS known, {always} AS apart FROM rows r"
    key_fields = "".join(f"{quoted(key)} AS k{i}, " for i, key in enumerate(view.keys))
    fields = f"{key_fields}{quoted(state.event_id or '')} AS id, {dialect.micros(quoted(state.event_time))} AS t"
    until = f"{quoted(state.event_time)} <= {dialect.timestamp(facts.last_us)}"
    condition = f"{until} AND {of_asked_entities(state)}"
    arrived = once(view).sql(dialect, fields, condition, repeated=facts.repeated)
    same = " AND ".join(f"e.k{i} = r.{quoted(key)}" for i, key in enumerate(view.keys))
    own = f"SELECT r.row_no, e.t FROM rows r JOIN arrived e ON {same} AND e.id = r.event_id AND e.t <= r.t"
    known = "own.row_no IS NOT NULL"
    if view.own_event == "counts":
        return f"""WITH arrived AS (
  {arrived}
)
SELECT r.row_no{keys}, r.t, r.t * {_STEPS} + {_BEHIND} AS p, {known} AS known, {always} OR NOT ({known}) AS apart
FROM rows r LEFT JOIN ({own}) AS own ON own.row_no = r.row_no"""
    ties = f"SELECT DISTINCT r.row_no FROM rows r JOIN arrived e ON {same} AND e.t = r.t AND e.id <> r.event_id"
    alone = "own.t = r.t AND ties.row_no IS NULL"
    return f"""WITH arrived AS (
  {arrived}
)
SELECT r.row_no{keys}, r.t, r.t * {_STEPS} + CASE WHEN {alone} THEN 0 ELSE {_BEHIND} END AS p, {known} AS known,
  {always} OR ({known} AND NOT ({alone})) AS apart
FROM rows r LEFT JOIN ({own}) AS own ON own.row_no = r.row_no LEFT JOIN ({ties}) AS ties ON ties.row_no = r.row_no"""


def framed_sql(view: WindowedView, dialect: Dialect, facts: RowFacts) -> str:
    """The view for all rows that are not apart."""
    columns = _record(view, dialect)
    position = f"(t + {_shift_us(view)}) * {_STEPS} + 1 + {OFFSET_COLUMN} % {_RANKS}"
    keys = "".join(f", k{i}" for i in range(len(view.keys)))
    names = "".join(f", {name}" for name in columns)
    nothing = "".join(f", {empty}" for _, empty in columns.values())
    partition = keys.removeprefix(", ")
    frames = ",\n".join(
        f"  w{window} AS (PARTITION BY {partition} ORDER BY p RANGE BETWEEN {_frame(view, window, dialect)})"
        for window in range(len(view.windows_us))
    )
    made = [
        f"  {_aggregate(view, f, dialect, 'row_no IS NULL', f' OVER w{f.window_index}', 't')} AS a{i}"
        for i, f in enumerate(view.features)
    ]
    counted = {}  # how many events each window holds
    if facts.crowded and view.max_events is not None:
        for window in range(len(view.windows_us)):
            counted[window] = f"n{window}"
            made.append(f"  {dialect.count('row_no IS NULL', f' OVER w{window}')} AS n{window}")
    aggregates = ",\n".join(made)
    picked = ",\n".join(f"  {_limited(view, f, f'a{i}', counted)}" for i, f in enumerate(view.features))
    return f"""WITH events AS (
  {_events(view, dialect, facts)}
), stream AS (
  SELECT CAST(NULL AS BIGINT) AS row_no{keys}, t, {position} AS p{names} FROM events
  UNION ALL
  SELECT row_no{keys}, t, p{nothing} FROM {ASKED} WHERE NOT apart
), framed AS (
SELECT row_no,
{aggregates}
FROM stream
WINDOW
{frames}
)
SELECT row_no,
{picked}
FROM framed WHERE row_no IS NOT NULL"""


def apart_sql(view: WindowedView, dialect: Dialect, facts: RowFacts) -> str:
    """The view for all rows that are apart, each with its events in a group of its own."""
    columns = _record(view, dialect)
    names = "".join(f", {name}" for name in columns)
    found = "".join(f", e.{name}" for name in columns)
    nothing = "".join(f", {empty}" for _, empty in columns.values())
    same = " AND ".join(f"e.k{i} = a.k{i}" for i in range(len(view.keys)))
    reach = f"e.t > a.t - {view.delay_us + _reach_us(view)} AND e.t <= a.t - {view.delay_us}"
    never = " AND e.id <> coalesce(r.event_id, '')" if view.own_event == "never" else ""
    groups = [
        f"  SELECT a.row_no, a.t AS asked_at, e.t{found} FROM {ASKED} a JOIN rows r ON r.row_no = a.row_no"
        f" JOIN events e ON {same} AND {reach}{never} WHERE a.apart",
        # So that an empty window has its row, too.
        f"  SELECT row_no, t, CAST(NULL AS BIGINT){nothing} FROM {ASKED} WHERE apart",
    ]
    if view.own_event == "counts":
        own = "".join(f", {expression}" for expression, _ in _record(view, dialect, "r.").values())
        groups.append(
            f"  SELECT r.row_no, r.t, r.t{own} FROM {ASKED} a JOIN rows r ON r.row_no = a.row_no"
            " WHERE a.apart AND NOT a.known"
        )
    pairs = "\n  UNION ALL\n".join(groups)
    made, counted = [], {}
    for index, feature in enumerate(view.features):
        inside = _inside(view, feature.window_index)
        made.append(f"  {_aggregate(view, feature, dialect, inside, '', 'asked_at')} AS a{index}")
    if facts.crowded and view.max_events is not None:
        for window in range(len(view.windows_us)):
            counted[window] = f"n{window}"
            made.append(f"  {dialect.count(_inside(view, window), '')} AS n{window}")
    aggregates = ",\n".join(made)
    picked = ",\n".join(f"  {_limited(view, f, f'a{i}', counted)}" for i, f in enumerate(view.features))
    return f"""WITH events AS (
  {_events(view, dialect, facts, with_id=True)}
), pairs AS (
{pairs}
), grouped AS (
SELECT row_no, asked_at,
{aggregates}
FROM (SELECT row_no, asked_at, t{names} FROM pairs) AS named
GROUP BY row_no, asked_at
)
SELECT row_no,
{picked}
FROM grouped"""


def _shift_us(view: WindowedView) -> int:
    """An exact window behind a delay is a window over events that happened so much later."""
    return view.delay_us if view.precision == "exact" else 0


def _reach_us(view: WindowedView) -> int:
    """How far a window may reach back from its right edge."""
    return max(view.windows_us) + max(view.hops_us, default=0)


def _frame(view: WindowedView, window: int, dialect: Dialect) -> str:
    """RANGE bounds on the axis. An event's own frame is never looked at, so it is as short as can be."""
    if view.precision == "exact":
        length = (view.windows_us[window] - 1) * _STEPS + _RANKS
        if not dialect.row_frames:
            return f"{length} PRECEDING AND CURRENT ROW"
        return f"(CASE WHEN row_no IS NULL THEN 0 ELSE {length} END) PRECEDING AND CURRENT ROW"
    left, right = _edges(view, window, "t")
    first = f"(CASE WHEN row_no IS NULL THEN 0 ELSE p - ({left} + 1) * {_STEPS} END) PRECEDING"
    if not view.delay_us:
        return f"{first} AND CURRENT ROW"
    return f"{first} AND (CASE WHEN row_no IS NULL THEN 0 ELSE p - ({right}) * {_STEPS} - {_BEHIND} END) PRECEDING"


def _edges(view: WindowedView, window: int, asked: str) -> tuple[str, str]:
    """What a window covers as of ``asked``, in us: the left edge is excluded, the right one is included."""
    right = f"({asked} - {view.delay_us})" if view.delay_us else asked
    left = f"({right} - {view.windows_us[window]})"
    if view.precision == "exact":
        return left, right
    hop = view.hops_us[window]
    return _rounded_down(left, hop), _rounded_down(right, hop) if view.delay_us else right


def _rounded_down(time: str, hop_us: int) -> str:
    """To a multiple of the hop, below zero too, where % has the sign of the time."""
    return f"({time} - (({time} % {hop_us}) + {hop_us}) % {hop_us})"


def _inside(view: WindowedView, window: int) -> str:
    left, right = _edges(view, window, "asked_at")
    return f"(t > {left} AND t <= {right})"


def _events(view: WindowedView, dialect: Dialect, facts: RowFacts, *, with_id: bool = False) -> str:
    """k0.., t, the order of arrival and what the state keeps, for all events that some window may hold."""
    state = view.state
    time = quoted(state.event_time)
    fields = [
        *(f"{quoted(key)} AS k{i}" for i, key in enumerate(view.keys)),
        f"{dialect.micros(time)} AS t",
        *([f"{quoted(state.event_id or '')} AS id"] if with_id else []),
        OFFSET_COLUMN,
        *(f"{expression} AS {name}" for name, (expression, _) in _record(view, dialect).items()),
    ]
    first_us = facts.first_us - view.delay_us - _reach_us(view)
    within = f"{time} > {dialect.timestamp(first_us)} AND {time} <= {dialect.timestamp(facts.last_us - view.delay_us)}"
    condition = f"{within} AND {of_asked_entities(state)}"
    return once(view).sql(dialect, ", ".join(fields), condition, repeated=facts.repeated)


def _record(view: WindowedView, dialect: Dialect, prefix: str = "") -> dict[str, tuple[str, str]]:
    """What a view reads of an event: name -> (expression, the same of no event)."""
    state = view.state
    fields: dict[str, tuple[str, str]] = {}
    for index, (column, kind) in enumerate(state.columns):
        sql_type = {"string": "", "float64": "DOUBLE", "float32": "DOUBLE"}.get(kind, "BIGINT")
        name = prefix + quoted(column)
        fields[f"c{index}"] = (
            (f"CAST({name} AS {sql_type})", f"CAST(NULL AS {sql_type})") if sql_type else (name, "NULL")
        )
    for index, one in enumerate(state.filters):
        fields[f"f{index}"] = (_condition(one, dialect, prefix), "FALSE")
    if any(feature.aggregation.ordered for feature in view.features):
        fields["h"] = (prefix + ID_HASH_COLUMN, "CAST(NULL AS BIGINT)")
    return fields


def _condition(one: Filter, dialect: Dialect, prefix: str) -> str:
    parts = " AND ".join(f"{prefix}{quoted(column)} = {dialect.literal(value)}" for column, value in one)
    return f"coalesce({parts}, FALSE)"


def _aggregate(
    view: WindowedView, feature: WindowedFeature, dialect: Dialect, member: str, over: str, asked: str
) -> str:
    """``member`` says which rows of the stream are events of the window (a row that is asked about is none)."""
    state = view.state
    integer = False
    counts = member if feature.filter_index is None else f"{member} AND f{feature.filter_index}"
    value = "NULL"
    if feature.condition_index is not None:
        value = f"CASE WHEN {counts} THEN CASE WHEN f{feature.condition_index} THEN 1e0 ELSE 0e0 END END"
    elif feature.column is not None:
        index = state.column_index(feature.column)
        integer = state.columns[index][1] in ("int64", "int32", "bool")
        # A row that is asked about has no value, so over a frame only a filter needs asking.
        value = f"c{index}" if over and feature.filter_index is None else f"CASE WHEN {counts} THEN c{index} END"
    events = SqlEvents(dialect, value, counts, over, integer, f"CASE WHEN {counts} THEN t END", "h", asked)
    return feature.aggregation.sql(events)


def _limited(view: WindowedView, feature: WindowedFeature, name: str, counted: dict[int, str]) -> str:
    """The feature's column: missing where the window holds more events than declared."""
    value = f"CAST({name} AS DOUBLE)"
    if feature.window_index in counted:
        value = f"CASE WHEN {counted[feature.window_index]} <= {view.max_events} THEN {value} END"
    return f"{value} AS {quoted(feature.name)}"
