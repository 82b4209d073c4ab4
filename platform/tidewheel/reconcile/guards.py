"""Plans that must not be carried out, however they came about: a read that came back wrong must not remove service."""

from __future__ import annotations

from collections.abc import Sequence

from tidewheel.findings import Finding
from tidewheel.reconcile.observed import Observed
from tidewheel.reconcile.plan import DeleteServer, Plan

MAX_REMOVED_RATIO = 0.3


def registry_is_not_empty(seen: Observed) -> Finding | None:
    """A registry without a single version, while one is served, has lost its data or is the wrong one."""
    if seen.aliases is None or seen.head.champion is None or seen.n_versions > 0:
        return None
    message = f"the registry has no version of {seen.project}, but {seen.head.champion} is served; nothing is changed"
    return Finding("EmptyRegistry", message, "critical", seen.project)


def not_too_many_removals(plans: Sequence[Plan], n_servers: int) -> Finding | None:
    """At most 30% of the services may go in one round."""
    removed = [action.project for plan in plans for action in plan.actions if isinstance(action, DeleteServer)]
    if not removed or len(removed) <= MAX_REMOVED_RATIO * n_servers:
        return None
    ratio = len(removed) / n_servers
    message = f"the plan would remove {len(removed)} of {n_servers} services ({', '.join(removed)}); it is refused"
    return Finding("TooManyRemovals", message, "critical", removed[0], ratio, MAX_REMOVED_RATIO)
