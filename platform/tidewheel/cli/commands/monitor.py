"""tidewheel monitor: data, drift and performance as of a time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, as_of_option, output_option, project_argument, table
from tidewheel.clock import utc_text
from tidewheel.errors import InputError, NotFound, Unavailable

if TYPE_CHECKING:
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.features.declaration import FeatureSet
    from tidewheel.monitoring.gather import Champion
    from tidewheel.monitoring.paths import MonitorPaths
    from tidewheel.monitoring.run import MonitorResult
    from tidewheel.monitoring.skew import Recompute
    from tidewheel.spec.project import ModelProject

LAKE_WAIT_S = 5.0


@click.command()
@project_argument
@as_of_option
@click.option(
    "--report/--no-report",
    default=None,
    help="Draw the Evidently page; by default when there is a finding that the run before did not have.",
)
@click.option(
    "--only",
    type=click.Choice(["skew"]),
    default=None,
    help="Just this part: skew compares served feature values with their offline recomputation.",
)
@output_option
def command(project: Path, as_of_us: int | None, report: bool | None, only: str | None, output: Output) -> int:
    """Look at PROJECT's newest window of `monitoring.every` and record what is found.

    It compares what was served with what the champion was trained on, the event feed with the days before, and
    scores with the labels that are mature. Findings are not an error: the exit code is 0.

    \b
    Example:
      tidewheel monitor card-fraud --as-of 2026-03-09
      tidewheel monitor card-fraud --only skew
    """
    _start_light()
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.journal.ledger import Journal
    from tidewheel.monitoring.paths import MonitorPaths
    from tidewheel.monitoring.run import STAGE, is_news, run_monitor
    from tidewheel.spec.load import load_project

    spec, home = load_project(project), LocalHome.of(project)
    at_us = as_of_us if as_of_us is not None else _newest_us(home, project, spec)
    paths = MonitorPaths(home.lake, home.reports, home.bundles)
    champion = _champion(home, spec)
    _wait_for_the_lake(home, spec, paths, at_us)
    if only == "skew":
        _only_skew(spec, home, paths, champion, at_us, output)
        return 0
    with output.progress("monitor"):
        journal = Journal(home.journal_url)
        result = run_monitor(spec, paths, journal, champion, at_us, _recompute(home, spec, champion))
    page, note = None, None
    if report or (report is None and is_news(spec, journal, result)):
        with output.progress("drift report"):
            page, note = _draw(spec.name, paths, champion, result)
        if page is not None:
            journal.finish_run(spec.name, STAGE, at_us, {**result.outcome, "report": str(page)})
    data = _data(result, page, note)
    output.result(data, lambda console: _render(console, spec.name, data, result))
    return 0


def _start_light() -> None:
    """PyArrow looks for pandas once, at its first conversion to NumPy, and importing pandas costs a second of each run.
    Nothing here uses it, so that one look finds none. NumPy's threads cost more than they save."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import pyarrow as pa

    blocker = _NoPandas()
    sys.meta_path.insert(0, blocker)
    try:
        pa.chunked_array([[0]]).to_numpy()
    finally:
        sys.meta_path.remove(blocker)


class _NoPandas:
    """An import finder that knows of no pandas."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def _newest_us(home: LocalHome, folder: Path, spec: ModelProject) -> int:
    from tidewheel.apps.watermark import watermark_us

    at_us = watermark_us(home, folder, spec)
    if at_us is None:
        raise InputError(f"{spec.name}: no event has arrived yet; send some with 'tidewheel ingest' or give --as-of")
    return at_us


def _champion(home: LocalHome, spec: ModelProject) -> Champion | None:
    """The version that the deployment document says serves, from its verified bundle; None before the first."""
    from tidewheel.adapters.signing_keys import trusted_keys
    from tidewheel.bundle.reference import read_reference
    from tidewheel.bundle.signature import verify_trusted
    from tidewheel.deployment.document import document_from_json
    from tidewheel.features.load import load_features
    from tidewheel.monitoring.gather import Champion
    from tidewheel.spec.load import load_project

    path = home.deployments / f"{spec.name}.json"
    try:
        document = document_from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    if document.champion is None:
        return None
    digest = document.variant(document.champion).digest
    folder = home.bundles / digest
    if not folder.is_dir():
        raise NotFound(f"{folder}: the bundle of version {document.champion} is not here; is a model server running?")
    verify_trusted(folder, digest, trusted_keys(home))
    features = load_features(folder, load_project(folder))
    return Champion(document.champion, digest, features, read_reference(folder))


def _recompute(home: LocalHome, spec: ModelProject, champion: Champion | None) -> Recompute | None:
    return None if champion is None or spec.monitoring.skew is None else _offline_engine(spec)


def _offline_engine(spec: ModelProject) -> Recompute:
    def recompute(features: FeatureSet, rows: Any, sources: Mapping[str, Path]) -> Any:
        from tidewheel.adapters.duckdb_features import DuckDbFeatures

        return DuckDbFeatures(threads=1).compute(features, spec, rows, sources)

    return recompute


def _only_skew(
    spec: ModelProject, home: LocalHome, paths: MonitorPaths, champion: Champion | None, at_us: int, output: Output
) -> None:
    from tidewheel.journal.ledger import Journal
    from tidewheel.monitoring.run import run_skew

    with output.progress("compare served values with their recomputation"):
        result = run_skew(spec, paths, Journal(home.journal_url), champion, at_us, _offline_engine(spec))
    given = result.given
    data = {
        "as_of": utc_text(given.end_us),
        "window": {"start": utc_text(given.start_us), "end": utc_text(given.end_us)},
        "champion": given.champion,
        "findings": list(result.findings),
        "features": [asdict(one) for one in given.skew],
        "limits": {"max_mismatch_ratio": given.max_mismatch_ratio, "max_lagged_ratio": given.max_lagged_ratio},
        "notes": list(given.notes),
    }
    output.result(data, lambda console: _render_skew(console, spec.name, data, result))


def _render_skew(console: Console, project: str, data: dict[str, Any], result: MonitorResult) -> None:
    given = result.given
    console.print(
        f"{project}: {data['window']['start']} to {data['window']['end']}, version {given.champion or 'none'}, "
        f"{given.n_predictions} served rows recomputed"
    )
    columns = ("feature", "different", "missing", "extra", "behind the log", "median delta", "95 %", "largest")
    rows = [
        (one.feature, f"{one.n_different:,}", f"{one.n_missing:,}", f"{one.n_extra:,}", f"{one.n_lagged:,}",
         *(f"{delta:.3g}" if delta else "" for delta in (one.delta_p50, one.delta_p95, one.delta_max)))
        for one in given.skew
    ]  # fmt: skip
    if rows:
        console.print(table("served against recomputed", columns, rows, columns[1:]))
    if result.findings:
        shown = [(one.severity, one.reason, one.message, f"docs/runbooks/{one.reason}.md") for one in result.findings]
        console.print(table("findings", ("severity", "finding", "says", "runbook"), shown))
    elif rows:
        console.print("[green]what was served is what training computes[/]")
    for text in data["notes"]:
        console.print(f"note: {text}", markup=False)


def _wait_for_the_lake(home: LocalHome, spec: ModelProject, paths: MonitorPaths, at_us: int) -> None:
    """While the platform runs, the worker may be a second behind with the lake; its window must be whole."""
    from tidewheel.adapters.platform_state import read_platform
    from tidewheel.monitoring.gather import request_lake

    try:
        running = read_platform(home).state == "running"
    except NotFound:
        running = False
    deadline = time.monotonic() + LAKE_WAIT_S
    while running and time.monotonic() < deadline:
        last_us = request_lake(spec, paths).last_us
        if last_us is not None and last_us >= at_us:
            return
        time.sleep(0.2)


def _draw(
    project: str, paths: MonitorPaths, champion: Champion | None, result: MonitorResult
) -> tuple[Path | None, str | None]:
    """(page, None), or (None, why there is none): the findings are recorded already, so nothing here is an error."""
    from tidewheel.adapters.evidently_report import draw_in_child
    from tidewheel.monitoring.report_sample import write_samples

    if champion is None:
        return None, "no drift report: no version serves"
    given = result.given
    page = paths.run(project, given.end_us) / "drift.html"
    try:
        samples = write_samples(project, paths, champion, given.start_us, given.end_us)
        if samples is None:
            return None, "no drift report: the version served too few rows before this window to compare with"
        title = f"{project} version {champion.version} as of {utc_text(given.end_us)}"
        return draw_in_child(*samples, page, title), None
    except (Unavailable, InputError, OSError) as error:
        return None, str(error)


def _data(result: MonitorResult, page: Path | None, note: str | None) -> dict[str, Any]:
    given = result.given
    return {
        "as_of": utc_text(given.end_us),
        "window": {"start": utc_text(given.start_us), "end": utc_text(given.end_us)},
        "champion": given.champion,
        "n_predictions": given.n_predictions,
        "n_degraded": given.n_degraded,
        "n_labels_mature": result.n_labels_mature,
        "findings": list(result.findings),
        "metrics": result.metrics,
        "drift": result.drift,
        "sources": {source.name: source.n_events for source in given.sources},
        "skew": {skew.feature: skew.n_different / skew.n_rows for skew in given.skew if skew.n_rows},
        "report": str(page) if page else None,
        "notes": [*given.notes, *([note] if note else [])],
    }


def _render(console: Console, project: str, data: dict[str, Any], result: MonitorResult) -> None:
    console.print(
        f"{project}: {data['window']['start']} to {data['window']['end']}, version {data['champion'] or 'none'}, "
        f"{data['n_predictions']} predictions, {data['n_labels_mature']} with mature labels"
    )
    if not result.findings:
        console.print("[green]nothing found[/]")
    else:
        rows = [(one.severity, one.reason, one.message, f"docs/runbooks/{one.reason}.md") for one in result.findings]
        console.print(table("findings", ("severity", "finding", "says", "runbook"), rows))
    for name, metric in data["metrics"].items():
        interval = f" ({metric['low']:.3f} to {metric['high']:.3f})" if "low" in metric else ""
        console.print(f"{name}: {metric['value']:.3f}{interval} on {metric['n']} labels", markup=False)
    drift = sorted(result.drift.items(), key=lambda item: -item[1])[:10]
    if drift:
        limit = result.given.drift_limit
        columns = ("feature", "PSI")
        console.print(table(f"drift, limit {limit:g}", columns, [(n, f"{v:.3f}") for n, v in drift], ("PSI",)))
    if data["report"]:
        console.print(f"report: {data['report']}", markup=False)
    for text in data["notes"]:
        console.print(f"note: {text}", markup=False)
