"""Moves of @champion by a person: recorded in the ledger, then made in the registry; waiting until servers follow."""

from __future__ import annotations

from collections.abc import Callable

from tidewheel.bundle.registry import CHAMPION, ModelRegistry
from tidewheel.clock import SECOND_US, Clock
from tidewheel.errors import ContractViolation, NotFound, Unavailable
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.head import Head, head_from_body
from tidewheel.reconcile.ports import Cluster


def move_champion(
    journal: Journal, registry: ModelRegistry, project: str, version: str, *, kind: str, actor: str, reason: str
) -> str | None:
    """Set @champion to a version; the version it named before. Raises NotFound where the version does not exist."""
    found = registry.version(project, version)
    before = registry.aliases(project).get(CHAMPION)
    if before != version:
        body = {"from": before, "to": version, "digest": found.digest}
        journal.append(project, kind, body, actor=actor, reason=reason)
        registry.set_alias(project, CHAMPION, version)
    return before


def previous_champion(journal: Journal, project: str) -> str:
    """The champion before the one that the journal says serves now. Raises NotFound."""
    newest = journal.head(project)
    head = head_from_body(newest.body) if newest else Head()
    if head.champion is None:
        raise NotFound(f"{project}: nothing serves yet, so there is nothing to roll back; run 'tidewheel promote'")
    if head.previous is None:
        raise NotFound(f"{project}: version {head.champion} is the first that serves; there is none before it")
    return head.previous


def wait_until_served(
    journal: Journal,
    cluster: Cluster,
    project: str,
    version: str,
    clock: Clock,
    pause: Callable[[float], object],
    timeout_s: float,
) -> int:
    """Until every living server serves a document whose champion is ``version``; that document's generation.

    Raises ContractViolation where the version is refused, Unavailable where nothing happens in time.
    """
    deadline_us = clock.monotonic_us() + int(timeout_s * SECOND_US)
    while clock.monotonic_us() < deadline_us:
        newest = journal.head(project)
        head = head_from_body(newest.body) if newest else Head()
        if version in head.refused:
            finding = head.refused[version]
            raise ContractViolation(f"version {version} is refused: {finding.reason}: {finding.message}")
        document, statuses = cluster.read_document(project), cluster.server_status(project)
        if document is not None and document.champion == version and head.champion == version and statuses:
            served = min(status.generation for status in statuses)
            if served >= document.generation:
                return document.generation
        pause(0.1)
    raise Unavailable(
        f"{project}: version {version} is @champion but not served after {timeout_s:g} s; 'tidewheel status' and "
        "'tidewheel logs controller' say why"
    )
