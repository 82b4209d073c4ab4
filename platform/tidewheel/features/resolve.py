"""Declarations as written -> checked views. Every mistake becomes a Problem with its line; nothing is raised early.

Only ``load.py`` calls it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
)
from tidewheel.features.dsl import BatchDeclaration, Declaration, RequestDeclaration, WindowedDeclaration
from tidewheel.features.functions import function_arguments, probe_function
from tidewheel.features.schema import request_schema, topic_of
from tidewheel.spec.project import ModelProject

MAX_FILTERS = 64


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
        keys = self._keys(declared.by, line, name)
        windows = self.windows(name, declared)
        freshness_us = self.freshness(declared.freshness, line, name)
        delay_us = self.delay(declared.delay, line, name)
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
        if source is None or keys is None or not windows or not good:
            return
        used_filters: list[Filter] = sorted({_filter(a.where) for a in good.values() if a.where}, key=json.dumps)
        if len(used_filters) > MAX_FILTERS:
            self.problem(line, f"{name}: at most {MAX_FILTERS} different filters (got {len(used_filters)})")
            return
        columns = sorted({a.column for a in good.values() if a.column})
        slack_us = max(source.allowed_lateness_us or 0, READ_SLACK_US)
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
        windows_us = tuple(windows.values())
        facts = [
            "windowed", name, list(windows_us), delay_us, declared.include_request,
            [[f.name, f.aggregation.name, f.column, f.filter_index, f.window_index, f.default] for f in features],
        ]  # fmt: skip
        state = self._state(
            "windowed", name, declared.source, keys, columns, tuple(used_filters),
            delay_us + max(windows_us) + slack_us, tuple((f.name, f.aggregation.dtype) for f in features), facts,
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
            )
        )

    def batch(self, name: str, declared: BatchDeclaration) -> None:
        line = declared.line
        source = self.source(declared.source, line, name)
        keys = self._keys(declared.by, line, name)
        freshness_us = self.freshness(declared.freshness, line, name)
        ttl_us = self.duration(declared.ttl, line, f"{name}: ttl")
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
        slack_us = max(source.allowed_lateness_us or 0, READ_SLACK_US)
        published = tuple((column, self.facts[column][0]) for column in columns)
        facts = ["batch", name, list(columns), ttl_us]
        state = self._state(
            "batch", name, declared.source, keys, sorted(set(columns)), (), ttl_us + slack_us, published, facts
        )
        key_columns = tuple(column for column, _ in keys)
        self.views.append(
            BatchView(name, declared.source, key_columns, tuple(columns), ttl_us, state, freshness_us, line)
        )

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

    def _keys(self, by: Any, line: int, view: str) -> tuple[tuple[str, str], ...] | None:
        """(key column, type) of the entity or entities, sorted by column."""
        names = [by] if isinstance(by, str) or not isinstance(by, Iterable) else list(by)
        columns = [self.entity_key(name, line, view) for name in names]
        kinds = {key: entity.type for key, entity in self.project.entity_keys().items()}
        found = sorted({(column, kinds[column]) for column in columns if column is not None})
        return tuple(found) if found and len(found) == len(names) else None

    def _state(
        self, kind: Any, view: str, source_name: str, keys: tuple[tuple[str, str], ...], columns: list[str],
        filters: tuple[Filter, ...], retention_us: int, published: tuple[tuple[str, str], ...], facts: list[Any],
    ) -> StateView:  # fmt: skip
        source = self.project.sources[source_name]
        kept = [(column, source.columns[column]) for column in columns]
        topic = topic_of(self.project, source_name)
        everything = ["v2", self.project.name, topic, keys, kept, filters, retention_us, facts]
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
        )


def _filter(where: Mapping[str, Any]) -> Filter:
    return tuple(sorted(where.items()))


def _view_facts(view: View) -> list[Any]:
    """What a view means, as plain JSON values, for the digest."""
    if isinstance(view, RequestView):
        return [view.kind, view.name, list(view.arguments), view.dtype]
    return [view.kind, view.name, view.state.state_id]
