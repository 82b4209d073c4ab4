"""tidewheel loadtest: what the model server of a project carries, and at what latency."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, print_error, project_argument, table
from tidewheel.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from tidewheel.adapters.latency_plot import DrawnRate
    from tidewheel.serving.client import LoadResult
    from tidewheel.serving.load_test import RateFigures
    from tidewheel.spec.project import ModelProject

MAX_BODIES = 20_000


@dataclass(frozen=True)
class _Asked:
    """How to load: where, what, and for how long at each rate."""

    spec: ModelProject
    endpoint: str
    bodies: Sequence[bytes]
    connections: int
    duration_s: float
    random: bool
    seed: int
    deadline_us: int


def _duration_s(ctx: click.Context, param: click.Parameter, value: str) -> float:
    from tidewheel.spec.scalars import duration_us

    try:
        return duration_us(value) / 1e6
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@project_argument
@click.option(
    "--rate", "rates", type=click.FloatRange(min=0, min_open=True), multiple=True, metavar="RPS",
    help="Requests a second; may be given several times. Without it the highest rate that is carried is looked for.",
)  # fmt: skip
@click.option("--for", "duration_s", default="10s", show_default=True, callback=_duration_s, help="Time at each rate.")
@click.option(
    "--rows", type=click.Path(path_type=Path, dir_okay=False),
    help="Parquet or CSV file of requests; by default those of the prediction log, else the source's in the lake.",
)  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 4096), default=64, show_default=True)
@click.option(
    "--arrivals", type=click.Choice(["random", "even"]), default="random", show_default=True,
    help="random: callers that know nothing of each other (Poisson); even: the same distance apart.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of random arrivals.")
@click.option("--most", type=click.FloatRange(min=1), default=20_000, show_default=True, metavar="RPS",
              help="Where looking for the highest rate ends.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw it: a .svg, .png or .pdf file.")
@click.option("--url", help="Base URL of a model server; the running platform's by default.")
@output_option
def command(
    project: Path,
    rates: tuple[float, ...],
    duration_s: float,
    rows: Path | None,
    connections: int,
    arrivals: str,
    seed: int,
    most: float,
    plot: Path | None,
    url: str | None,
    output: Output,
) -> int:
    """Load the model server of PROJECT with real requests and measure what it carries.

    An open loop: requests leave when they are due, whatever the server does, each is timed from the moment it was due,
    and none is sent twice. A rate is carried where 99 % of its requests were answered within the deadline, by the
    model. The requests keep their ids and times; the log marks them as a test, so that monitors leave them out.

    \b
    Examples:
      tidewheel loadtest card-fraud
      tidewheel loadtest card-fraud --rate 200 --rate 400 --for 30s --plot latency.svg
    """
    from tidewheel.adapters.latency_plot import checked_suffix, draw_latencies
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.adapters.platform_state import read_platform
    from tidewheel.serving.load_test import figures_of
    from tidewheel.spec.load import load_project

    if plot is not None:
        checked_suffix(plot)
    spec = load_project(project)
    home = LocalHome.of(project)
    endpoint = url or read_platform(home).endpoint(spec.name)
    asked = _Asked(
        spec, endpoint, _bodies(spec, home, rows, output), connections, duration_s, arrivals == "random", seed,
        spec.serving.deadline_us,
    )  # fmt: skip
    done: list[RateFigures] = []
    drawn: list[DrawnRate] = []
    for rate_rps in _rates(rates, done, most):
        result = _load(asked, rate_rps, output)
        figures = figures_of(result, rate_rps, asked.deadline_us)
        done.append(figures)
        drawn.append(_drawn(rate_rps, figures, result))
        output.event("rate", **_told(figures))
    told = _summary(asked, done, searched=not rates)
    if plot is not None:
        deadline_ms = asked.deadline_us / 1000
        title = f"{spec.name}: {connections} connections, {duration_s:g} s each, deadline {deadline_ms:g} ms"
        draw_latencies(plot, title, drawn, asked.deadline_us)
        told["plot"] = str(plot)
    output.result(told, lambda console: _render(console, told))
    late = next((one for one in done if one.client_was_late), None)
    if late is not None:
        output.note(
            f"at {late.offered_rps:g}/s the client itself was {late.client_lag_ms:g} ms late (99th percentile): "
            "measure from a machine, or a core, of its own"
        )
    missed = [one for one in done if not one.carried]
    if not missed or (not rates and told["carried_rps"] is not None):
        return 0
    first = max(missed[-1].errors, key=missed[-1].errors.__getitem__, default="answers came too late or degraded")
    print_error(f"{endpoint}: {missed[-1].offered_rps:g} requests/s were not carried ({first}); see 'tidewheel status'")
    return 1


def _rates(given: Sequence[float], done: Sequence[RateFigures], most: float) -> Iterator[float]:
    """The given rates, or one after the other as ``done`` grows."""
    from tidewheel.serving.load_test import next_rate_rps

    if given:
        yield from given
        return
    while (upcoming := next_rate_rps(done, most)) is not None:
        yield upcoming


def _bodies(spec: ModelProject, home: Any, rows: Path | None, output: Output) -> list[bytes]:
    from itertools import islice

    from tidewheel.serving.rows import TEST, bodies

    path, found = _requests(spec, home, rows)
    if not found.num_rows:
        where = f"{path}: has no rows" if rows else f"{path}: no requests yet"
        raise InputError(f"{where}; give a file of requests by --rows")
    try:
        made = list(islice(bodies(found, spec, TEST), MAX_BODIES))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    output.note(f"{len(made):,} different requests from {path}")
    return made


def _requests(spec: ModelProject, home: Any, rows: Path | None) -> tuple[Path, pa.Table]:
    """Where requests were found, and the newest of them."""
    from tidewheel.features.lake import source_paths
    from tidewheel.serving.request_rows import newest_logged, newest_rows

    if rows is not None:
        return rows, newest_rows(rows, MAX_BODIES)
    log = home.lake / "predictions" / spec.name
    if (logged := newest_logged(log, MAX_BODIES)).num_rows:
        return log, logged
    folder = source_paths(home.lake, spec)[spec.request]
    return folder, newest_rows(folder, MAX_BODIES)


def _load(asked: _Asked, rate_rps: float, output: Output) -> LoadResult:
    import asyncio
    import gc
    from itertools import cycle, islice

    import uvloop

    from tidewheel.clock import SystemClock
    from tidewheel.serving.arrivals import at_random, evenly
    from tidewheel.serving.client import OpenLoop

    n = max(1, round(rate_rps * asked.duration_s))
    moments = at_random(rate_rps, asked.seed) if asked.random else evenly(rate_rps)
    path = f"/v2/models/{asked.spec.name}/infer"
    gc.collect()
    gc.disable()  # a collection's pause would be counted as the server's
    try:
        with output.progress(f"{rate_rps:g}/s", total=n) as step:
            load = OpenLoop(
                asked.endpoint, path, asked.connections, rate_rps, SystemClock(),
                lambda sent, result: step.advance(sent, _short(result)), arrivals=moments, exact=True,
            )  # fmt: skip
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(load.run(islice(cycle(asked.bodies), n)))
    finally:
        gc.enable()


def _short(result: LoadResult) -> str:
    p50, p99 = (result.percentile_ms(percent, newest=1000) for percent in (50, 99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, {result.n_failed} failed"


def _drawn(rate_rps: float, figures: RateFigures, result: LoadResult) -> DrawnRate:
    import numpy as np

    from tidewheel.adapters.latency_plot import DrawnRate

    seconds = result.duration_us / 1e6
    within_rps = figures.within_ratio * figures.n_requests / seconds if seconds else 0.0
    return DrawnRate(rate_rps, within_rps, np.array(result.latencies_us, dtype=np.int64))


def _told(one: RateFigures) -> dict[str, Any]:
    p50, p90, p99, p999, longest = one.latency_ms
    return {
        "offered_rps": one.offered_rps, "answered_rps": one.answered_rps, "carried": one.carried,
        "n_requests": one.n_requests, "n_ok": one.n_ok, "n_failed": one.n_failed, "n_degraded": one.n_degraded,
        "within_deadline_ratio": round(one.within_ratio, 6), "p50_ms": p50, "p90_ms": p90, "p99_ms": p99,
        "p99_9_ms": p999, "max_ms": longest, "client_lag_p99_ms": one.client_lag_ms, "errors": one.errors,
        "reasons": one.reasons,
    }  # fmt: skip


def _summary(asked: _Asked, done: Sequence[RateFigures], *, searched: bool) -> dict[str, Any]:
    from tidewheel.serving.load_test import carried_rps

    return {
        "project": asked.spec.name, "url": asked.endpoint, "connections": asked.connections,
        "duration_s": asked.duration_s, "deadline_ms": asked.deadline_us / 1000, "searched": searched,
        "carried_rps": carried_rps(done), "rates": [_told(one) for one in done],
    }  # fmt: skip


def _render(console: Console, told: dict[str, Any]) -> None:
    columns = (
        "sent/s",
        "answered/s",
        "in time",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "longest",
        "failed",
        "degraded",
    )
    rows = [
        (
            f"{one['offered_rps']:g}", f"{one['answered_rps']:g}", f"{one['within_deadline_ratio']:.2%}",
            *(one[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms", "n_failed", "n_degraded")),
        )
        for one in sorted(told["rates"], key=lambda one: float(one["offered_rps"]))
    ]  # fmt: skip
    title = f"{told['project']}, {told['connections']} connections, deadline {told['deadline_ms']:g} ms"
    console.print(table(title, columns, rows, numeric=columns))
    if told["searched"] and told["carried_rps"] is not None:
        console.print(f"carries [green]{told['carried_rps']:g} requests/s[/] within the deadline")
    reasons = {reason: n for one in told["rates"] for reason, n in one["reasons"].items()}
    if reasons:
        console.print(f"degraded by {json.dumps(reasons)}")
    if "plot" in told:
        console.print(f"drawn in {told['plot']}")
