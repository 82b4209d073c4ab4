"""tidewheel approve: let a decision that waits be carried out."""

from __future__ import annotations

import click

from tidewheel.cli.answer import answer, answer_options
from tidewheel.cli.output import Output


@click.command()
@answer_options
def command(given: tuple[str, ...], reason: str, by: str | None, target: str, namespace: str, output: Output) -> int:
    """Approve DECISION of PROJECT; who did it and why is recorded.

    The platform then carries it out: a retrain is trained, a promotion served. Approving it again changes nothing.

    \b
    Example:
      tidewheel approve card-fraud retrain-20260309T000000Z --reason "amounts changed for good"
    """
    return answer(given, reason, by, target, namespace, output, "approve")
