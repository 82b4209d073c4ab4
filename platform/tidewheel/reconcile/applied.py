"""What a person applied: the ledger says which code of a project is in force."""

from __future__ import annotations

from dataclasses import dataclass

from tidewheel.journal.ledger import Journal

APPLIED = "applied"


@dataclass(frozen=True)
class Applied:
    """Project code in force: a folder in the home named by the digest over its files."""

    name: str
    digest: str
    at_us: int


def read_applied(journal: Journal, project: str) -> Applied | None:
    """The newest applied code of a project, None before the first."""
    entries = journal.entries(project, kind=APPLIED, limit=1, newest_first=True)
    if not entries:
        return None
    body = entries[0].body
    return Applied(project, str(body["digest"]), int(body["at_us"]))
