"""tidewheel features: compute them for rows by either engine, or explain what they cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument, table


@click.group()
def command() -> None:
    """Compute features for rows, or explain what each view costs.

    \b
    Example:
      tidewheel features compute card-fraud --rows requests.parquet --output with-features.parquet
    """


@command.command()
@project_argument
@click.option("--rows", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help="Parquet or CSV file with entity keys, event time and request fields.")  # fmt: skip
@click.option("--output", "target", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="Parquet file to write: the rows, their order and columns, and one column per feature.")  # fmt: skip
@click.option("--engine", type=click.Choice(["duckdb", "stream"]), default="duckdb", show_default=True,
              help="duckdb: SQL over files. stream: the worker's kernel over the same files.")  # fmt: skip
@click.option("--source", "sources", multiple=True, metavar="NAME=PATH",
              help="Parquet or CSV file, or a folder of them; sources default to the project's lake.")  # fmt: skip
@click.option("--memory-limit", default="2GB", show_default=True, help="Memory that DuckDB may use.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="How the summary on stdout is printed.")  # fmt: skip
def compute(
    project: Path, rows: Path, target: Path, engine: str, sources: Sequence[str], memory_limit: str, form: str
) -> None:
    """Add one column per feature to the rows of a file, each as of its row's event time.

    \b
    Example:
      tidewheel features compute card-fraud --rows requests.parquet --output out.parquet --engine stream
    """
    import pyarrow as pa

    from tidewheel.adapters.duckdb_features import DuckDbFeatures
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.errors import InputError
    from tidewheel.features.lake import read_batches, source_paths, write_parquet
    from tidewheel.features.load import load_features
    from tidewheel.features.replay import compute_by_stream
    from tidewheel.features.rows import normalised_rows
    from tidewheel.features.sources import has_rows, named_paths
    from tidewheel.spec.load import load_project

    output = Output(as_json=form == "json")
    spec = load_project(project)
    features = load_features(project, spec)
    named = named_paths(sources, spec)
    for name, path in named.items():
        if not has_rows(path):
            raise InputError(
                f"--source {name}: {path} has no rows; give a Parquet or CSV file with events, or a folder of them"
            )
    paths = {**source_paths(LocalHome.of(project).lake, spec), **named}
    pieces = [piece for piece in read_batches(rows) if piece.num_rows]
    if not pieces:
        raise InputError(f"{rows}: has no rows; give at least one with entity keys and event time")
    given = pa.concat_tables(pieces)
    try:
        normalised_rows(given, spec, features)
    except InputError as error:
        raise InputError(f"{rows}: {error}") from error
    started = time.monotonic()
    with output.progress("Views") as step:
        before = 0

        def report(done: int, total: int) -> None:
            nonlocal before
            step.advance(done - before, f"{done} of {total}")
            before = done

        if engine == "duckdb":
            made = DuckDbFeatures(memory_limit).compute(features, spec, given, paths, report)
        else:
            made = compute_by_stream(features, spec, given, paths, report)
    write_parquet(target, made)
    took_s = time.monotonic() - started
    data = {"rows": made.num_rows, "features": list(features.names), "engine": engine, "output": str(target),
            "seconds": round(took_s, 3), "feature_digest": features.digest}  # fmt: skip

    def render(console: Console) -> None:
        console.print(f"{target}: {made.num_rows:,} rows, {len(features.names)} features by {engine} in {took_s:.1f} s")

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
