"""Follows the deployment document: loads the versions it names, swaps what is served, remembers what failed.

Runs on the event loop; reading bundles and watching features happen in threads. A version that cannot be loaded
never replaces one that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.object_store import object_store_url
from tidewheel.adapters.signing_keys import trust_of
from tidewheel.apps.bundle_fetcher import bring
from tidewheel.clock import SECOND_US, Clock
from tidewheel.deployment.document import DeploymentDocument, Variant, document_from_json
from tidewheel.deployment.status import LoadState, VersionStatus
from tidewheel.errors import ContractViolation, TidewheelError
from tidewheel.findings import Finding
from tidewheel.serving.degraded import STALE_FEATURES
from tidewheel.serving.load import LoadRefused, Stores, load_version
from tidewheel.serving.parse_child import ParseChild
from tidewheel.serving.snapshot import LoadedVersion, Snapshot, take_snapshot
from tidewheel.serving.verdicts import Verdicts

LOG = logging.getLogger("tidewheel.model_server")
LOOK_EVERY_S = 0.1
WATCH_EVERY_S = 0.5
RETRY_AFTER_US = 10 * SECOND_US
BRING_AGAIN_US = 2 * SECOND_US
RETRY_AT_MOST_US = 320 * SECOND_US
MISSING = "BundleMissing"
PASSING = (MISSING, "DigestMismatch", "SignatureMissing", "SignatureInvalid")  # what others may put right at any time

Key = tuple[str, str]  # version and digest


class Versions:
    """What is wanted, loaded and served. ``changed`` is called after every change, with the snapshot in place."""

    def __init__(
        self, home: LocalHome, project: str, stores: Stores, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._home, self._project, self._stores, self._clock = home, project, stores, clock
        self._changed = changed
        self._trust = trust_of(home)
        self._parser, self._verdicts = ParseChild(os.environ), Verdicts(home.verdicts)
        self._path = home.deployments / f"{project}.json"
        self._seen: tuple[int, int, int] | None = None
        self._wanted: DeploymentDocument | None = None
        self._loaded: dict[Key, LoadedVersion] = {}
        self._failed: dict[Key, tuple[Finding, int]] = {}
        self._n_failed: dict[Key, int] = {}
        self._loading: dict[Key, asyncio.Task[None]] = {}
        self._loader = ThreadPoolExecutor(1, "load")
        self._watcher = ThreadPoolExecutor(1, "watch")
        self.snapshot: Snapshot | None = None

    async def run(self) -> None:
        """Follow the document until cancelled."""
        watch = asyncio.create_task(self._watch_features())
        try:
            self._look()
            if self._wanted is None:  # nothing to do yet but to get ready for it
                self._loader.submit(self._parser.start)
            while True:
                self._look()
                self._load_what_is_missing()
                self._swap_if_able()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            watch.cancel()
            self._parser.stop()
            self._loader.shutdown(wait=False, cancel_futures=True)
            self._watcher.shutdown(wait=False, cancel_futures=True)

    def statuses(self) -> dict[str, VersionStatus]:
        """Every version that the document names or that serves."""
        told: dict[str, VersionStatus] = {}
        wanted = self._wanted.variants if self._wanted else ()
        for key in (*self._loaded, *((v.version, v.digest) for v in wanted)):
            version, digest = key
            if key in self._loaded:
                told[version] = VersionStatus(digest, "ready", features_ready=self._loaded[key].freshness.ready)
            elif key in self._failed:
                finding = self._failed[key][0]
                # A bundle that is still on its way says nothing against the version.
                state: LoadState = "loading" if finding.reason == MISSING else "failed"
                told.setdefault(version, VersionStatus(digest, state, finding.reason, finding.message))
            else:
                told.setdefault(version, VersionStatus(digest, "loading"))
        return told

    def _look(self) -> None:
        """Read the document where its file changed."""
        try:
            stat = self._path.stat()
        except OSError:
            return  # not written yet, or being written again: what is served stays
        mark = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if mark == self._seen:
            return
        self._seen = mark
        try:
            document = document_from_json(self._path.read_bytes(), str(self._path))
            if document.project != self._project:
                raise ContractViolation(f"{self._path}: is about {document.project!r}, not {self._project!r}")
        except (OSError, TidewheelError) as error:
            LOG.warning("event=document_refused error=%s", error)
            return
        self._wanted = document
        self._n_failed.clear()
        self._failed.clear()  # a new document is a new chance
        self._changed()

    def _load_what_is_missing(self) -> None:
        if self._wanted is None:
            return
        first = (*self._wanted.weights, *self._wanted.shadow)
        for variant in sorted(self._wanted.variants, key=lambda v: v.version not in first):
            key = (variant.version, variant.digest)
            if key in self._failed and self._clock.monotonic_us() >= self._failed[key][1]:
                del self._failed[key]
            if key not in self._loaded and key not in self._failed and key not in self._loading:
                self._loading[key] = asyncio.create_task(self._load(key, variant, self._home.bundles / variant.digest))

    async def _load(self, key: Key, variant: Variant, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(self._loader, self._brought_and_loaded, folder, variant)
        except LoadRefused as error:
            LOG.warning("event=version_refused version=%s reason=%s message=%s", *key[:1], error.finding.reason, error)
            self._failed[key] = (error.finding, self._clock.monotonic_us() + self._pause_us(key, error.finding))
        else:
            self._loaded[key] = loaded
            await loop.run_in_executor(self._watcher, look_at_features, loaded, self._clock.now_us())
            LOG.info("event=version_ready version=%s digest=%s", key[0], key[1][:12])
        finally:
            del self._loading[key]
        self._swap_if_able()
        self._changed()

    def _brought_and_loaded(self, folder: Path, variant: Variant) -> LoadedVersion:
        """In a thread. On one machine the controller has put the bundle here; in a pod it is fetched by its digest."""
        if object_store_url() is not None and not folder.is_dir():
            try:
                bring(self._home, variant.digest)
            except TidewheelError as error:
                raise LoadRefused(Finding(MISSING, str(error), "warning", variant.version)) from error
        return load_version(folder, variant, self._stores, self._trust, self._parse)

    def _parse(self, folder: Path, digest: str) -> Finding | None:
        """In a thread: have a child parse a bundle, unless one did before."""
        if self._verdicts.knows(digest):
            return None
        finding = self._parser.check(folder, digest)
        if finding is None:
            self._verdicts.keep(digest)
        return finding

    def _pause_us(self, key: Key, finding: Finding) -> int:
        """Until the next try: twice as long each time where the same bytes will do the same again."""
        if finding.reason in PASSING:
            return BRING_AGAIN_US if finding.reason == MISSING else RETRY_AFTER_US
        self._n_failed[key] = self._n_failed.get(key, 0) + 1
        return int(min(RETRY_AFTER_US << (self._n_failed[key] - 1), RETRY_AT_MOST_US))

    def _swap_if_able(self) -> None:
        """Serve the wanted document as soon as every version that it routes to is ready."""
        wanted = self._wanted
        if wanted is None or wanted.champion is None:
            return
        named = {(variant.version, variant.digest) for variant in wanted.variants}
        ready = [self._loaded[key] for key in named & self._loaded.keys()]
        names = {version.version for version in ready}
        if not wanted.weights.keys() <= names:
            return
        served = self.snapshot
        if served is not None and served.document == wanted and served.versions.keys() == names:
            return
        self.snapshot = take_snapshot(wanted, ready)
        with contextlib.suppress(RuntimeError):  # it is shutting down
            self._loader.submit(self._parser.start)  # for the next version; a start of the server has other work
        for key in self._loaded.keys() - named:
            del self._loaded[key]
        self._changed()

    async def _watch_features(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = self.statuses()
            for version in tuple(self._loaded.values()):
                await loop.run_in_executor(self._watcher, look_at_features, version, self._clock.now_us())
            if self.statuses() != before:
                self._changed()
            await asyncio.sleep(WATCH_EVERY_S)


def look_at_features(version: LoadedVersion, now_us: int) -> None:
    """Set a version's freshness by what the store says; an unreachable store leaves the last word on staleness."""
    try:
        version.freshness.ready = version.watch_reader.caught_up()
        freshness, reader = version.freshness, version.watch_reader
        freshness.stale = tuple(f"{STALE_FEATURES}:{view}" for view in reader.stale_views(now_us))
        freshness.ages_us = reader.view_ages_us(now_us)
        freshness.age_us = max(freshness.ages_us.values(), default=0)
    except TidewheelError as error:
        version.freshness.ready = False
        LOG.warning("event=features_unwatched version=%s error=%s", version.version, error)
