"""All keepers of one stream worker: one per state and partition, one per source of the lake and partition."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tidewheel.adapters.local_home import LocalHome
from tidewheel.adapters.worker_log import Place, PlainWorkerLog, WorkerLog
from tidewheel.apps.lake_copies import LakeCopies
from tidewheel.apps.unused_states import UnusedStates
from tidewheel.apps.wanted_code import Code, CodeShelf, StatefulView
from tidewheel.clock import SECOND_US, Clock, utc_text
from tidewheel.features.history import HistoryLog
from tidewheel.features.json_events import decoders_of
from tidewheel.features.lake import source_paths
from tidewheel.features.lake_keeper import LakeKeeper, LakePlace
from tidewheel.features.ports import EventLog, OnlineStore
from tidewheel.features.schema import topic_of
from tidewheel.features.stream import StateKeeper, Tell
from tidewheel.features.topics import topic_read_by

REFRESH_US = SECOND_US // 2
REPORT_US = 10 * SECOND_US
FLUSH_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class StreamCounts:
    """What a worker did since it started; outlives keepers that a rebalance took away."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()  # by view
        self.late: Counter[str] = Counter()  # by source
        self.rejected: Counter[tuple[str, str]] = Counter()  # by source and reason
        self.flushes: Counter[float] = Counter()  # by the smallest bound that holds it
        self.flush_s = 0.0
        self.store_errors = 0

    def flushed(self, seconds: float) -> None:
        bound = next((bound for bound in FLUSH_BOUNDS_S if seconds <= bound), float("inf"))
        self.flushes[bound] += 1
        self.flush_s += seconds


class StreamKeepers:
    """``step`` gives each keeper its turn. Only one thread may call it; others may read."""

    def __init__(
        self, home: LocalHome, link: WorkerLog | EventLog, store: OnlineStore, clock: Clock, tell: Tell,
        counts: StreamCounts | None = None, copies: LakeCopies | None = None,
    ) -> None:  # fmt: skip
        self._copies = copies
        self._home, self._store, self._clock, self._tell = home, store, clock, tell
        self._link: WorkerLog = link if hasattr(link, "key_anew") else PlainWorkerLog(link)  # type: ignore[assignment]
        self._log = HistoryLog(self._link.log, lambda: self._folders)
        self._folders: dict[str, Path] = {}
        self.counts = counts or StreamCounts()
        self.states: dict[tuple[str, int], StateKeeper] = {}
        self.lakes: dict[tuple[str, int], LakeKeeper] = {}
        self._shelf = CodeShelf(home, tell, copies.bring if copies else None)
        self._code: list[Code] = []
        self._views: dict[str, tuple[StatefulView, str]] = {}  # by state id, with the topic it reads
        self._places: dict[str, LakePlace] = {}
        self._owners: dict[str, Code] = {}
        self._topics: frozenset[str] = frozenset()
        self._owned: frozenset[Place] = frozenset()
        self._unused = UnusedStates(store, clock, tell)
        self._refreshed_at_us: int | None = None
        self._reported_at_us, self._n_events = clock.monotonic_us(), 0

    def step(self) -> int:
        """One round over all keepers; how many offsets were taken. Raises Unavailable."""
        now_us = self._clock.monotonic_us()
        if self._refreshed_at_us is None or now_us - self._refreshed_at_us >= REFRESH_US:
            self._refresh()
            self._refreshed_at_us = now_us
        owned = self._link.owned(self._topics)
        if owned != self._owned:
            self._share(owned)
        n = 0
        for keeper in list(self.states.values()):
            began_us = self._clock.monotonic_us()
            taken = keeper.step()
            keeper.heartbeat()
            if taken:
                self.counts.events[keeper.view.name] += taken
                self.counts.flushed((self._clock.monotonic_us() - began_us) / SECOND_US)
            n += taken
        self._n_events += n
        for lake in list(self.lakes.values()):
            n += self._take(lake)
        if self._n_events and now_us - self._reported_at_us >= REPORT_US:
            newest_us = max((keeper.progress.watermark_us for keeper in self.states.values()), default=0)
            self._tell("progress", n_updates=self._n_events, watermark=utc_text(newest_us))
            self._reported_at_us, self._n_events = now_us, 0
        return n

    def close(self) -> None:
        for lake in self.lakes.values():
            lake.close()

    def _take(self, lake: LakeKeeper) -> int:
        n_late, rejected = lake.n_late, lake.n_rejected.copy()
        n = lake.step()
        if n:
            self.counts.late[lake.place.source] += lake.n_late - n_late
            for reason, count in (lake.n_rejected - rejected).items():
                self.counts.rejected[lake.place.source, reason] += count
        return n

    def _refresh(self) -> None:
        code, complete = self._shelf.look()
        if code != self._code:
            self._plan(code)
        self._unused.look([view.state for view, _ in self._views.values()], complete)

    def _plan(self, code: list[Code]) -> None:
        """Which topics are read for whom. Nothing is kept of it where the log does not answer."""
        decoders = decoders_of((one.project, one.features) for one in code)
        self._link.decode_by(decoders)
        views: dict[str, tuple[StatefulView, str]] = {}
        anew: dict[str, tuple[str, ...]] = {}
        for one in code:
            for view in one.views:
                n_partitions = self._link.log.partitions(view.state.topic)
                topic = topic_read_by(view.state, one.project, n_partitions)
                views.setdefault(view.state.state_id, (view, topic))
                if topic != view.state.topic:
                    anew[topic] = tuple(column for column, _ in view.state.keys)
        self._link.key_anew(anew)
        places: dict[str, LakePlace] = {}
        owners: dict[str, Code] = {}
        for one in code:
            for source, path in source_paths(self._home.lake, one.project).items() if one.applied else ():
                name = f"{one.project.name}.{source}"
                rejected = self._home.lake / "_rejected" / source
                places[name] = LakePlace(source, topic_of(one.project, source), path, rejected)
                owners[name] = one
        for name, lake_partition in [key for key in self.lakes if owners.get(key[0]) is not self._owners.get(key[0])]:
            self.lakes.pop((name, lake_partition)).close()
        self._code, self._views, self._places, self._owners = code, views, places, owners
        self._folders = {place.topic: place.folder for place in places.values()}
        self._topics = frozenset([*(topic for _, topic in views.values()), *self._folders])
        self._share(self._link.owned(self._topics))

    def _share(self, owned: frozenset[Place]) -> None:
        """Keepers for what is ours now, and no others."""
        if self._copies is not None:  # what others wrote of a partition says where its next writer goes on
            new_topics = {topic for topic, _ in owned - self._owned}
            self._copies.arrive(folder for topic, folder in self._folders.items() if topic in new_topics)
        wanted = {(state_id, p): view for state_id, (view, topic) in self._views.items()
                  for at, p in owned if at == topic}  # fmt: skip
        for key in [key for key in self.states if key not in wanted]:
            self._tell("state_left", state=key[0], partition=key[1])
            del self.states[key]
        new = sorted(key for key in wanted if key not in self.states)
        told = self._store.progress([wanted[key].state for key in new]) if new else {}
        for key in new:
            (state_id, partition), view = key, wanted[key]
            keeper = StateKeeper(view, partition, self._log, self._store, self._clock, self._tell,
                                 self._views[state_id][1], told.get(state_id, {}).get(partition))  # fmt: skip
            self.states[key] = keeper
            self._tell("state_kept", state=state_id, view=view.name, source=view.source, by=",".join(view.keys),
                       partition=partition, position=keeper.progress.position,
                       end=self._log.end(keeper.topic, partition))  # fmt: skip
        # Before any of them begins: with only some partitions known a state would look as if it had caught up.
        for key in new:
            self.states[key].heartbeat()
        self._share_lake(owned)
        self._owned = owned

    def _share_lake(self, owned: frozenset[Place]) -> None:
        wanted = {(name, p): place for name, place in self._places.items() for at, p in owned if at == place.topic}
        for key in [key for key in self.lakes if key not in wanted]:
            self.lakes.pop(key).close()
        for name, partition in sorted(wanted.keys() - self.lakes.keys()):
            place = self._places[name]
            mine = LakePlace(place.source, place.topic, place.folder, place.rejected, partition)
            project = self._owners[name].project
            self.lakes[name, partition] = LakeKeeper(mine, project, self._link.log, self._clock, self._tell,
                                                     self._link.dead_letter)  # fmt: skip
