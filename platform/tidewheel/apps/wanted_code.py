"""Which code a stream worker runs: the applied projects, and every bundle that a deployment document names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.signing_keys import trusted_keys
from tidewheel.bundle.manifest import verify
from tidewheel.bundle.signature import SignatureRefused, verify_trusted
from tidewheel.errors import TidewheelError
from tidewheel.features.declaration import BatchView, FeatureSet, RequestView, WindowedView
from tidewheel.features.load import load_features
from tidewheel.features.stream import Tell
from tidewheel.spec.load import load_project
from tidewheel.spec.project import ModelProject

StatefulView = WindowedView | BatchView


@dataclass(frozen=True)
class Wanted:
    """A folder of verified code and whether it is the applied project, which owns the lake."""

    folder: Path
    digest: str
    applied: bool


Bring = Callable[[Wanted], None]  # raises a TidewheelError where it cannot


@dataclass(frozen=True)
class Code:
    """What was loaded from one folder."""

    folder: Path
    applied: bool
    project: ModelProject
    features: FeatureSet

    @property
    def views(self) -> list[StatefulView]:
        return [view for view in self.features.views if not isinstance(view, RequestView)]


def wanted_code(home: LocalHome) -> list[Wanted]:
    """Applied projects and deployed bundles that are here, by what their pointers say now; a pointer that cannot be
    read is the trouble of whoever writes it, not a reason to stop."""
    return [one for one in _wanted(home)[0] if one.applied or one.folder.is_dir()]


def _wanted(home: LocalHome) -> tuple[list[Wanted], bool]:
    """And whether every pointer could be read."""
    found: dict[Path, Wanted] = {}
    complete = True
    for pointer in sorted((home.root / "applied").glob("*.json")):
        digests = _digests(pointer)
        complete = complete and digests is not None
        for digest in digests or ():
            found.setdefault(home.projects / digest, Wanted(home.projects / digest, digest, True))
    for document in sorted(home.deployments.glob("*.json")):
        digests = _digests(document)
        complete = complete and digests is not None
        for digest in digests or ():
            found.setdefault(home.bundles / digest, Wanted(home.bundles / digest, digest, False))
    return list(found.values()), complete


def _digests(pointer: Path) -> list[str] | None:
    """Digests that an applied pointer or a deployment document names; None where it cannot be read."""
    try:
        body = json.loads(pointer.read_bytes())
        return [str(one["digest"]) for one in body.get("variants", [body])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class CodeShelf:
    """Loads each folder once. One that cannot be loaded is told once and left out; one that nobody signed is looked at
    again, since somebody may sign it. In a pod ``bring`` fetches a folder that is not here; then project code needs a
    signature, too, since everybody who may write to the object store could have put it there."""

    def __init__(self, home: LocalHome, tell: Tell, bring: Bring | None = None) -> None:
        self._home, self._tell, self._bring = home, tell, bring
        self._missing: set[Path] = set()
        self._loaded: dict[Path, Code] = {}
        self._refused: set[Path] = set()
        self._unsigned: set[Path] = set()

    def look(self) -> tuple[list[Code], bool]:
        """What is wanted now, the applied first, and whether that is all that is wanted."""
        wanted, complete = _wanted(self._home)
        for one in wanted:
            if one.folder not in self._loaded and one.folder not in self._refused and self._is_here(one):
                self._load(one)
        code = [self._loaded[one.folder] for one in wanted if one.folder in self._loaded]
        return code, complete and len(code) == len(wanted)

    def _is_here(self, wanted: Wanted) -> bool:
        if self._bring is None or wanted.folder.is_dir():
            return wanted.applied or wanted.folder.is_dir()
        try:
            self._bring(wanted)
        except TidewheelError as error:
            if wanted.folder not in self._missing:
                self._tell("code_missing", folder=str(wanted.folder), reason=str(error))
            self._missing.add(wanted.folder)
            return False
        self._missing.discard(wanted.folder)
        return True

    def _load(self, wanted: Wanted) -> None:
        try:
            if wanted.applied and self._bring is None:
                verify(wanted.folder, wanted.digest)
            else:
                verify_trusted(wanted.folder, wanted.digest, trusted_keys(self._home))
            project = load_project(wanted.folder)
            features = load_features(wanted.folder, project)
            self._loaded[wanted.folder] = Code(wanted.folder, wanted.applied, project, features)
        except SignatureRefused as error:
            if wanted.folder not in self._unsigned:
                self._tell("code_refused", folder=str(wanted.folder), reason=str(error))
            self._unsigned.add(wanted.folder)
        except TidewheelError as error:
            self._refused.add(wanted.folder)
            self._tell("code_refused", folder=str(wanted.folder), reason=str(error))
