"""Relations that feature SQL reads, and the questions to ask of them before a view's own text can be made.

Adapters provide ``rows`` (row_no, t in us, event_id, ``_id_hash`` where asked for, keys and request columns under
their own names) and one relation of normalised events per source, named by ``source_relation``; they run the text and
know no aggregation. A view's result has row_no and one DOUBLE column per feature, defaults not applied.

Duplicates cost a sort of everything, and hardly any history has them. So the ids (of a table: keys and time) that come
more than once are found first, by hash, and only those pass through it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidewheel.features.declaration import BatchView, StateView, WindowedView
from tidewheel.features.events import OFFSET_COLUMN
from tidewheel.features.sql_dialects import Dialect, quoted

ASKED = "asked"  # relation of a view's rows: see sql_windows
FOUND = "found"  # relation of what rows find in a table


@dataclass(frozen=True)
class RowFacts:
    """What is known before a view's text is made: the rows' span of time, and what the events need care for."""

    first_us: int
    last_us: int
    repeated: bool = False  # some event id (of a table: some keys and time) comes more than once
    crowded: bool = False  # some entity has more events than a window may hold


def source_relation(source: str) -> str:
    return quoted(f"source_{source}")


@dataclass(frozen=True)
class Once:
    """What makes an event of a source one event: rows that share ``identity`` may be repetitions, and are where they
    share ``partition``. The first arrival stays, or the last."""

    source: str
    identity: tuple[str, ...]
    partition: tuple[str, ...]
    last: bool = False

    @property
    def relation(self) -> str:
        """Hashes of the identities that come more than once: column h."""
        return quoted("_".join(("repeated", self.source, *self.identity)))

    def repeated_sql(self, dialect: Dialect) -> str:
        """The text of that relation; two different identities may share a hash."""
        return f"""SELECT h FROM (SELECT {self._hash(dialect)} AS h FROM {source_relation(self.source)}) AS hashed
GROUP BY h HAVING count(*) > 1"""

    def sql(self, dialect: Dialect, columns: str, condition: str, *, repeated: bool) -> str:
        """``columns`` of the source's events under a condition, none twice."""
        source = source_relation(self.source)
        if not repeated:
            return f"SELECT {columns} FROM {source} AS e WHERE {condition}"
        apart = f"{self._hash(dialect)} IN (SELECT h FROM {self.relation})"
        parts = ", ".join(quoted(column) for column in self.partition)
        order = f"{OFFSET_COLUMN} DESC" if self.last else OFFSET_COLUMN
        return f"""SELECT {columns} FROM {source} AS e WHERE {condition} AND NOT ({apart})
  UNION ALL
  SELECT {columns} FROM (
    SELECT *, row_number() OVER (PARTITION BY {parts} ORDER BY {order}) AS _arrival FROM {source} WHERE {apart}
  ) AS e WHERE _arrival = 1 AND {condition}"""

    def _hash(self, dialect: Dialect) -> str:
        return dialect.hashed([quoted(column) for column in self.identity])


def once(view: WindowedView | BatchView) -> Once:
    """An event of a windowed view is its id, per entity; a row of a table is its keys and time."""
    state = view.state
    if isinstance(view, WindowedView):
        event_id = state.event_id or ""
        return Once(view.source, (event_id,), (*view.keys, event_id))
    return Once(view.source, (*view.keys, state.event_time), (*view.keys, state.event_time), last=True)


def of_asked_entities(state: StateView) -> str:
    """A condition: the event is about an entity that some row asks about."""
    names = ", ".join(quoted(column) for column, _ in state.keys)
    left = names if len(state.keys) == 1 else f"({names})"
    return f"{left} IN (SELECT {names} FROM rows)"


def crowded_sql(view: WindowedView) -> str:
    """The most events that any asked entity has in the whole history, duplicates and all."""
    keys = ", ".join(quoted(key) for key in view.keys)
    return f"""SELECT max(n) AS n FROM (
  SELECT count(*) AS n FROM {source_relation(view.source)} WHERE {of_asked_entities(view.state)} GROUP BY {keys}
) AS counted"""


def found_sql(view: BatchView, dialect: Dialect, facts: RowFacts) -> str:
    """Relation ``found``: row_no, keys and ``_t``, the time of the newest row at or before t, no older than the ttl.

    Times alone are sorted and matched; what was found then gets its columns by a hash join. That takes half the memory
    of an ASOF join that carries them. It is kept, because in one query DuckDB holds the parts of both at once.
    """
    keys = ", ".join(quoted(key) for key in view.keys)
    times = _known(view, dialect, facts, f"{keys}, {dialect.micros(quoted(view.state.event_time))} AS _t")
    same = " AND ".join(f"r.{quoted(key)} = e.{quoted(key)}" for key in view.keys)
    found_keys = ", ".join(f"r.{quoted(key)}" for key in view.keys)
    return f"""WITH times AS (
  {times}
)
SELECT r.row_no, {found_keys}, e._t FROM rows r ASOF JOIN times e ON {same} AND r.t >= e._t
WHERE e._t >= r.t - {view.ttl_us}"""


def batch_sql(view: BatchView, dialect: Dialect, facts: RowFacts) -> str:
    """Columns of the newest row at or before t and no older than the ttl; of equal times the last arrival. Rows
    without one may be left out. Where the dialect has ASOF joins, ``found`` was kept before."""
    keys = ", ".join(quoted(key) for key in view.keys)
    columns = ", ".join(quoted(column) for column in view.columns)
    fields = f"{keys}, {dialect.micros(quoted(view.state.event_time))} AS _t, {columns}"
    known = _known(view, dialect, facts, fields, everyone=dialect.asof)
    if dialect.asof:
        picked = ",\n".join(f"  CAST(e.{quoted(c)} AS DOUBLE) AS {quoted(c)}" for c in view.columns)
        same = " AND ".join(f"e.{quoted(key)} = f.{quoted(key)}" for key in view.keys)
        return f"""WITH known AS (
  {known}
)
SELECT f.row_no,
{picked}
FROM {FOUND} f JOIN known e ON {same} AND e._t = f._t"""
    values = ", ".join(f"CAST({quoted(c)} AS DOUBLE) AS c{i}" for i, c in enumerate(view.columns))
    names = ", ".join(f"c{i}" for i in range(len(view.columns)))
    nothing = ", ".join(["CAST(NULL AS DOUBLE)"] * len(view.columns))
    picked = ",\n".join(
        f"  CASE WHEN newest.at >= t - {view.ttl_us} THEN newest.c{i} END AS {quoted(c)}"
        for i, c in enumerate(view.columns)
    )
    # An event sorts before a row of its time, and one frame carries the newest event on: no inequality to join by.
    return f"""WITH known AS (
  {known}
), stream AS (
  SELECT CAST(NULL AS BIGINT) AS row_no, {keys}, _t AS t, 0 AS after, {values} FROM known
  UNION ALL
  SELECT row_no, {keys}, t, 1, {nothing} FROM rows
), carried AS (
  SELECT row_no, t, last_value(CASE WHEN after = 0 THEN named_struct('at', t, {_fields(names)}) END) IGNORE NULLS OVER (
    PARTITION BY {keys} ORDER BY t, after ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS newest
  FROM stream
)
SELECT row_no,
{picked}
FROM carried WHERE row_no IS NOT NULL"""


def _known(view: BatchView, dialect: Dialect, facts: RowFacts, fields: str, *, everyone: bool = False) -> str:
    """``fields`` of the table's rows of that time, about anyone or about the entities that rows ask about."""
    time = quoted(view.state.event_time)
    within = (
        f"{time} >= {dialect.timestamp(facts.first_us - view.ttl_us)} AND {time} <= {dialect.timestamp(facts.last_us)}"
    )
    condition = within if everyone else f"{within} AND {of_asked_entities(view.state)}"
    return once(view).sql(dialect, fields, condition, repeated=facts.repeated)


def _fields(names: str) -> str:
    return ", ".join(f"'{name}', {name}" for name in names.split(", "))
