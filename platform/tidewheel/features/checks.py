"""Checks of what a declaration says: names, durations, aggregations. Each reports problems with their line.

``resolve.py`` builds views from what passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tidewheel.clock import SECOND_US
from tidewheel.errors import Problem
from tidewheel.features.dsl import Aggregate, WindowedDeclaration
from tidewheel.spec.data import Source
from tidewheel.spec.project import ModelProject
from tidewheel.spec.scalars import duration_us

MIN_FRESHNESS_US = 2 * SECOND_US


@dataclass
class Checks:
    """One features file against one project; ``problems`` grows."""

    project: ModelProject
    file: str
    problems: list[Problem]

    def problem(self, line: int, message: str) -> None:
        self.problems.append(Problem(self.file, line, message))

    def source(self, name: Any, line: int, view: str) -> Source | None:
        if isinstance(name, str) and name in self.project.sources:
            return self.project.sources[name]
        self.problem(line, f"{view}: unknown source {name!r}; declared are {', '.join(self.project.sources)}")
        return None

    def entity_key(self, name: Any, line: int, view: str) -> str | None:
        if isinstance(name, str) and name in self.project.entities:
            return self.project.entities[name].key
        self.problem(line, f"{view}: unknown entity {name!r}; declared are {', '.join(self.project.entities)}")
        return None

    def keys(self, by: Any, line: int, view: str) -> tuple[tuple[str, str], ...] | None:
        """(key column, type) of the entity or entities, sorted by column."""
        names = [by] if isinstance(by, str) or not isinstance(by, Iterable) else list(by)
        if not names:
            self.problem(line, f"{view}: by must name an entity, or list several")
        columns = [self.entity_key(name, line, view) for name in names]
        for repeated in {name for name in names if isinstance(name, str) and names.count(name) > 1}:
            self.problem(line, f"{view}: entity {repeated!r} is listed twice")
        kinds = {key: entity.type for key, entity in self.project.entity_keys().items()}
        found = sorted({(column, kinds[column]) for column in columns if column is not None})
        return tuple(found) if found and len(found) == len(names) else None

    def lateness_us(self, source_name: str) -> int | None:
        """How late an event may come; a label comes, by default, when its delay is over."""
        source, label = self.project.sources[source_name], self.project.label
        if source.allowed_lateness_us is None and source_name == label.source:
            return label.delay_us
        return source.allowed_lateness_us

    def text(self, given: Any, what: str, line: int, view: str) -> str:
        if not isinstance(given, str):
            self.problem(line, f"{view}: {what} must be text (got {given!r})")
            return ""
        return given

    def column(self, view: str, source_name: Any, source: Source | None, column: Any, line: int) -> str | None:
        if source is None:
            return None
        if not isinstance(column, str) or column not in source.columns:
            self.problem(
                line,
                f"{view}: unknown column {column!r}; {source_name!r} declares {', '.join(source.columns)}",
            )
            return None
        return source.columns[column]

    def aggregate(
        self, view: str, source_name: Any, source: Source | None, feature: Any, aggregate: Any, line: int
    ) -> bool:
        """Whether one entry of ``features`` can be used; reports what is wrong with it."""
        if not isinstance(aggregate, Aggregate):
            self.problem(line, f"{view}: {feature!r} must be an aggregation such as count() (got {aggregate!r})")
            return False
        if not isinstance(feature, str) or not feature.isidentifier():
            self.problem(aggregate.line, f"{view}: a feature's name must be an identifier (got {feature!r})")
            return False
        before = len(self.problems)
        label = f"{view}.{feature}"
        reads = aggregate.aggregation.reads
        if reads in ("numbers", "values"):
            kind = self.column(label, source_name, source, aggregate.column, aggregate.line)
            if kind == "string" and reads == "numbers":
                self.problem(
                    aggregate.line,
                    f"{label}: {aggregate.aggregation.name} needs numbers, column {aggregate.column!r} is a {kind}",
                )
        if reads == "condition" and aggregate.condition is None:
            self.problem(aggregate.line, f"{label}: {aggregate.aggregation.name} needs where, the condition it is of")
        for name, condition in (("where", aggregate.condition), ("among" if reads == "condition" else "where",
                                                                 aggregate.where)):  # fmt: skip
            if condition is not None:
                self.where(label, name, source_name, source, condition, aggregate.line)
        default = aggregate.default
        if default is not None and (isinstance(default, str) or not _is_finite(default)):
            self.problem(aggregate.line, f"{label}: default must be a finite number (got {default!r})")
        return len(self.problems) == before

    def where(self, label: str, name: str, source_name: Any, source: Source | None, given: Any, line: int) -> None:
        if not isinstance(given, Mapping) or not given:
            self.problem(line, f"{label}: {name} must map columns to the value they equal")
            return
        for column, value in given.items():
            kind = self.column(label, source_name, source, column, line)
            if kind is not None and not _can_equal(kind, value):
                self.problem(line, f"{label}: column {column!r} is a {kind} and cannot equal {value!r}")

    def windows(self, view: str, declared: WindowedDeclaration) -> dict[str, int]:
        given = declared.windows
        if isinstance(given, Mapping):
            pairs = [(str(name), text) for name, text in given.items()]
        elif isinstance(given, Iterable) and not isinstance(given, str):
            pairs = [(str(text), text) for text in given]
        else:
            pairs = []
        if not pairs:
            self.problem(declared.line, f"{view}: windows must list durations such as ['1h', '7d'] (got {given!r})")
        windows: dict[str, int] = {}
        for name, text in pairs:
            length_us = self.duration(text, declared.line, f"{view}: window {name!r}")
            if name in windows:
                self.problem(declared.line, f"{view}: window {name!r} is listed twice")
            elif length_us is not None:
                windows[name] = length_us
        return windows

    def delay(self, text: Any, line: int, view: str) -> int:
        if text is None:
            return 0
        if text == "label":
            return self.project.label.delay_us
        return self.duration(text, line, f"{view}: delay") or 0

    def freshness(self, text: Any, line: int, view: str) -> int | None:
        if text is None:
            return None
        value_us = self.duration(text, line, f"{view}: freshness")
        if value_us is not None and value_us < MIN_FRESHNESS_US:
            self.problem(line, f"{view}: freshness must be at least 2s: progress is told once a second (got {text!r})")
        return value_us

    def duration(self, text: Any, line: int, what: str) -> int | None:
        try:
            return duration_us(text)
        except ValueError as error:
            self.problem(line, f"{what} {error} (got {text!r})")
            return None


def _can_equal(kind: str, value: Any) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:
        return False
