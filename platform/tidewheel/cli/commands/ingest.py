"""tidewheel ingest: events of a file into the event log, whether the platform runs or not."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from tidewheel.cli.output import Output, Step, output_option, project_argument, table

if TYPE_CHECKING:
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.features.declaration import FeatureSet
    from tidewheel.features.events import CheckedEvents
    from tidewheel.features.ports import EventLog, Progress
    from tidewheel.spec.project import ModelProject

PIECE_ROWS = 200_000
POLL_S = 0.05
SILENT_S = 10.0  # a worker that lives says so every second


@click.command()
@project_argument
@click.option("--source", "sources", multiple=True, required=True, metavar="NAME=FILE",
              help="A Parquet or CSV file of events for one source; may be given again.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait until online state and lake have taken in what was sent.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=300.0, show_default=True,
              help="Seconds that --wait waits without progress.")  # fmt: skip
@output_option
def command(project: Path, sources: Sequence[str], wait: bool, timeout_s: float, output: Output) -> None:
    """Check the events of FILE and append them to the event log.

    Rows that cannot be used go to lake/_rejected/SOURCE with the reason; the others pass. Sending a file again is
    safe: an event that is known by its id drops.

    \b
    Example:
      tidewheel ingest card-fraud --source transactions=day.parquet --source labels=labels.parquet --wait
    """
    from tidewheel.adapters.connections import open_event_log
    from tidewheel.adapters.local_home import LocalHome
    from tidewheel.features.load import load_features
    from tidewheel.features.schema import topic_of
    from tidewheel.features.sources import named_paths
    from tidewheel.features.topics import message_keys
    from tidewheel.spec.load import load_project

    spec = load_project(project)
    features = load_features(project, spec)
    home = LocalHome.of(project)
    log = open_event_log(home, keys=message_keys(spec))
    paths = named_paths(sources, spec)
    with output.progress("Events", _count(list(paths.values()))) as step:
        # All files are checked before the first event is sent, so that a wrong one sends nothing of any.
        checked = {name: _check(name, path, spec, features, step) for name, path in paths.items()}
    told = {name: _send(name, events, spec, home, log) for name, events in checked.items()}
    if wait:
        ends = {name: _ends(topic_of(spec, name), log) for name in told}
        _wait(ends, spec, features, home, log, timeout_s, output)

    def render(console: Console) -> None:
        columns = ("source", "rows", "accepted", "rejected", "first event", "last event")
        rows = [
            (name, f"{facts['n_rows']:,}", f"{facts['n_accepted']:,}", f"{facts['n_rejected']:,}",
             _time(facts["first_event_us"]), _time(facts["last_event_us"]))
            for name, facts in told.items()
        ]  # fmt: skip
        console.print(table("", columns, rows, numeric=("rows", "accepted", "rejected")))

    output.result({"sources": told}, render)


def _check(name: str, path: Path, spec: ModelProject, features: FeatureSet, step: Step) -> CheckedEvents:
    """All events of a file or folder. Raises InputError where it has none or a column cannot be used."""
    import pyarrow as pa

    from tidewheel.clock import SystemClock
    from tidewheel.errors import InputError
    from tidewheel.features.events import AHEAD_US, CheckedEvents, validate_events
    from tidewheel.features.lake import read_batches, source_files

    good: list[pa.Table] = []
    rejected: list[pa.Table] = []
    n_rows = 0
    latest_us = SystemClock().now_us() + AHEAD_US
    for file in source_files(path):
        for piece in read_batches(file, PIECE_ROWS):
            try:
                checked = validate_events(piece, name, spec, keys=features.keys_of(name), latest_us=latest_us)
            except InputError as error:
                raise InputError(f"{file}: {error}") from error
            good.append(checked.good)
            rejected.append(checked.rejected)
            n_rows += piece.num_rows
            step.advance(piece.num_rows, name)
    if not n_rows:
        raise InputError(f"{path}: has no rows; a Parquet or CSV file with events is needed")
    return CheckedEvents(
        pa.concat_tables(good, promote_options="default"), pa.concat_tables(rejected, promote_options="permissive")
    )


def _send(name: str, checked: CheckedEvents, spec: ModelProject, home: LocalHome, log: EventLog) -> dict[str, Any]:
    """Set aside what cannot be used and append the rest; what happened, as the command tells it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from tidewheel.features.events import topic_of
    from tidewheel.features.lake import write_parquet

    accepted, refused = checked.good, checked.rejected
    if refused.num_rows:
        # Set aside first, under a name of its content: a run that is killed and run again loses and repeats nothing.
        write_parquet(home.lake / "_rejected" / name / f"ingest-{_digest(refused)}.parquet", refused)
    topic = topic_of(spec, name)
    log.append(topic, accepted)
    times = accepted.column(spec.sources[name].event_time).cast(pa.int64())
    limits = pc.min_max(times).as_py() if accepted.num_rows else {"min": None, "max": None}
    return {
        "n_rows": accepted.num_rows + refused.num_rows,
        "n_accepted": accepted.num_rows,
        "n_rejected": refused.num_rows,
        "reasons": _reasons(refused),
        "first_event_us": limits["min"],
        "last_event_us": limits["max"],
        "end": sum(_ends(topic, log)),
    }


def _ends(topic: str, log: EventLog) -> list[int]:
    """By partition."""
    return [log.end(topic, partition) for partition in range(log.partitions(topic))]


def _digest(refused: Any) -> str:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, refused.schema) as writer:
        writer.write_table(refused)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:16]


def _reasons(refused: Any) -> dict[str, int]:
    counts = refused.column("reason").value_counts().to_pylist() if refused.num_rows else []
    return {one["values"]: one["counts"] for one in counts}


def _count(paths: list[Path]) -> int | None:
    """Rows of the files, where the files say so themselves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tidewheel.features.lake import source_files

    files = [file for path in paths for file in source_files(path)]
    try:
        return int(sum(pq.ParquetFile(file).metadata.num_rows for file in files))
    except (pa.ArrowInvalid, OSError):
        return None


def _wait(
    ends: dict[str, list[int]],
    spec: ModelProject,
    features: FeatureSet,
    home: LocalHome,
    log: EventLog,
    timeout_s: float,
    output: Output,
) -> None:
    """Until every state and the lake have the events up to ``ends``, by partition."""
    from tidewheel.adapters.connections import has_moved, open_online_store
    from tidewheel.adapters.lake_mirror import LakeEnds
    from tidewheel.errors import Unavailable
    from tidewheel.features.events import topic_of
    from tidewheel.features.lake import source_paths
    from tidewheel.features.topics import topic_read_by

    states = [state for state in features.states if state.source in ends]
    folders = source_paths(home.lake, spec)
    topics = {state.state_id: topic_read_by(state, spec, len(ends[state.source])) for state in states}
    # A topic that is keyed anew ends somewhere else, which is known when all has come there.
    wanted = {topic_of(spec, name): one for name, one in ends.items()}
    total = sum(sum(ends[state.source]) for state in states) + sum(map(sum, ends.values()))
    store, lake = open_online_store(home), LakeEnds(home)
    try:
        with output.progress("Taking in", total) as step:
            done, moved_at, beat_us, beat_at = -1, time.monotonic(), 0, time.monotonic()
            while True:
                told = store.progress(states)
                for state in states:
                    topic = topics[state.state_id]
                    if topic not in wanted and has_moved(log, state.topic, topic, wanted[state.topic]):
                        wanted[topic] = [log.end(topic, partition) for partition in range(log.partitions(topic))]
                reached = [
                    (
                        _positions(told.get(state.state_id, {}), len(ends[state.source])),
                        wanted.get(topics[state.state_id]),
                    )
                    for state in states
                ] + [(lake.of(folders[name], len(until)), until) for name, until in ends.items()]
                come = sum(sum(positions) for positions, _ in reached)
                all_in = all(
                    until is not None and all(at >= end for at, end in zip(positions, until, strict=True))
                    for positions, until in reached
                )
                if come != done:
                    step.advance(min(come, total) - min(max(done, 0), total))
                    done, moved_at = come, time.monotonic()
                if all_in:
                    return
                newest_us = max(
                    (one.heartbeat_us for partitions in told.values() for one in partitions.values()), default=0
                )
                if newest_us != beat_us:
                    beat_us, beat_at = newest_us, time.monotonic()
                if states and time.monotonic() - max(beat_at, moved_at) > SILENT_S:
                    raise Unavailable(
                        f"the stream worker has said nothing for {SILENT_S:g} s; the events are safe in the log and "
                        f"will be taken in when it runs; run 'tidewheel up', or see 'tidewheel logs stream-worker'"
                    )
                if time.monotonic() - moved_at > timeout_s:
                    raise Unavailable(
                        f"the stream worker took in {done} of {total} and then nothing for {timeout_s:g} s; the "
                        f"events are safe in the log; see 'tidewheel status' and 'tidewheel logs stream-worker'"
                    )
                time.sleep(POLL_S)
    finally:
        store.close()


def _positions(told: dict[int, Progress], n_partitions: int) -> list[int]:
    return [told[partition].position if partition in told else 0 for partition in range(n_partitions)]


def _time(at_us: int | None) -> str:
    from tidewheel.clock import utc_text

    return utc_text(at_us) if at_us is not None else ""
