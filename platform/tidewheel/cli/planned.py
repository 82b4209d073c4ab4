"""The plan of an apply, made the same way for `tidewheel plan` and `tidewheel apply`, here and in a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidewheel.adapters.cluster_target import ClusterTarget
    from tidewheel.reconcile.reviewed import ApplyPlan


def plan_for(project: Path, cluster: ClusterTarget | None) -> ApplyPlan:
    """Raises SpecError with every mistake of the folder; nothing that counts is written."""
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.journal.ledger import Journal
    from tidewheel.reconcile.applied import CODE_FILES, place_code, read_applied
    from tidewheel.reconcile.reviewed import apply_plan
    from tidewheel.spec.load import load_project

    name, home = load_project(project).name, LocalHome.of(project)
    after = place_code(project, home.projects)
    before: str | None = None
    if cluster is not None:
        live = cluster.project(name)
        before = live["spec"]["code"]["digest"] if live is not None else None
    elif home.has_journal:
        with Journal(home.journal_url) as journal:
            applied = read_applied(journal, name)
            before = applied.digest if applied else None
    old = home.projects / before if before else None  # of a cluster: here only where it was applied from here
    texts = {file: (project / file).read_text() for file in CODE_FILES}
    old_texts = {file: (old / file).read_text() for file in CODE_FILES if old is not None and (old / file).is_file()}
    return apply_plan(name, cluster.context if cluster else "local", before, old_texts, after, texts)
