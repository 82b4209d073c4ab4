"""What an apply would change, as data that a person reviews: it is carried out only if nothing moved since."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidewheel.errors import Conflict, InputError
from tidewheel.reconcile.applied import CODE_FILES


@dataclass(frozen=True)
class ApplyPlan:
    """``before`` and ``after`` are digests of the code in force and of the folder's; ``diff`` is unified, per file;
    ``consequences`` say what follows in sentences."""

    project: str
    target: str
    before: str | None
    after: str
    changed_files: tuple[str, ...]
    diff: str
    consequences: tuple[str, ...]

    @property
    def changes_something(self) -> bool:
        return self.before != self.after

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def apply_plan(
    project: str, target: str, before: str | None, old: Mapping[str, str], after: str, new: Mapping[str, str]
) -> ApplyPlan:
    """``old`` and ``new`` are the texts of the code files; ``old`` is empty where nothing is in force or seen."""
    changed = tuple(name for name in CODE_FILES if old.get(name) != new.get(name)) if before != after else ()
    lines: list[str] = []
    for name in changed:
        lines += difflib.unified_diff(
            old.get(name, "").splitlines(), new.get(name, "").splitlines(), f"in force/{name}", f"folder/{name}",
            lineterm="",
        )  # fmt: skip
    return ApplyPlan(project, target, before, after, changed, "\n".join(lines), _consequences(before, after, changed))


def _consequences(before: str | None, after: str, changed: tuple[str, ...]) -> tuple[str, ...]:
    if before == after:
        return ("nothing changes: this code is in force",)
    told = ["the project is taken into service" if before is None else f"code {after[:12]} replaces {before[:12]}"]
    if "features.py" in changed:
        told.append("stream workers keep the new features' state from now on, and fill what is new from the log")
        told.append("what serves goes on with the features that it was trained on; the next training uses the new ones")
    if "project.yaml" in changed and before is not None:
        told.append("limits, cadences, replicas and rollout steps count from the next look")
    return tuple(told)


def read_plan_file(path: Path) -> ApplyPlan:
    """A plan that `tidewheel plan --out` wrote. Raises InputError."""
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
        return ApplyPlan(**{**body, "changed_files": tuple(body["changed_files"]),
                            "consequences": tuple(body["consequences"])})  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no plan that 'tidewheel plan --out' wrote ({error})") from error


def check_still_so(reviewed: ApplyPlan, now: ApplyPlan) -> None:
    """Raises Conflict where something moved since the plan was reviewed."""
    for what, was, is_now in (
        ("target", reviewed.target, now.target),
        ("project", reviewed.project, now.project),
        ("code in force", reviewed.before, now.before),
        ("folder's code", reviewed.after, now.after),
    ):
        if was != is_now:
            raise Conflict(f"{what}: was {was} when the plan was made, is {is_now} now; make and review a new plan")
