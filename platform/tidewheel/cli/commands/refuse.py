"""tidewheel refuse: stop a decision that waits."""

from __future__ import annotations

import click

from tidewheel.cli.answer import answer, answer_options
from tidewheel.cli.output import Output


@click.command()
@answer_options
def command(given: tuple[str, ...], reason: str, by: str | None, target: str, namespace: str, output: Output) -> int:
    """Refuse DECISION of PROJECT; who did it and why is recorded.

    A refused decision is final; the policy decides anew after the next monitor run. An approved decision that was not
    carried out yet can be refused too.

    \b
    Example:
      tidewheel refuse card-fraud retrain-20260309T000000Z --reason "a campaign of one week"
    """
    return answer(given, reason, by, target, namespace, output, "refuse")
