"""A person's answer to a decision that waits: what `tidewheel approve` and `tidewheel refuse` share."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from tidewheel.cli.output import Output, output_option, table
from tidewheel.cli.target import cluster_of, target_option
from tidewheel.clock import utc_text

F = TypeVar("F", bound=Callable[..., Any])


def answer_options(function: F) -> F:
    """``[PROJECT] DECISION --reason TEXT --by NAME --target --output``; the command receives ``given``, ``reason``,
    ``by``, ``target``, ``namespace`` and ``output``."""
    function = target_option(output_option(function))
    function = click.option("--by", metavar="NAME", help="Who answered, where somebody else ran the command for them; "
                            "your user name by default.")(function)  # fmt: skip
    function = click.option("--reason", required=True, help="Why, for the ledger.")(function)
    return click.argument("given", nargs=-1, required=True, metavar="[PROJECT] DECISION")(function)


def answer(
    given: tuple[str, ...], reason: str, by: str | None, target: str, namespace: str, output: Output,
    verb: Literal["approve", "refuse"],
) -> int:  # fmt: skip
    """Record the answer with who gave it and why. Raises NotFound, and Conflict that names the decision's state."""
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.journal.ledger import Journal
    from tidewheel.reconcile.answers import Answer
    from tidewheel.spec.load import load_project

    if len(given) > 2:
        raise click.UsageError(f"expected [PROJECT] DECISION (got {len(given)} arguments)")
    if not reason.strip():
        raise click.BadParameter("must not be empty", param_hint="--reason")
    if by is not None and not by.strip():
        raise click.BadParameter("must not be empty", param_hint="--by")
    actor = by or getpass.getuser()
    project, decision = Path(given[0] if len(given) == 2 else "."), given[-1]
    spec = load_project(project)
    if (cluster := cluster_of(target, namespace)) is not None:
        cluster.answer(spec.name, Answer(verb, decision, actor, reason.strip()))
        told = {"id": decision, "sent": True, "target": cluster.context}
        output.result(told, lambda console: console.print(f"{verb} {decision}: handed to the controller"))
        return 0
    with Journal(LocalHome.of(project).journal_url) as journal:
        change = journal.approve if verb == "approve" else journal.refuse
        record = change(decision, actor, reason.strip(), project=spec.name)
    data = {
        "id": record.id,
        "kind": record.kind,
        "as_of": utc_text(record.as_of_us),
        "action": record.decision.action,
        "state": record.state,
        "actor": record.actor,
        "reason": record.reason,
        "findings": list(record.decision.findings),
    }
    rows = [(finding.reason, finding.message) for finding in record.decision.findings]
    title = f"{record.id} is {record.state} by {record.actor}"
    output.result(data, lambda console: console.print(table(title, ("finding", "says"), rows)))
    if verb == "approve" and record.kind == "retrain":
        output.note(f"the running platform trains now; by hand: tidewheel train {project} --decision {record.id}")
    return 0
