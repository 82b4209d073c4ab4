"""tidewheel predict: ask the model server about rows of a file or about one request."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, output_option, print_error, project_argument, table
from tidewheel.errors import InputError, Unavailable

if TYPE_CHECKING:
    from tidewheel.serving.client import LoadResult
    from tidewheel.spec.project import ModelProject

ASK_TIMEOUT_S = 10.0


@click.command()
@project_argument
@click.option(
    "--rows", type=click.Path(path_type=Path, dir_okay=False), help="Parquet or CSV file, one request per row."
)
@click.option("--request", "request_text", metavar="JSON", help="One request: column names to values.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="RPS", help="Requests a second.")
@click.option("--connections", type=click.IntRange(1, 1024), default=32, show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first rows of the file.")
@click.option("--url", help="Base URL of a model server; the running platform's by default.")
@output_option
def command(
    project: Path,
    rows: Path | None,
    request_text: str | None,
    rate: float | None,
    connections: int,
    limit: int | None,
    url: str | None,
    output: Output,
) -> int:
    """Ask the model server of PROJECT. Rows are sent at --rate, each timed from its scheduled moment, none retried.

    \b
    Examples:
      tidewheel predict card-fraud --rows day.parquet --rate 500
      tidewheel predict card-fraud --request '{"customer_id": 7, "terminal_id": 12, "amount": 31.5}'
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.adapters.platform_state import read_platform
    from tidewheel.spec.load import load_project

    if (rows is None) == (request_text is None):
        raise click.UsageError("give either --rows FILE or --request JSON")
    spec = load_project(project)
    endpoint = url or read_platform(LocalHome.of(project)).endpoint(spec.name)
    if request_text is not None:
        reply = _ask(spec, endpoint, request_text)
        output.result(reply, lambda console: _render_reply(console, reply))
        return 0
    assert rows is not None
    result = _send_rows(spec, endpoint, rows, rate, connections, limit, output)
    figures = _figures(result)
    output.result(figures, lambda console: _render(console, figures))
    if result.n_failed == 0:
        return 0
    print_error(
        f"{endpoint}: {result.n_failed} of {result.n_requests} requests failed, the first by '{result.first_error}'; "
        "see 'tidewheel status'"
    )
    return 1


def _ask(spec: ModelProject, endpoint: str, text: str) -> dict[str, Any]:
    """One request; the first row of every output by name."""
    import urllib.error
    import urllib.request

    from tidewheel.serving.rows import request_body, sendable_columns

    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"--request: not valid JSON ({error})") from error
    columns = sendable_columns(spec)
    if not isinstance(values, dict):
        raise InputError(f"--request: must be an object of columns, such as {', '.join(columns)}")
    unknown = [name for name in values if name not in columns]
    if unknown:
        raise InputError(f"--request: unknown column(s) {', '.join(unknown)}; allowed are {', '.join(columns)}")
    if not endpoint.startswith(("http://", "https://")):
        raise InputError(f"--url: must be http://HOST:PORT (got {endpoint!r})")
    asked = urllib.request.Request(
        f"{endpoint}/v2/models/{spec.name}/infer",
        request_body(values, columns),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=ASK_TIMEOUT_S) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        told = error.read().decode("utf-8", "replace")[:1000]
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(told)["error"]
        kind = Unavailable if error.code == 503 else InputError
        raise kind(f"{endpoint}: HTTP {error.code}: {told}") from error
    except OSError as error:
        raise Unavailable(f"{endpoint}: the model server does not answer ({error}); see 'tidewheel status'") from error
    return {"id": body["id"], **{output["name"]: output["data"][0] for output in body["outputs"]}}


def _send_rows(
    spec: ModelProject,
    endpoint: str,
    rows: Path,
    rate: float | None,
    connections: int,
    limit: int | None,
    output: Output,
) -> LoadResult:
    import asyncio
    import gc

    import pyarrow as pa
    import uvloop

    from tidewheel.clock import SystemClock
    from tidewheel.features.lake import read_batches
    from tidewheel.serving.client import OpenLoop
    from tidewheel.serving.rows import bodies

    pieces = [piece for piece in read_batches(rows) if piece.num_rows]
    if not pieces:
        raise InputError(f"{rows}: has no rows; give at least one with entity keys")
    sent = pa.concat_tables(pieces)
    sent = sent.slice(0, limit) if limit else sent
    try:
        requests = bodies(sent, spec)
    except InputError as error:
        raise InputError(f"{rows}: {error}") from error
    gc.disable()  # a collection's pause would be counted as the server's
    with output.progress("asking", total=sent.num_rows) as step:
        newest = 0

        def report(n: int, result: LoadResult) -> None:
            nonlocal newest
            since, newest = result.n_ok - newest, result.n_ok
            told = {
                "rate_rps": round(result.rate_rps(), 1),
                "p50_ms": round(result.percentile_ms(50, since), 3) if since else None,
                "p99_ms": round(result.percentile_ms(99, since), 3) if since else None,
                "n_failed": result.n_failed,
            }
            step.advance(n, note=json.dumps(told) if output.as_json else _short(told))

        load = OpenLoop(endpoint, f"/v2/models/{spec.name}/infer", connections, rate, SystemClock(), report)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(load.run(requests))


def _short(told: dict[str, Any]) -> str:
    return f"{told['rate_rps']:.0f}/s, p50 {told['p50_ms']} ms, p99 {told['p99_ms']} ms, {told['n_failed']} failed"


def _figures(result: LoadResult) -> dict[str, Any]:
    return {
        "n_requests": result.n_requests,
        "n_ok": result.n_ok,
        "n_failed": result.n_failed,
        "n_degraded": result.n_degraded,
        "errors": dict(result.errors),
        "first_error": result.first_error,
        "duration_s": round(result.duration_us / 1e6, 3),
        "rate_rps": round(result.rate_rps(), 1),
        "p50_ms": round(result.percentile_ms(50), 3),
        "p99_ms": round(result.percentile_ms(99), 3),
        "max_ms": round(result.percentile_ms(100), 3),
        "versions": dict(result.versions),
        "decisions": dict(result.decisions),
        "reasons": dict(result.reasons),
    }


def _render(console: Console, figures: dict[str, Any]) -> None:
    word = "[green]asked[/]" if not figures["n_failed"] else "[red]asked[/]"
    console.print(
        f"{word}: {figures['n_ok']:,} of {figures['n_requests']:,} answered, {figures['n_failed']:,} failed, "
        f"{figures['n_degraded']:,} degraded"
    )
    if not figures["n_ok"]:
        return
    console.print(
        f"{figures['rate_rps']:.0f} requests/s, p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, "
        f"longest {figures['max_ms']} ms"
    )
    counted = [(f"version {name or '-'}", n) for name, n in figures["versions"].items()]
    counted += [(f"decision {name}", n) for name, n in figures["decisions"].items()]
    counted += [(f"degraded by {name}", n) for name, n in figures["reasons"].items()]
    console.print(table("", ("answer", "requests"), counted, numeric=("requests",)))


def _render_reply(console: Console, reply: dict[str, Any]) -> None:
    console.print(table("", ("output", "value"), list(reply.items())))
