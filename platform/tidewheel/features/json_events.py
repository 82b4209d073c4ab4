"""Messages of a topic, one JSON object each, to and from tables of events.

Each message is decoded by itself, so that what becomes of it never depends on its neighbours or on where a batch was
cut: states are a function of the log alone. pyarrow.json reads a third more a second, but a block at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidewheel.errors import InputError
from tidewheel.features.declaration import FeatureSet
from tidewheel.features.events import AHEAD_US, EVENT_TIME_TYPE, normal_schema, topic_of, validate_events
from tidewheel.spec.project import ModelProject

Ints = NDArray[np.int64]

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_KINDS: dict[pa.DataType, Any] = {
    pa.float64(): float,
    pa.float32(): float,
    pa.int64(): _INT64,
    pa.int32(): _INT64,
    pa.bool_(): bool | Annotated[int, msgspec.Meta(ge=0, le=1)],
    # Numbers as names are common, and the same in files; they are kept as text.
    pa.string(): str | int,
}
_ZONE = r":\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$"


@dataclass(frozen=True)
class Decoded:
    """``events`` are those of the messages ``kept`` (places, ascending); ``rejected`` are the others, with why."""

    events: pa.Table
    kept: Ints
    rejected: tuple[tuple[int, str], ...]


class Decoder(Protocol):
    """What an event log asks about the messages of a topic."""

    def decode(self, bodies: Sequence[bytes | None], times_us: Ints) -> Decoded:
        """``times_us``: when the log took each message, wall clock."""
        ...


class EventDecoder:
    """Messages -> normalised events of one source; ``keys`` are needed on top, as in ``validate_events``.

    A time is ISO 8601 text; one without a zone is read in the source's. Members that are not declared are ignored.
    """

    def __init__(self, project: ModelProject, source: str, keys: Collection[str] = ()) -> None:
        self._project, self._name = project, source
        declared = project.sources[source]
        self._time, self._zone = declared.event_time, declared.timezone
        every = source in (project.request, project.label.source)
        self._schema = normal_schema(project, source, list(project.entity_keys()))
        optional = () if every else (key for key in project.entity_keys() if key not in keys)
        self._optional, self._keys = frozenset(optional), tuple(keys)
        fields = [
            (f"f{place}", (str if field.name == self._time else _KINDS[field.type]) | None,
             msgspec.field(name=field.name, default=None))
            for place, field in enumerate(self._schema)
        ]  # fmt: skip
        row = msgspec.defstruct("Event", fields, gc=False)
        self._decode = msgspec.json.Decoder(row).decode
        self._columns = {field.name: getattr(row, f"f{place}") for place, field in enumerate(self._schema)}

    def decode(self, bodies: Sequence[bytes | None], times_us: Ints) -> Decoded:
        """Every message is either kept or rejected. Reasons are those of ``validate_events`` and of JSON."""
        decode = self._decode
        try:
            rows, places = [decode(body) for body in bodies], np.arange(len(bodies))  # type: ignore[arg-type]
            rejected: list[tuple[int, str]] = []
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
            rows, places, rejected = self._one_by_one(bodies)
        table = pa.table(
            {field.name: _column([self._columns[field.name].__get__(row) for row in rows], field)
             for field in self._schema if field.name != self._time}
        )  # fmt: skip
        times, bad = self._times([self._columns[self._time].__get__(row) for row in rows])
        table = table.append_column(self._time, times)
        # A key that no event of the batch carries is left out, as it is in a file without the column.
        idle = [key for key in self._optional if table.column(key).null_count == table.num_rows]
        if len(idle) < len(self._project.entity_keys()):
            table = table.drop_columns(idle)
        place = pa.array(places, pa.int64())
        checked = validate_events(
            table.append_column("", place), self._name, self._project, self._keys, self._optional,
            latest_us=np.asarray(times_us)[places] + AHEAD_US,
        )  # fmt: skip
        refused = checked.rejected
        for at, reason in zip(refused.column("").to_pylist(), refused.column("reason").to_pylist(), strict=True):
            rejected.append((at, bad.get(int(np.searchsorted(places, at)), reason)))
        out = np.isin(places, [at for at, _ in rejected]) if rejected else np.zeros(len(places), dtype=bool)
        return Decoded(checked.good, places[~out].astype(np.int64), tuple(sorted(rejected)))

    def _one_by_one(self, bodies: Sequence[bytes | None]) -> tuple[list[Any], Ints, list[tuple[int, str]]]:
        rows, places, rejected = [], [], []
        for place, body in enumerate(bodies):
            try:
                if body is None:
                    rejected.append((place, "the message has no body"))
                    continue
                rows.append(self._decode(body))
                places.append(place)
            except msgspec.ValidationError as error:
                rejected.append((place, str(error)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                rejected.append((place, f"not JSON: {error}"))
        return rows, np.array(places, dtype=np.int64), rejected

    def _times(self, texts: list[str | None]) -> tuple[pa.Array, dict[int, str]]:
        """Times, null where a text is none; and why, by row."""
        raw = pa.array(texts, pa.string())
        zoned = pc.match_substring_regex(raw, _ZONE)
        if not raw.null_count and pc.all(zoned).as_py() is not False:
            try:
                return raw.cast(EVENT_TIME_TYPE), {}
            except pa.ArrowInvalid:
                pass
        has_zone = np.asarray(pc.fill_null(zoned, False), dtype=bool)
        micros = np.full(len(texts), np.iinfo(np.int64).min)
        bad: dict[int, str] = {}
        with_zone, without = np.flatnonzero(has_zone), np.flatnonzero(~has_zone & np.asarray(raw.is_valid()))
        self._parse(raw, with_zone, EVENT_TIME_TYPE, micros, bad)
        if self._zone is None:
            for place in without:
                bad[int(place)] = f"{self._time} has no time zone; declare one for the source, such as 'timezone: UTC'"
        else:
            self._parse(raw, without, pa.timestamp("us"), micros, bad)
        valid = micros != np.iinfo(np.int64).min
        return pa.array(micros, mask=~valid).cast(EVENT_TIME_TYPE), bad

    def _parse(self, raw: pa.Array, places: Ints, kind: pa.DataType, micros: Ints, bad: dict[int, str]) -> None:
        """Fill ``micros`` at ``places``; halves what does not parse until the texts at fault are found."""
        if not len(places):
            return
        try:
            times = raw.take(pa.array(places)).cast(kind)
        except pa.ArrowInvalid:
            if len(places) == 1:
                bad[int(places[0])] = f"{self._time} is no time; write 2018-06-04T12:30:00Z"
                return
            self._parse(raw, places[: len(places) // 2], kind, micros, bad)
            self._parse(raw, places[len(places) // 2 :], kind, micros, bad)
            return
        if kind.tz is None:
            # A local time that happens twice or never (change of clocks) is read as the earlier one.
            times = pc.assume_timezone(times, self._zone, ambiguous="earliest", nonexistent="earliest")
        micros[places] = times.cast(pa.int64()).to_numpy()


def decoders_of(code: Iterable[tuple[ModelProject, FeatureSet]]) -> dict[str, EventDecoder]:
    """Topic to decoder. Where several declare a topic the first says what an event is, and columns that only others
    declare are decoded, too: an older version that is still deployed may read them."""
    decoders: dict[str, EventDecoder] = {}
    known: dict[str, tuple[ModelProject, str, tuple[str, ...]]] = {}
    for project, features in code:
        for name, source in project.sources.items():
            topic = topic_of(project, name)
            if topic not in known:
                known[topic] = (project, name, features.keys_of(name))
            else:
                first, as_name, keys = known[topic]
                declared = first.sources[as_name]
                taken = {*declared.columns, *first.entity_keys(), declared.event_time, declared.event_id}
                more = {column: kind for column, kind in source.columns.items() if column not in taken}
                wider = declared.model_copy(update={"columns": {**declared.columns, **more}})
                sources = {**first.sources, as_name: wider}
                known[topic] = (first.model_copy(update={"sources": sources}), as_name, keys)
    for topic, (project, name, keys) in known.items():
        decoders[topic] = EventDecoder(project, name, keys)
    return decoders


class AnyDecoder:
    """Messages of a topic that no source declares: whatever members they have, in the types that fit."""

    def decode(self, bodies: Sequence[bytes | None], times_us: Ints) -> Decoded:
        """Raises InputError where one member has values of several types."""
        rows: list[dict[str, Any]] = []
        kept: list[int] = []
        rejected: list[tuple[int, str]] = []
        decoder = msgspec.json.Decoder(dict[str, Any])
        for place, body in enumerate(bodies):
            try:
                rows.append(decoder.decode(body or b""))
                kept.append(place)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                rejected.append((place, f"not a JSON object: {error}"))
        names = dict.fromkeys(name for row in rows for name in row)
        try:
            table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
        except pa.ArrowException as error:
            raise InputError(f"messages without a declared source: {error}") from error
        return Decoded(table, np.array(kept, dtype=np.int64), tuple(rejected))


def encode_rows(table: pa.Table) -> list[bytes]:
    """One JSON object per row; nulls and NaN are left out or null, times are ISO 8601 text in UTC."""
    columns: list[list[Any]] = []
    for column in table.columns:
        zoned = pa.types.is_timestamp(column.type) and column.type.tz
        columns.append((pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ") if zoned else column).to_pylist())
    encode, names = msgspec.json.Encoder().encode, table.column_names
    return [
        encode({name: value for name, value in zip(names, row, strict=True) if value is not None})
        for row in zip(*columns, strict=True)
    ]


def _column(values: list[Any], field: pa.Field) -> pa.Array:
    """Values that the decoder let pass, in the type of their column; an int32 stays wide until it is checked."""
    if pa.types.is_string(field.type):
        try:
            return pa.array(values, pa.string())
        except pa.ArrowTypeError:
            return pa.array([None if value is None else str(value) for value in values], pa.string())
    if pa.types.is_boolean(field.type):
        return pa.array([None if value is None else bool(value) for value in values], pa.bool_())
    return pa.array(values, pa.float64() if pa.types.is_floating(field.type) else pa.int64())
