"""Declarations as written -> checked views. Every mistake becomes a Problem with its line; nothing is raised early.

Only ``load.py`` calls it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidewheel.clock import SECOND_US
from tidewheel.errors import Problem, SpecError
from tidewheel.features.declaration import (
    READ_SLACK_US,
    BatchView,
    FeatureSet,
    Filter,
    RequestSchema,
    RequestView,
    StateView,
    View,
    WindowedFeature,
    WindowedView,
)
from tidewheel.features.dsl import Aggregate, BatchDeclaration, Declaration, RequestDeclaration, WindowedDeclaration
from tidewheel.features.functions import function_arguments, probe_function
from tidewheel.spec.data import Source
from tidewheel.spec.project import ModelProject
from tidewheel.spec.scalars import duration_us

MAX_FILTERS = 64
MIN_FRESHNESS_US = 2 * SECOND_US
_NUMERIC = ("float64", "float32", "int64", "int32", "bool")


def topic_of(project: ModelProject, source_name: str) -> str:
    """Event log topic of a source: its topic, or for a table its name."""
    return project.sources[source_name].topic or source_name


def request_schema(project: ModelProject) -> RequestSchema:
    """What a request carries. A label column kept in the request source is not known at request time."""
    source = project.request_source
    hidden = project.label.column if project.label.source == project.request else None
    return RequestSchema(
        source=project.request,
        event_time=source.event_time,
        event_id=source.event_id or "",
        keys={entity.key: entity.type for entity in project.entities.values()},
        columns={name: kind for name, kind in source.columns.items() if name != hidden},
    )


def resolve(
    named: list[tuple[str, Declaration]], project: ModelProject, file: str, text: str, problems: list[Problem]
) -> FeatureSet:
    """Check all declarations; raises SpecError with ``problems`` and all that were found here."""
    work = _Resolver(project, file, request_schema(project), problems)
    for name, declaration in named:
        if isinstance(declaration, WindowedDeclaration):
            work.windowed(name, declaration)
        elif isinstance(declaration, BatchDeclaration):
            work.batch(name, declaration)
        else:
            work.function(name, declaration)
    if not named and not work.problems:
        work.problem(0, "declares no feature; declare at least one windowed or batch view or @request function")
    if work.problems:
        raise SpecError(work.problems)
    return work.feature_set(text)


@dataclass
class _Resolver:
    project: ModelProject
    file: str
    request: RequestSchema
    problems: list[Problem]
    views: list[View] = field(default_factory=list)
    owners: dict[str, int] = field(default_factory=dict)  # feature name -> line of the view that declares it
    facts: dict[str, tuple[str, float | None, str, int | None]] = field(default_factory=dict)

    def problem(self, line: int, message: str) -> None:
        self.problems.append(Problem(self.file, line, message))

    def windowed(self, name: str, declared: WindowedDeclaration) -> None:
        line = declared.line
        source = self._source(declared.source, line, name)
        key = self._entity_key(declared.by, line, name)
        windows = self._windows(name, declared)
        freshness_us = self._freshness(declared.freshness, line, name)
        delay_us = self._delay(declared.delay, line, name)
        if source is not None and source.event_id is None:
            self.problem(line, f"{name}: source {declared.source!r} needs an event_id, so that duplicates can drop")
        if not isinstance(declared.include_request, bool):
            self.problem(line, f"{name}: include_request must be True or False (got {declared.include_request!r})")
        elif declared.include_request:
            if declared.source != self.project.request:
                self.problem(
                    line,
                    f"{name}: include_request needs the request's own source {self.project.request!r} "
                    f"(got {declared.source!r})",
                )
            if delay_us:
                self.problem(line, f"{name}: include_request and delay exclude each other: the request is not old yet")
        if not isinstance(declared.features, Mapping) or not declared.features:
            self.problem(line, f"{name}: features must be a mapping of names to aggregations, such as {{'n': count()}}")
            return
        good = {feature: aggregate for feature, aggregate in declared.features.items()
                if self._aggregate(name, declared.source, source, feature, aggregate, line)}  # fmt: skip
        if declared.include_request is True and declared.source == self.project.label.source:
            for feature, aggregate in good.items():
                if self.project.label.column in (aggregate.column, *(aggregate.where or ())):
                    self.problem(
                        aggregate.line,
                        f"{name}.{feature}: {self.project.label.column!r} is the label, which a request does not "
                        f"know; leave out include_request and declare delay='label'",
                    )
        names = {f"{feature}_{window}": (aggregate, index) for feature, aggregate in good.items()
                 for index, window in enumerate(windows)}  # fmt: skip
        for feature, (aggregate, _) in names.items():
            self._claim(feature, aggregate.line, aggregate.aggregation.dtype, aggregate.default,
                        str(declared.source), freshness_us)  # fmt: skip
        if source is None or key is None or not windows or not good:
            return
        used_filters: list[Filter] = sorted({_filter(a.where) for a in good.values() if a.where}, key=json.dumps)
        if len(used_filters) > MAX_FILTERS:
            self.problem(line, f"{name}: at most {MAX_FILTERS} different filters (got {len(used_filters)})")
            return
        columns = sorted({a.column for a in good.values() if a.column})
        slack_us = max(source.allowed_lateness_us or 0, READ_SLACK_US)
        state = self._state(
            "windowed", declared.source, key, columns, tuple(used_filters), delay_us + max(windows.values()) + slack_us
        )
        features = tuple(
            WindowedFeature(
                name=feature,
                aggregation=aggregate.aggregation,
                column=aggregate.column,
                filter_index=used_filters.index(_filter(aggregate.where)) if aggregate.where else None,
                window_index=index,
                default=None if aggregate.default is None else float(aggregate.default),
            )
            for feature, (aggregate, index) in names.items()
        )
        self.views.append(
            WindowedView(
                name=name,
                source=declared.source,
                entity_key=key,
                windows_us=tuple(windows.values()),
                delay_us=delay_us,
                include_request=bool(declared.include_request),
                of_request_source=declared.source == self.project.request,
                features=features,
                state=state,
                freshness_us=freshness_us,
                line=line,
            )
        )

    def batch(self, name: str, declared: BatchDeclaration) -> None:
        line = declared.line
        source = self._source(declared.source, line, name)
        key = self._entity_key(declared.by, line, name)
        freshness_us = self._freshness(declared.freshness, line, name)
        ttl_us = self._duration(declared.ttl, line, f"{name}: ttl")
        columns = [declared.columns] if isinstance(declared.columns, str) else declared.columns
        if not isinstance(columns, Iterable) or not list(columns):
            self.problem(line, f"{name}: columns must list at least one column")
            return
        for column in columns:
            kind = self._column(name, declared.source, source, column, line)
            if kind == "string":
                self.problem(line, f"{name}: column {column!r} is a string; a model input must be a number or bool")
            elif kind is not None:
                dtype = {"bool": "bool", "int32": "int64", "int64": "int64"}.get(kind, "float64")
                self._claim(column, line, dtype, None, str(declared.source), freshness_us)
        if source is None or key is None or ttl_us is None or any(column not in source.columns for column in columns):
            return
        slack_us = max(source.allowed_lateness_us or 0, READ_SLACK_US)
        state = self._state("batch", declared.source, key, sorted(set(columns)), (), ttl_us + slack_us)
        self.views.append(BatchView(name, declared.source, key, tuple(columns), ttl_us, state, freshness_us, line))

    def function(self, name: str, declared: RequestDeclaration) -> None:
        line = declared.line
        try:
            arguments = function_arguments(declared.function)
        except ValueError as error:
            self.problem(line, f"{name}: {error}")
            return
        known = True
        for argument in arguments:
            if argument == name and argument not in self.request.fields:
                self.problem(line, f"{name}: a function cannot be its own argument")
            elif argument not in self.request.fields and argument not in self.facts:
                allowed = ", ".join([*self.request.fields, *self.facts])
                self.problem(
                    line,
                    f"{name}: unknown argument {argument!r}; an argument is a request field or a feature declared "
                    f"above: {allowed}",
                )
            else:
                continue
            known = False
        dtype = "float64"
        if known:
            kinds = {feature: facts[0] for feature, facts in self.facts.items()}
            try:
                dtype = probe_function(declared.function, arguments, self.request, kinds)
            except ValueError as error:
                self.problem(line, f"{name}: {error}")
        # A function may pass its own field on under the same name; any other name for a field would be two things.
        if self._claim(name, line, dtype, None, "request", None, passes_on=name in arguments):
            self.views.append(RequestView(name, arguments, declared.function, dtype, line))

    def feature_set(self, text: str) -> FeatureSet:
        names = tuple(name for view in self.views for name in view.feature_names)
        facts = [self.facts[name] for name in names]
        declared = [self.project.label.delay_us, [_view_facts(view) for view in self.views], text]
        return FeatureSet(
            views=tuple(self.views),
            request=self.request,
            names=names,
            dtypes=tuple(fact[0] for fact in facts),
            defaults=tuple(fact[1] for fact in facts),
            sources=tuple(fact[2] for fact in facts),
            freshness_us=tuple(fact[3] for fact in facts),
            digest=hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest(),
        )

    def _source(self, name: Any, line: int, view: str) -> Source | None:
        if isinstance(name, str) and name in self.project.sources:
            return self.project.sources[name]
        self.problem(line, f"{view}: unknown source {name!r}; declared are {', '.join(self.project.sources)}")
        return None

    def _entity_key(self, name: Any, line: int, view: str) -> str | None:
        if isinstance(name, str) and name in self.project.entities:
            return self.project.entities[name].key
        self.problem(line, f"{view}: unknown entity {name!r}; declared are {', '.join(self.project.entities)}")
        return None

    def _column(self, view: str, source_name: Any, source: Source | None, column: Any, line: int) -> str | None:
        if source is None:
            return None
        if not isinstance(column, str) or column not in source.columns:
            self.problem(
                line,
                f"{view}: unknown column {column!r}; {source_name!r} declares {', '.join(source.columns)}",
            )
            return None
        return source.columns[column]

    def _aggregate(
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
        if aggregate.aggregation.needs_column:
            kind = self._column(label, source_name, source, aggregate.column, aggregate.line)
            if kind is not None and kind not in _NUMERIC:
                self.problem(
                    aggregate.line,
                    f"{label}: {aggregate.aggregation.name} needs numbers, column {aggregate.column!r} is a {kind}",
                )
        if aggregate.where is not None:
            self._where(label, source_name, source, aggregate)
        default = aggregate.default
        if default is not None and (isinstance(default, str) or not _is_finite(default)):
            self.problem(aggregate.line, f"{label}: default must be a finite number (got {default!r})")
        return len(self.problems) == before

    def _where(self, label: str, source_name: Any, source: Source | None, aggregate: Aggregate) -> None:
        if not isinstance(aggregate.where, Mapping) or not aggregate.where:
            self.problem(aggregate.line, f"{label}: where must map columns to the value they equal")
            return
        for column, value in aggregate.where.items():
            kind = self._column(label, source_name, source, column, aggregate.line)
            if kind is not None and not _can_equal(kind, value):
                self.problem(aggregate.line, f"{label}: column {column!r} is a {kind} and cannot equal {value!r}")

    def _windows(self, view: str, declared: WindowedDeclaration) -> dict[str, int]:
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
            length_us = self._duration(text, declared.line, f"{view}: window {name!r}")
            if name in windows:
                self.problem(declared.line, f"{view}: window {name!r} is listed twice")
            elif length_us is not None:
                windows[name] = length_us
        return windows

    def _delay(self, text: Any, line: int, view: str) -> int:
        if text is None:
            return 0
        if text == "label":
            return self.project.label.delay_us
        return self._duration(text, line, f"{view}: delay") or 0

    def _freshness(self, text: Any, line: int, view: str) -> int | None:
        if text is None:
            return None
        value_us = self._duration(text, line, f"{view}: freshness")
        if value_us is not None and value_us < MIN_FRESHNESS_US:
            self.problem(line, f"{view}: freshness must be at least 2s: progress is told once a second (got {text!r})")
        return value_us

    def _duration(self, text: Any, line: int, what: str) -> int | None:
        try:
            return duration_us(text)
        except ValueError as error:
            self.problem(line, f"{what} {error} (got {text!r})")
            return None

    def _claim(
        self, feature: str, line: int, dtype: str, default: Any, source: str, freshness_us: int | None,
        passes_on: bool = False,
    ) -> bool:  # fmt: skip
        if feature in self.owners:
            self.problem(line, f"two features are called {feature!r}; the other is on line {self.owners[feature]}")
            return False
        if feature in self.request.fields and not passes_on:
            self.problem(line, f"a feature cannot be called {feature!r}: that is a field of the request")
            return False
        self.owners[feature] = line
        self.facts[feature] = (dtype, None if default is None else float(default), source, freshness_us)
        return True

    def _state(
        self, kind: Any, source_name: str, key: str, columns: list[str], filters: tuple[Filter, ...], retention_us: int
    ) -> StateView:
        source = self.project.sources[source_name]
        return StateView(
            kind=kind,
            source=source_name,
            topic=topic_of(self.project, source_name),
            entity_key=key,
            key_type=self.project.entity_keys()[key].type,
            columns=tuple((column, source.columns[column]) for column in columns),
            filters=filters,
            retention_us=retention_us,
            event_time=source.event_time,
            event_id=source.event_id,
        )


def _filter(where: Mapping[str, Any]) -> Filter:
    return tuple(sorted(where.items()))


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


def _view_facts(view: View) -> list[Any]:
    """What a view means, as plain JSON values, for the digest."""
    if isinstance(view, WindowedView):
        features = [
            [f.name, f.aggregation.name, f.column, f.filter_index, f.window_index, f.default] for f in view.features
        ]
        return [view.kind, view.name, view.state.state_id, list(view.windows_us), view.delay_us,
                view.include_request, features]  # fmt: skip
    if isinstance(view, BatchView):
        return [view.kind, view.name, view.state.state_id, list(view.columns), view.ttl_us]
    return [view.kind, view.name, list(view.arguments), view.dtype]
