"""``python -m tidewheel.apps.job PROJECT -- train --if-needed ...``: a subcommand of tidewheel as a pod of its own.

It lays out a home as it is on one machine (the applied code, what is deployed, the lake, earlier reports), runs the
subcommand as a child, and keeps what the child made. Every step may be repeated; the exit code is the subcommand's.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tidewheel.adapters.bundle_shelf import fetch_bundle
from tidewheel.adapters.lake_mirror import LakeMirror
from tidewheel.adapters.local_home import HOME_VARIABLE, LocalHome
from tidewheel.adapters.object_store import VARIABLE, ObjectStore, open_object_store
from tidewheel.adapters.signing_keys import trusted_keys
from tidewheel.apps.log_lines import LogFormat, set_up_log
from tidewheel.bundle.signature import verify_trusted
from tidewheel.errors import InputError, NotFound, TidewheelError
from tidewheel.features.lake import source_paths
from tidewheel.journal.ledger import Journal
from tidewheel.reconcile.applied import read_applied
from tidewheel.reconcile.head import document_of, head_from_body
from tidewheel.spec.load import load_project
from tidewheel.whole_file import write_whole

LOG = logging.getLogger("tidewheel.job")
NEEDS_PREDICTIONS = ("monitor", "train", "loadtest")  # train: where its policy is asked


def main() -> int:
    parser = argparse.ArgumentParser(prog="tidewheel.apps.job", description="Run a tidewheel subcommand in a pod.")
    parser.add_argument("project", help="name of an applied project")
    parser.add_argument("--log-format", choices=["text", "json"], default="json")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- SUBCOMMAND [options], without the project")
    given = parser.parse_args()
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        parser.error("a subcommand is missing: PROJECT -- train --as-of 2026-03-09")
    log_format: LogFormat = given.log_format
    set_up_log(log_format)
    try:
        return run(given.project, command)
    except (TidewheelError, OSError) as error:
        LOG.error("event=job_failed project=%s error=%s", given.project, error)
        return 1


def run(project: str, command: Sequence[str]) -> int:
    """The subcommand's exit code. Raises a TidewheelError where the home cannot be laid out."""
    if not os.environ.get(HOME_VARIABLE):
        raise InputError(f"{HOME_VARIABLE} is not set: a job needs a folder to work in")
    store = open_object_store()
    if store is None:
        raise InputError(f"{VARIABLE} is not set: a job needs the object store")
    home = LocalHome.of(Path(project))
    code = _lay_out(home, store, project, command[0])
    try:
        return _run_child(command, code)
    finally:
        n = LakeMirror(store, home.reports, "reports").send(project) + LakeMirror(store, home.lake).send("_rejected")
        LOG.info("event=kept project=%s files=%d", project, n)


def _lay_out(home: LocalHome, store: ObjectStore, project: str, subcommand: str) -> Path:
    """The applied code's folder, with the rest of the home ready for it."""
    trusted = trusted_keys(home)
    with Journal(home.journal_url) as journal:
        applied, newest = read_applied(journal, project), journal.head(project)
    if applied is None:
        raise NotFound(f"{project}: no such project is applied; run 'tidewheel apply' first")
    code = home.projects / applied.digest
    fetch_bundle(store, "projects", applied.digest, code)
    verify_trusted(code, applied.digest, trusted)
    if newest is not None:
        document = document_of(project, newest.generation, head_from_body(newest.body))
        write_whole(home.deployments / f"{project}.json", document.to_json())
        for variant in document.variants:
            fetch_bundle(store, "bundles", variant.digest, home.bundles / variant.digest)
    lake = LakeMirror(store, home.lake)
    folders = [str(path.relative_to(home.lake)) for path in source_paths(home.lake, load_project(code)).values()]
    if subcommand in NEEDS_PREDICTIONS:
        folders.append(f"predictions/{project}")
    for folder in dict.fromkeys(folders):
        LOG.info("event=lake_fetched project=%s folder=%s parts=%d", project, folder, len(lake.fetch(folder)))
    LakeMirror(store, home.reports, "reports").fetch(project)
    return code


def _run_child(command: Sequence[str], code: Path) -> int:
    line = [sys.executable, "-m", "tidewheel", command[0], str(code), *command[1:]]
    with subprocess.Popen(line) as child:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: child.send_signal(number))
        code_of_child = child.wait()
    LOG.info("event=job_done command=%s exit_code=%d", command[0], code_of_child)
    return code_of_child if code_of_child >= 0 else 128 - code_of_child


if __name__ == "__main__":
    sys.exit(main())
