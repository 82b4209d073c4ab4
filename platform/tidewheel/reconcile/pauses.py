"""Whether a person holds a rollout where it is: the newest of two ledger entries. Guards go on; steps wait."""

from __future__ import annotations

from tidewheel.journal.ledger import Journal

PAUSED, RESUMED = "rollout-paused", "rollout-resumed"


def is_paused(journal: Journal, project: str) -> bool:
    return _newest(journal, project) == PAUSED


def set_paused(journal: Journal, project: str, paused: bool, *, actor: str, reason: str) -> bool:
    """Record it; False where it was so already."""
    kind = PAUSED if paused else RESUMED
    if (_newest(journal, project) or RESUMED) == kind:
        return False
    journal.append(project, kind, {}, actor=actor, reason=reason)
    return True


def _newest(journal: Journal, project: str) -> str | None:
    entries = [
        entry for kind in (PAUSED, RESUMED) for entry in journal.entries(project, kind=kind, limit=1, newest_first=True)
    ]
    return max(entries, key=lambda entry: entry.seq).kind if entries else None
