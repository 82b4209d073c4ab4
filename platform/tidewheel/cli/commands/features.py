"""tidewheel features: compute them for rows or a training set, or explain what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, as_of_option, output_option, project_argument, table

if TYPE_CHECKING:
    from tidewheel.features.declaration import FeatureSet
    from tidewheel.spec.project import ModelProject


@click.group()
def command() -> None:
    """Compute features for rows or a training set, or explain what each view costs.

    \b
    Examples:
      tidewheel features compute card-fraud --output training-set.parquet --as-of 2026-03-09
      tidewheel features compute card-fraud --rows requests.parquet --output with-features.parquet
    """


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    from tidewheel.clock import parse_utc

    try:
        return None if value is None else parse_utc(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@command.command()
@project_argument
@click.option("--rows", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Parquet or CSV file with entity keys, event time and request fields. Without it, the rows are "
                   "the requests that have a mature label: a training set.")  # fmt: skip
@click.option("--output", "target", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Parquet file to write: the rows, their order and columns, and one column per feature.")  # fmt: skip
@click.option("--engine", type=click.Choice(["duckdb", "spark", "stream"]), default="duckdb", show_default=True,
              help="duckdb: SQL over files. spark: the same SQL. stream: the worker's kernel over the same files "
                   "(with --rows).")  # fmt: skip
@click.option("--source", "sources", multiple=True, metavar="NAME=PATH",
              help="Parquet or CSV file, or a folder of them; sources default to the project's lake.")  # fmt: skip
@click.option("--start", "start_us", callback=_time, metavar="TIME", help="Training set: from this event time (UTC).")
@click.option("--end", "end_us", callback=_time, metavar="TIME", help="Training set: before this event time (UTC).")
@as_of_option  # without it: as of the newest request
@click.option("--check-leaks", is_flag=True,
              help="Training set: plant what rows must not know yet, and refuse where a value moves.")  # fmt: skip
@click.option("--memory-limit", default="2GB", show_default=True, help="Memory that DuckDB or Spark may use.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="How the summary on stdout is printed.")  # fmt: skip
def compute(
    project: Path, rows: Path | None, target: Path, engine: str, sources: Sequence[str], start_us: int | None,
    end_us: int | None, as_of_us: int | None, check_leaks: bool, memory_limit: str, form: str,
) -> None:  # fmt: skip
    """Add one column per feature to the rows of a file, or make a training set of all mature labels.

    Each value is as of its row's event time. A training set is written in pieces, in bounded memory.

    \b
    Examples:
      tidewheel features compute card-fraud --output training-set.parquet --as-of 2026-03-09 --check-leaks
      tidewheel features compute card-fraud --rows requests.parquet --output out.parquet --engine stream
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.errors import InputError
    from tidewheel.features.lake import source_paths
    from tidewheel.features.load import load_features
    from tidewheel.features.sources import has_rows, named_paths
    from tidewheel.spec.load import load_project

    output = Output(as_json=form == "json")
    if rows is None and engine == "stream":
        raise click.UsageError("--engine stream needs --rows; a training set is made by duckdb or spark")
    if rows is not None and (start_us or end_us or as_of_us or check_leaks):
        raise click.UsageError("--start, --end, --as-of and --check-leaks are for a training set, without --rows")
    spec = load_project(project)
    features = load_features(project, spec)
    named = named_paths(sources, spec)
    for name, path in named.items():
        if not has_rows(path):
            raise InputError(
                f"--source {name}: {path} has no rows; give a Parquet or CSV file with events, or a folder of them"
            )
    paths = {**source_paths(LocalHome.of(project).lake, spec), **named}
    what = _Asked(spec, features, paths, target, engine, memory_limit, output)
    if rows is not None:
        _of_rows(what, rows)
    else:
        _training_set(what, start_us, end_us, as_of_us, check_leaks=check_leaks)


@dataclass(frozen=True)
class _Asked:
    spec: ModelProject
    features: FeatureSet
    paths: dict[str, Path]
    target: Path
    engine: str
    memory_limit: str
    output: Output

    def sql_engine(self) -> Any:
        """DuckDbFeatures or SparkFeatures."""
        if self.engine == "spark":
            from tidewheel.adapters.spark_features import SparkFeatures

            return SparkFeatures(self.memory_limit)
        from tidewheel.adapters.duckdb_features import DuckDbFeatures

        return DuckDbFeatures(self.memory_limit)


def _of_rows(what: _Asked, rows: Path) -> None:
    import pyarrow as pa

    from tidewheel.errors import InputError
    from tidewheel.features.lake import read_batches, write_parquet
    from tidewheel.features.replay import compute_by_stream
    from tidewheel.features.rows import normalised_rows

    spec, features, target, engine = what.spec, what.features, what.target, what.engine
    pieces = [piece for piece in read_batches(rows) if piece.num_rows]
    if not pieces:
        raise InputError(f"{rows}: has no rows; give at least one with entity keys and event time")
    given = pa.concat_tables(pieces)
    try:
        normalised_rows(given, spec, features)
    except InputError as error:
        raise InputError(f"{rows}: {error}") from error
    started = time.monotonic()
    with what.output.progress("Views") as step:
        before = 0

        def report(done: int, total: int) -> None:
            nonlocal before
            step.advance(done - before, f"{done} of {total}")
            before = done

        if engine == "stream":
            made = compute_by_stream(features, spec, given, what.paths, report)
        else:
            made = what.sql_engine().compute(features, spec, given, what.paths, report)
    write_parquet(target, made)
    took_s = time.monotonic() - started
    data = {"rows": made.num_rows, "features": list(features.names), "engine": engine, "output": str(target),
            "seconds": round(took_s, 3), "feature_digest": features.digest}  # fmt: skip

    def render(console: Console) -> None:
        console.print(f"{target}: {made.num_rows:,} rows, {len(features.names)} features by {engine} in {took_s:.1f} s")

    what.output.result(data, render)


def _training_set(
    what: _Asked, start_us: int | None, end_us: int | None, as_of_us: int | None, *, check_leaks: bool
) -> None:
    from tidewheel.training.leaks import refuse_leaks
    from tidewheel.training.training_set import Span, TrainingSet

    span = Span(start_us, end_us, as_of_us)
    engine, output, target = what.sql_engine(), what.output, what.target
    started = time.monotonic()
    with engine.opened(what.spec, what.paths) as sources:
        found = TrainingSet(sources, what.features, what.spec, span)
        if check_leaks:
            with output.progress("Look for the future in the past"):
                refuse_leaks(engine, what.spec, what.features, what.paths, found.sample())
        with output.progress("Rows", total=found.labelled.n_rows) as step:
            facts = found.write(target, step.advance)
    took_s = time.monotonic() - started
    data = {**asdict(facts), "engine": what.engine, "output": str(target), "seconds": round(took_s, 3),
            "leaks_checked": check_leaks}  # fmt: skip

    def render(console: Console) -> None:
        console.print(
            f"{target}: {facts.rows:,} rows ({facts.positives:,} positive), {len(facts.features)} features by "
            f"{what.engine} in {took_s:.1f} s"
        )
        console.print(f"  event time {facts.start} to {facts.end}, labels as of {facts.as_of}")
        console.print(f"  {facts.unmatched:,} label(s) of that time have no request and are left out")
        console.print("  no value knows the future" if check_leaks else "  not checked for leaks: --check-leaks")
        console.print(f"  content {facts.digest}, features {facts.feature_digest}")

    output.result(data, render)


@command.command()
@project_argument
@click.option("--events-per-day", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
              help="Events of one entity, for the typical bytes and reads.")  # fmt: skip
@output_option
def explain(project: Path, events_per_day: float, output: Output) -> None:
    """Show what each view keeps per entity, what an event and a read cost, and how stale a value can be.

    \b
    Example:
      tidewheel features explain card-fraud
      tidewheel features explain card-fraud --events-per-day 5000 --output json
    """
    from tidewheel.features.explain import explained
    from tidewheel.features.load import load_features
    from tidewheel.spec.load import load_project

    data = explained(load_features(project, load_project(project)), events_per_day)

    def render(console: Console) -> None:
        views = ("view", "kind", "reads", "precision", "kept for", "typical bytes", "worst bytes", "work per event")
        console.print(table("", views, [_view_row(view) for view in data["views"]],
                            numeric=("typical bytes", "worst bytes")))  # fmt: skip
        features = ("feature", "type", "window", "a read takes", "edge off by", "most events", "default", "owner")
        console.print(table("", features, [_feature_row(one) for one in data["features"]], numeric=("most events",)))

    output.result(data, render)


def _view_row(view: dict[str, Any]) -> tuple[Any, ...]:
    precision = " ".join((view["precision"] or "", *view["hops"]))
    worst = "" if view["kind"] == "request" else "by rows" if view["worst_bytes"] is None else view["worst_bytes"]
    return (view["name"], view["kind"], view["reads"], precision, view["retention"] or "", view["typical_bytes"] or "",
            worst, view["work_per_event"])  # fmt: skip


def _feature_row(one: dict[str, Any]) -> tuple[Any, ...]:
    default = "missing" if one["default"] is None else one["default"]
    return (one["name"], one["dtype"], one["window"] or "", one["read_cost"], one["edge_staleness"],
            one["max_events"] or "", default, one["owner"])  # fmt: skip
