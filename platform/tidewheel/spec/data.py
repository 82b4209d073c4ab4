"""Spec sections about data: entities, sources and the label."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator

from tidewheel.spec.scalars import DurationUs, Identifier, Section

KeyType = Literal["int64", "string"]
ColumnType = Literal["float64", "float32", "int64", "int32", "bool", "string"]


class Entity(Section):
    """A thing features are about, such as a customer; ``key`` is the column that names it in every source."""

    key: Identifier
    type: KeyType = Field(description="Type of the key column.")


class Source(Section):
    """Events (``topic``) or a table (no topic), kept in the lake at ``path``."""

    path: str = Field(min_length=1, description="Folder of Parquet files in the project's lake, relative to it.")
    topic: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Event log topic; leave out for a table."
    )
    event_time: Identifier = Field(description="Column with the time at which the event happened.")
    event_id: Identifier | None = Field(default=None, description="Column that names an event; duplicates drop.")
    key: Identifier | None = Field(
        default=None, description="Entity whose key is the key of the topic's messages; leave out where it is none."
    )
    columns: dict[Identifier, ColumnType] = Field(min_length=1, description="Columns besides keys, time and id.")
    timezone: str | None = Field(
        default=None, description="Zone of event times written without one, such as UTC or Europe/Paris."
    )
    allowed_lateness_us: DurationUs | None = Field(
        default=None, alias="allowed_lateness", description="How late an event may come; later ones are counted."
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and value not in available_timezones():
            raise ValueError("must be an IANA time zone such as UTC or Europe/Paris")
        return value

    @field_validator("path")
    @classmethod
    def _inside_the_lake(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("must be a relative path without '..'")
        return value


class Label(Section):
    """Where the truth comes from: a bool column, final ``delay`` after the event it judges."""

    source: str
    column: str
    delay_us: DurationUs = Field(alias="delay", description="A label is mature this long after its event.")


Entities = Annotated[dict[Identifier, Entity], Field(min_length=1)]
Sources = Annotated[dict[Identifier, Source], Field(min_length=1)]
