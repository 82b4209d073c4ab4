"""tidewheel train: make a version, pass it through the gate, register it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, as_of_option, output_option, project_argument, table
from tidewheel.clock import utc_text
from tidewheel.errors import Conflict, InputError

if TYPE_CHECKING:
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.findings import Finding
    from tidewheel.journal.decisions import DecisionRecord
    from tidewheel.journal.ledger import Journal
    from tidewheel.spec.project import ModelProject


@click.command()
@project_argument
@as_of_option
@click.option("--if-needed", is_flag=True, help="Ask the retrain policy first; its decision is recorded either way.")
@click.option("--decision", "decision_id", metavar="ID", help="Carry out an approved decision to retrain, once.")
@click.option("--skip-code", type=click.IntRange(1, 255), metavar="N", help="With --if-needed: exit with N unless the "
              "decision waits for a person, so that a schedule asks nobody for nothing.")  # fmt: skip
@click.option(
    "--signing-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Private key (PEM) that signs the bundle; TIDEWHEEL_SIGNING_KEY_FILE or the home's by default.",
)
@click.option("--register/--no-register", default=True, show_default=True, help="Register the version in MLflow.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", show_envvar=True, metavar="URI",
              help="MLflow's address; the running platform's by default.")  # fmt: skip
@output_option
def command(
    project: Path,
    as_of_us: int | None,
    if_needed: bool,
    decision_id: str | None,
    skip_code: int | None,
    signing_key: Path | None,
    register: bool,
    tracking_uri: str | None,
    output: Output,
) -> int:
    """Train a version of PROJECT, compare it with a baseline and the champion, and register it in MLflow.

    The newest mature labels are the holdout; training ends one label delay before it, as it would have in production.
    A version that passes becomes @challenger where a champion serves; the first version of a tier 1 project waits for
    'tidewheel promote'.

    \b
    Example:
      tidewheel train card-fraud --as-of 2026-03-09
      tidewheel train card-fraud --if-needed --as-of 2026-03-10
    """
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.spec.load import load_project

    if if_needed and decision_id:
        raise click.UsageError("--if-needed and --decision exclude each other")
    if skip_code and not if_needed:
        raise click.UsageError("--skip-code needs --if-needed")
    if (if_needed or decision_id) and not register:
        raise click.UsageError("a decision is carried out only by a registered version; leave out --no-register")
    home = LocalHome.of(project)
    spec = load_project(project)
    at_us = as_of_us if as_of_us is not None else _newest_us(home, project, spec, decision_id)
    record: DecisionRecord | None = None
    code = project
    if if_needed or decision_id:
        from tidewheel.journal.ledger import Journal

        journal = Journal(home.journal_url)
        code = _code_in_force(journal, home, project, spec)
        spec = load_project(code)
        record = _approved(journal, spec, decision_id) if decision_id else _asked(journal, home, spec, at_us)
        if record.state != "approved":
            _tell_decision(record, project, output)
            return 0 if record.state == "pending" or skip_code is None else skip_code
        at_us = max(at_us, record.as_of_us)
    result = _train(home, code, spec, at_us, record, signing_key, register, tracking_uri, output)
    if record is not None:
        done = journal.mark_executed(record.id, result, project=spec.name)
        result = {**(done.result or result), "decision": _decision_json(done)}
    output.result(result, lambda console: _render(console, result, spec, project))
    return skip_code or 0


def _newest_us(home: LocalHome, folder: Path, spec: ModelProject, decision_id: str | None) -> int:
    from tidewheel.apps.watermark import watermark_us

    at_us = 0 if decision_id else watermark_us(home, folder, spec)
    if at_us is None:
        raise InputError(f"{spec.name}: no event has arrived yet; send some with 'tidewheel ingest' or give --as-of")
    return at_us


def _approved(journal: Journal, spec: ModelProject, decision_id: str) -> DecisionRecord:
    record = journal.decision(decision_id, project=spec.name)
    if record.kind != "retrain":
        raise InputError(f"decision {decision_id!r}: decides about {record.kind}, not about a retrain")
    if record.state == "pending":
        raise Conflict(
            f"decision {decision_id!r}: waits for a person; run 'tidewheel approve {decision_id} --reason TEXT' first"
        )
    if record.state in ("none", "refused"):
        raise Conflict(f"decision {decision_id!r}: asks for no training (it is {record.state})")
    return record


def _asked(journal: Journal, home: LocalHome, spec: ModelProject, at_us: int) -> DecisionRecord:
    """What the policy says, recorded; an approved retrain that did not run yet comes first."""
    from tidewheel.monitoring.paths import MonitorPaths
    from tidewheel.monitoring.retrain_gather import KIND, decide_and_record

    if unfinished := journal.decisions(spec.name, kind=KIND, state="approved", until_us=at_us):
        return unfinished[0]
    trained_us, data_end_us = _champion_times(home, spec.name)
    return decide_and_record(
        spec,
        MonitorPaths(home.lake, home.reports, home.bundles),
        journal,
        champion_trained_as_of_us=trained_us,
        champion_data_end_us=data_end_us,
        as_of_us=at_us,
    )


def _champion_times(home: LocalHome, name: str) -> tuple[int | None, int | None]:
    """As-of time of the training of what serves, and the end of its newest data; None where nothing serves."""
    from tidewheel.adapters.signing_keys import trusted_keys
    from tidewheel.bundle.plan import read_plan
    from tidewheel.bundle.signature import verify_trusted
    from tidewheel.deployment.document import document_from_json

    path = home.deployments / f"{name}.json"
    if not path.is_file():
        return None, None
    document = document_from_json(path.read_bytes(), str(path))
    digest = next((v.digest for v in document.variants if v.version == document.champion), None)
    if digest is None or not (home.bundles / digest).is_dir():
        return None, None
    verify_trusted(home.bundles / digest, digest, trusted_keys(home))
    trained = read_plan(home.bundles / digest).trained
    return int(trained["as_of_us"]), int(trained["holdout"]["end_us"])


def _code_in_force(journal: Journal, home: LocalHome, folder: Path, spec: ModelProject) -> Path:
    """What runs by itself trains what was applied; the folder may hold somebody's unfinished edit."""
    from tidewheel.bundle.manifest import verify
    from tidewheel.reconcile.applied import read_applied

    applied = read_applied(journal, spec.name)
    if applied is None:
        return folder
    verify(home.projects / applied.digest, applied.digest)
    return home.projects / applied.digest


def _train(
    home: LocalHome,
    folder: Path,
    spec: ModelProject,
    at_us: int,
    record: DecisionRecord | None,
    key_file: Path | None,
    register: bool,
    tracking_uri: str | None,
    output: Output,
) -> dict[str, Any]:
    from tidewheel.adapters.duckdb_features import DuckDbFeatures
    from tidewheel.adapters.signing_keys import signing_key, trust_of
    from tidewheel.features.lake import source_paths
    from tidewheel.features.load import load_features
    from tidewheel.training.lifecycle import N_STEPS, Workshop, resumed, train_version

    registry = _registry(home, tracking_uri) if register else None
    if record is not None and registry is not None and (made := resumed(spec, registry, record.id)) is not None:
        return made
    features = load_features(folder, spec)
    key = signing_key(home, key_file)
    with output.progress("train", total=N_STEPS) as step:
        shop = Workshop(
            engine=DuckDbFeatures(),
            sources=source_paths(home.lake, spec),
            bundles=home.bundles,
            registry=registry,
            key=key,
            trust=trust_of(home),
            on_step=lambda name: step.advance(1, name),
            on_features=lambda done, total: step.advance(0, f"features: view {done} of {total}"),
            skew=_skew(home, spec, at_us),
        )
        trained = train_version(spec, features, folder, shop, at_us, record.id if record else "")
        step.advance(1, "done")
    return trained.to_json()


def _skew(home: LocalHome, spec: ModelProject, at_us: int) -> Finding | None:
    if spec.training.gate.skew_checked_within_us is None:
        return None
    from tidewheel.journal.ledger import Journal
    from tidewheel.monitoring.skew_gate import skew_finding

    return skew_finding(spec, Journal(home.journal_url), at_us)


def _registry(home: LocalHome, tracking_uri: str | None) -> Any:
    from tidewheel.adapters.mlflow_registry import MlflowRegistry
    from tidewheel.adapters.platform_state import read_platform

    return MlflowRegistry(tracking_uri or read_platform(home).mlflow_uri)


def _decision_json(record: DecisionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "as_of": utc_text(record.as_of_us),
        "action": "wait" if record.state == "pending" else record.decision.action,
        "state": record.state,
        "findings": record.decision.findings,
    }


def _tell_decision(record: DecisionRecord, folder: Path, output: Output) -> None:
    """A decision that trains nothing now: nothing asked, refused, waiting, or carried out before."""
    decision = _decision_json(record)
    body = {**(record.result or {"version": None, "gate": None}), "decision": decision}
    approve = f"tidewheel approve {folder} {record.id} --reason TEXT"

    def render(console: Console) -> None:
        console.print(f"{record.id}: [bold]{decision['action']}[/] ({record.state})")
        console.print(_findings_table("because", [_plain(finding) for finding in record.decision.findings]))
        if record.state == "pending":
            console.print(f"waits for a person; run: {approve}", markup=False)
        if record.state == "executed":
            console.print(f"was carried out: version {body['version']}")

    output.result(body if record.state != "pending" else {**body, "next": approve}, render)


def _render(console: Console, result: Mapping[str, Any], spec: ModelProject, folder: Path) -> None:
    gate, version = result["gate"], result["version"]
    colour = "green" if gate["action"] == "pass" else "red"
    name = f"version {version}" if version else "a version that was not registered"
    console.print(f"{spec.name}: {name}, gate [{colour}]{gate['action']}[/], digest {result['digest'][:12]}")
    models = [("candidate", result["metrics"]), ("baseline", result["baseline"])]
    if result["champion"]:
        models.append((f"champion {result['champion']['version']}", result["champion"]))
    metrics = list(result["metrics"])
    rows = [(model, *(_estimate(found.get(metric)) for metric in metrics)) for model, found in models]
    title = f"holdout {result['window']['holdout_start'][:10]} to {result['window']['holdout_end'][:10]} (95 %)"
    console.print(table(title, ("model", *(metric.replace("_", " ") for metric in metrics)), rows))
    console.print(_findings_table("gate", [_plain(finding) for finding in gate["findings"]]))
    for note in result["notes"]:
        console.print(f"note: {note}", markup=False)
    if result["alias"]:
        console.print(f"alias @{result['alias']} is set")
    elif version and gate["action"] == "pass":
        console.print(f"to let it serve: tidewheel promote {folder} {version} --reason TEXT", markup=False)


def _findings_table(title: str, findings: list[Mapping[str, Any]]) -> Any:
    return table(title, ("finding", "says"), [(finding["reason"], finding["message"]) for finding in findings])


def _plain(finding: Any) -> Mapping[str, Any]:
    found = finding if isinstance(finding, Mapping) else {"reason": finding.reason, "message": finding.message}
    return dict(found)


def _estimate(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}-{estimate['high']:.3f})" if estimate else "not defined"
