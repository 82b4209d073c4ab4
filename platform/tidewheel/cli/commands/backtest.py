"""tidewheel backtest: train and test on moving weeks of the past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, project_argument, table
from tidewheel.clock import DAY_US, parse_utc, utc_text

if TYPE_CHECKING:
    from tidewheel.training.backtest import FoldResult

POSITIVE = click.IntRange(min=1)


def _sources(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    given: dict[str, Path] = {}
    for value in values:
        name, sign, path = value.partition("=")
        if not sign or not name or not path:
            raise click.BadParameter(f"must be NAME=PATH (got {value!r})")
        given[name] = Path(path)
    return given


def _time(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_utc(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@project_argument
@click.option("--source", "sources", multiple=True, callback=_sources, metavar="NAME=PATH",
              help="File or folder of a source; without it, the source's folder in the lake.")  # fmt: skip
@click.option("--start", "start_us", required=True, callback=_time, metavar="TIME",
              help="Where the first fold's training begins (UTC).")  # fmt: skip
@click.option("--train-days", type=POSITIVE, default=7, show_default=True)
@click.option("--delay-days", type=click.IntRange(min=0), default=7, show_default=True,
              help="Gap between training and test: the time a label takes.")  # fmt: skip
@click.option("--test-days", type=POSITIVE, default=7, show_default=True)
@click.option("--folds", "n_folds", type=POSITIVE, default=4, show_default=True)
@click.option("--every-days", type=POSITIVE, default=7, show_default=True, help="How far each fold moves on.")
@output_option
def command(
    project: Path,
    sources: dict[str, Path],
    start_us: int,
    train_days: int,
    delay_days: int,
    test_days: int,
    n_folds: int,
    every_days: int,
    output: Output,
) -> int:
    """Train and test PROJECT on moving weeks of the past, each with the label gap that production has.

    Features are computed once for all folds. A fold that the data does not cover whole is an error.

    \b
    Example:
      tidewheel backtest card-fraud --start 2026-02-01 --train-days 14 --folds 3
    """
    from tidewheel.adapters.duckdb_features import DuckDbFeatures
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.errors import InputError
    from tidewheel.features.lake import source_paths
    from tidewheel.features.load import load_features
    from tidewheel.spec.load import load_project
    from tidewheel.training.backtest import mean_and_std, run_fold
    from tidewheel.training.dataset import labelled_dataset
    from tidewheel.training.split import check_covered, folds

    spec = load_project(project)
    features = load_features(project, spec)
    if unknown := sorted(sources.keys() - spec.sources.keys()):
        raise InputError(f"--source {unknown[0]}: no such source; declared are {', '.join(spec.sources)}")
    paths = {**source_paths(LocalHome.of(project).lake, spec), **sources}
    splits = folds(start_us, train_days * DAY_US, delay_days * DAY_US, test_days * DAY_US, n_folds, every_days * DAY_US)
    end_us = splits[-1].test_end_us
    with output.progress("features", total=None) as step:
        data = labelled_dataset(
            DuckDbFeatures(), spec, features, paths, start_us, end_us, end_us + spec.label.delay_us,
            lambda done, total: step.advance(0, f"view {done} of {total}"),
            lambda times_us: check_covered(splits, times_us),
        )  # fmt: skip
    results: list[FoldResult] = []
    with output.progress("folds", total=len(splits)) as step:
        for split in splits:
            step.advance(0, f"test {utc_text(split.test_start_us)[:10]}")
            results.append(run_fold(spec, data.frame, split, delay_days * DAY_US))
            step.advance(1)
    mean, std = mean_and_std(results)
    body = {"folds": [_fold(result) for result in results], "mean": mean, "std": std, "features": list(features.names)}
    output.result(body, lambda console: _render(console, results, mean, std))
    return 0


def _fold(result: FoldResult) -> dict[str, Any]:
    split = result.split
    return {
        "train_start": utc_text(split.train_start_us),
        "train_end": utc_text(split.train_end_us),
        "test_start": utc_text(split.test_start_us),
        "test_end": utc_text(split.test_end_us),
        "n_train": result.n_train,
        "n_test": result.n_test,
        "n_excluded": result.n_excluded,
        "n_frauds": result.n_frauds,
        "metrics": result.metrics,
    }


def _render(console: Console, results: list[FoldResult], mean: dict[str, float], std: dict[str, float]) -> None:
    rows = [
        (
            f"{utc_text(r.split.train_start_us)[:10]}",
            f"{utc_text(r.split.test_start_us)[:10]}",
            f"{r.n_test:,}",
            f"{r.n_frauds:,}",
            *(f"{r.metrics[m].value:.3f} ({r.metrics[m].low:.3f}-{r.metrics[m].high:.3f})" for m in mean),
        )
        for r in results
    ]
    rows.append(("mean", "", "", "", *(f"{mean[m]:.3f}" for m in mean)))
    rows.append(("std", "", "", "", *(f"{std[m]:.3f}" for m in std)))
    columns = ("train from", "test from", "rows", "positive", *(m.replace("_", " ") for m in mean))
    console.print(table("backtest (95 % intervals)", columns, rows, numeric=("rows", "positive")))
