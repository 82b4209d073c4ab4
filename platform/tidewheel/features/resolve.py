"""Declarations as written -> checked views. Every mistake becomes a Problem with its line; nothing is raised early.

Only ``load.py`` calls it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidewheel.errors import Problem, SpecError
from tidewheel.features.checks import Checks
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
    view_parts,
)
from tidewheel.features.dsl import BatchDeclaration, Declaration, RequestDeclaration, WindowedDeclaration
from tidewheel.features.functions import function_arguments, probe_function
from tidewheel.features.hops import DEFAULT_LATENESS_US, precision_of
from tidewheel.features.record_events import MAX_FILTERS
from tidewheel.features.schema import request_schema, topic_of
from tidewheel.features.tiles import TileLayout
from tidewheel.spec.data import Source
from tidewheel.spec.project import ModelProject


def resolve(
    named: list[tuple[str, Declaration]], project: ModelProject, file: str, text: str, problems: list[Problem]
) -> FeatureSet:
    """Check all declarations; raises SpecError with ``problems`` and all that were found here."""
    work = _Resolver(project, file, problems, request_schema(project))
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
class _Resolver(Checks):
    request: RequestSchema
    views: list[View] = field(default_factory=list)
    owners: dict[str, int] = field(default_factory=dict)  # feature name -> line of the view that declares it
    facts: dict[str, tuple[str, float | None, str, int | None]] = field(default_factory=dict)

    def windowed(self, name: str, declared: WindowedDeclaration) -> None:
        line = declared.line
        source = self.source(declared.source, line, name)
        keys = self.keys(declared.by, line, name)
        windows = self.windows(name, declared)
        freshness_us = self.freshness(declared.freshness, line, name)
        delay_us = self.delay(declared.delay, line, name)
        owner = self.text(declared.owner, "owner", line, name) or self.project.owner
        description = self.text(declared.description, "description", line, name)
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
                if self.aggregate(name, declared.source, source, feature, aggregate, line)}  # fmt: skip
        if declared.include_request is True and declared.source == self.project.label.source:
            for feature, aggregate in good.items():
                if self.project.label.column in (
                    aggregate.column,
                    *(aggregate.where or ()),
                    *(aggregate.condition or ()),
                ):
                    self.problem(
                        aggregate.line,
                        f"{name}.{feature}: {self.project.label.column!r} is the label, which a request does not "
                        f"know; leave out include_request and declare delay='label'",
                    )
        names = {f"{feature}_{window}": (aggregate, index) for feature, aggregate in good.items()
                 for index, window in enumerate(windows)}  # fmt: skip
        for feature, (aggregate, _) in names.items():
            dtype = aggregate.aggregation.dtype(source.columns.get(aggregate.column or "") if source else None)
            self._claim(feature, aggregate.line, dtype, aggregate.default, str(declared.source), freshness_us)
        lateness_us = None if source is None else self.lateness_us(declared.source)
        precision = precision_of(self, name, declared, windows, good, delay_us, lateness_us)
        if source is None or keys is None or not good or precision is None:
            return
        used_filters: list[Filter] = sorted(
            {_filter(one, source) for a in good.values() for one in (a.where, a.condition) if one}, key=json.dumps
        )
        columns = sorted({a.column for a in good.values() if a.column})
        if len(used_filters) > MAX_FILTERS or len(columns) > MAX_FILTERS:
            self.problem(
                line,
                f"{name}: at most {MAX_FILTERS} different filters and as many columns "
                f"(got {len(used_filters)} and {len(columns)})",
            )
            return
        places = {one: index for index, one in enumerate(used_filters)}
        features = tuple(
            WindowedFeature(
                name=feature,
                aggregation=aggregate.aggregation,
                column=aggregate.column,
                filter_index=places[_filter(aggregate.where, source)] if aggregate.where else None,
                window_index=index,
                default=None if aggregate.default is None else float(aggregate.default),
                dtype=self.facts[feature][0],
                condition_index=places[_filter(aggregate.condition, source)] if aggregate.condition else None,
            )
            for feature, (aggregate, index) in names.items()
        )
        windows_us = tuple(windows.values())
        kept = tuple((column, source.columns[column]) for column in columns)
        tiles = None
        if precision.levels:
            late_us = DEFAULT_LATENESS_US if lateness_us is None else lateness_us
            tiles = TileLayout(precision.levels, delay_us, late_us, view_parts(kept, features))
        facts = [
            "windowed", name, list(windows_us), delay_us, lateness_us, declared.include_request,
            [precision.max_events, precision.dedup_us, precision.hops_us, precision.capacity],
            [[level.hop_us, level.longest_us] for level in precision.levels],
            [[f.name, f.aggregation.name, f.column, f.filter_index, f.condition_index, f.window_index, f.default,
              f.dtype] for f in features],
        ]  # fmt: skip
        state = self._state(
            "windowed", name, declared.source, keys, columns, tuple(used_filters), precision.retention_us,
            tuple((f.name, f.dtype) for f in features), facts, precision.dedup_us, precision.capacity, tiles,
        )  # fmt: skip
        self.views.append(
            WindowedView(
                name=name,
                source=declared.source,
                keys=tuple(column for column, _ in keys),
                windows_us=windows_us,
                delay_us=delay_us,
                include_request=bool(declared.include_request),
                of_request_source=declared.source == self.project.request,
                features=features,
                state=state,
                freshness_us=freshness_us,
                line=line,
                max_events=precision.max_events,
                hops_us=precision.hops_us,
                owner=owner,
                description=description,
            )
        )

    def batch(self, name: str, declared: BatchDeclaration) -> None:
        line = declared.line
        source = self.source(declared.source, line, name)
        keys = self.keys(declared.by, line, name)
        freshness_us = self.freshness(declared.freshness, line, name)
        ttl_us = self.duration(declared.ttl, line, f"{name}: ttl")
        owner = self.text(declared.owner, "owner", line, name) or self.project.owner
        description = self.text(declared.description, "description", line, name)
        columns = [declared.columns] if isinstance(declared.columns, str) else declared.columns
        if not isinstance(columns, Iterable) or not list(columns):
            self.problem(line, f"{name}: columns must list at least one column")
            return
        for column in columns:
            kind = self.column(name, declared.source, source, column, line)
            if kind == "string":
                self.problem(line, f"{name}: column {column!r} is a string; a model input must be a number or bool")
            elif kind is not None:
                dtype = {"bool": "bool", "int32": "int64", "int64": "int64"}.get(kind, "float64")
                self._claim(column, line, dtype, None, str(declared.source), freshness_us)
        if source is None or keys is None or ttl_us is None or any(column not in self.facts for column in columns):
            return
        slack_us = max(self.lateness_us(declared.source) or 0, READ_SLACK_US)
        published = tuple((column, self.facts[column][0]) for column in columns)
        facts = ["batch", name, list(columns), ttl_us]
        state = self._state(
            "batch", name, declared.source, keys, sorted(set(columns)), (), ttl_us + slack_us, published, facts
        )
        key_columns = tuple(column for column, _ in keys)
        self.views.append(
            BatchView(
                name, declared.source, key_columns, tuple(columns), ttl_us, state, freshness_us, line,
                owner=owner,
                description=description,
            )
        )  # fmt: skip

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
            described = inspect.getdoc(declared.function) or ""
            self.views.append(
                RequestView(name, arguments, declared.function, dtype, line, "request", self.project.owner, described)
            )

    def feature_set(self, text: str) -> FeatureSet:
        owned = [(name, view) for view in self.views for name in view.feature_names]
        names = tuple(name for name, _ in owned)
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
            owners=tuple(view.owner for _, view in owned),
            descriptions=tuple(view.description for _, view in owned),
        )

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
        self, kind: Any, view: str, source_name: str, keys: tuple[tuple[str, str], ...], columns: list[str],
        filters: tuple[Filter, ...], retention_us: int, published: tuple[tuple[str, str], ...], facts: list[Any],
        dedup_us: int = 0, capacity: int = 2**31, tiles: TileLayout | None = None,
    ) -> StateView:  # fmt: skip
        source = self.project.sources[source_name]
        kept = [(column, source.columns[column]) for column in columns]
        topic = topic_of(self.project, source_name)
        read = [topic, source.event_time, source.event_id]
        everything = ["v3", self.project.name, read, keys, kept, filters, retention_us, facts]
        return StateView(
            state_id=hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32],
            kind=kind,
            project=self.project.name,
            view=view,
            source=source_name,
            topic=topic,
            keys=keys,
            columns=tuple(kept),
            filters=filters,
            retention_us=retention_us,
            published=published,
            event_time=source.event_time,
            event_id=source.event_id,
            dedup_us=dedup_us,
            capacity=capacity,
            tiles=tiles,
        )


def _filter(where: Mapping[str, Any], source: Source) -> Filter:
    """Columns and values, sorted; a float32 column equals the nearest float32."""
    return tuple(
        (column, float(np.float32(value)) if source.columns[column] == "float32" else value)
        for column, value in sorted(where.items())
    )


def _view_facts(view: View) -> list[Any]:
    """What a view means, as plain JSON values, for the digest."""
    if isinstance(view, RequestView):
        return [view.kind, view.name, list(view.arguments), view.dtype]
    return [view.kind, view.name, view.state.state_id]
