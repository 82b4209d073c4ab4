"""What a person applied: project code in the home, named by the digest over its files, and the ledger that says which.

The ledger entry is the fact; ``applied/<project>.json`` is derived from it for processes that only follow files.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.place import place, scratch
from tidewheel.clock import Clock, SystemClock
from tidewheel.features.load import FEATURES_FILE, load_features
from tidewheel.journal.ledger import Journal
from tidewheel.spec.load import PROJECT_FILE, load_project
from tidewheel.whole_file import write_whole

APPLIED = "applied"
CODE_FILES = (PROJECT_FILE, FEATURES_FILE)


@dataclass(frozen=True)
class Applied:
    """Project code in force: a folder in the home named by its digest."""

    name: str
    digest: str
    at_us: int


@dataclass(frozen=True)
class AppliedChange:
    """What an apply did: the code in force before (None: the first) and now, and which files differ."""

    name: str
    before: str | None
    now: str
    changed_files: tuple[str, ...]

    @property
    def changed(self) -> bool:
        return self.before != self.now


def read_applied(journal: Journal, project: str) -> Applied | None:
    """The newest applied code of a project, None before the first."""
    entries = journal.entries(project, kind=APPLIED, limit=1, newest_first=True)
    if not entries:
        return None
    body = entries[0].body
    return Applied(project, str(body["digest"]), int(body["at_us"]))


def apply_project(
    folder: Path, home_of: Path, journal: Journal | None = None, clock: Clock | None = None, actor: str = "cli"
) -> AppliedChange:
    """Check the project in ``folder`` and put its code in force in the home at ``home_of``; idempotent.

    Raises SpecError with every mistake; then nothing was changed.
    """
    project = load_project(folder)
    load_features(folder, project)
    clock = clock or SystemClock()
    home_of.mkdir(parents=True, exist_ok=True)
    digest = _place_code(folder, home_of / "projects")
    with journal or Journal(f"sqlite:///{home_of / 'journal.db'}") as ledger:
        before = read_applied(ledger, project.name)
        put_in_force(ledger, home_of, project.name, digest, clock, actor)
    changed = _changed_files(home_of / "projects", before.digest if before else None, digest)
    return AppliedChange(project.name, before.digest if before else None, digest, changed)


def put_in_force(journal: Journal, home_of: Path, name: str, digest: str, clock: Clock, actor: str) -> Applied:
    """Say in the ledger and in the home that this code counts from now on; idempotent. The code is in the home."""
    now = read_applied(journal, name)
    if now is None or now.digest != digest:
        now = Applied(name, digest, clock.now_us())
        journal.append(name, APPLIED, {"digest": digest, "at_us": now.at_us}, actor=actor)
    _write_pointer(home_of / APPLIED / f"{name}.json", now)
    return now


def applied_names(home_of: Path) -> set[str]:
    """Projects that the home says are applied."""
    return {path.stem for path in (home_of / APPLIED).glob("*.json")}


def withdraw(home_of: Path, name: str) -> None:
    """Forget in the home that a project is applied; the ledger keeps what happened."""
    (home_of / APPLIED / f"{name}.json").unlink(missing_ok=True)


def place_code(folder: Path, projects: Path) -> str:
    """The digest under which a project's code is in ``projects`` afterwards. Raises SpecError with every mistake."""
    load_features(folder, load_project(folder))
    return _place_code(folder, projects)


def _place_code(folder: Path, projects: Path) -> str:
    """Copy the code into ``projects/<digest>``; the folder appears whole or not at all."""

    def fill(into: Path) -> str:
        for name in CODE_FILES:
            shutil.copyfile(folder / name, into / name)
        return write_manifest(into)

    with scratch(projects) as made:
        digest = fill(made)
    place(projects / digest, digest, fill)
    return digest


def _write_pointer(path: Path, applied: Applied) -> None:
    data = json.dumps({"digest": applied.digest, "name": applied.name, "at_us": applied.at_us}).encode()
    if path.is_file() and path.read_bytes() == data:
        return
    write_whole(path, data)


def _changed_files(projects: Path, before: str | None, now: str) -> tuple[str, ...]:
    if before == now:
        return ()
    if before is None:
        return CODE_FILES
    old, new = projects / before, projects / now
    return tuple(
        name
        for name in CODE_FILES
        if not (old / name).is_file() or (old / name).read_bytes() != (new / name).read_bytes()
    )
