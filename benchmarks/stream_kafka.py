"""From a real Kafka to a real Redis: decoding, consuming, the stream's state, and how soon an event can be served.

Events are of 100,000 customers by Zipf's law (1.1), windows of 5 minutes to 24 hours in hops, 4 functions. Rates are
per second of CPU of our process, librdkafka's threads among them. The peer is Quix Streams on the same topic.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from benchmarks.lines import Line
from benchmarks.measure import alternating
from benchmarks.world import ROOT, scratch
from tidewheel.adapters.kafka_event_log import KafkaEventLog
from tidewheel.adapters.kafka_url import parse_kafka_url
from tidewheel.adapters.redis_store import RedisOnlineStore
from tidewheel.adapters.redis_url import parse_redis_url
from tidewheel.clock import DAY_US, SystemClock
from tidewheel.features.batches import keyed_events, state_columns
from tidewheel.features.declaration import WindowedView
from tidewheel.features.json_events import EventDecoder, encode_rows
from tidewheel.features.kernel import merged_states
from tidewheel.features.load import parse_features
from tidewheel.features.stream import BATCH_ROWS, StateKeeper
from tidewheel.spec.load import parse_project

SIZES = {"full": (400_000, 3, 1_000, 20.0), "tiny": (3_000, 1, 100, 1.0)}  # events, rounds, windowed by Quix, seconds
QUIX_SHARE = 8  # it is given a part, since it takes its time
RATE = 5_000  # events a second while latency is measured
N_CUSTOMERS, ZIPF = 100_000, 1.1
SPEC = """
name: bench
owner: bench
entities: {customer: {key: customer_id, type: int64}}
sources:
  payments:
    {topic: TOPIC, path: payments, event_time: at, event_id: payment_id, key: customer,
     columns: {amount: float64, channel: string, is_fraud: bool}}
request: payments
label: {source: payments, column: is_fraud, delay: 7d}
training: {window: 28d}
serving: {decision: {approve: 0.0}}
"""
FEATURES = """
from tidewheel.features import count, max, mean, sum, windowed
spent = windowed("payments", by="customer", windows=["5m", "1h", "6h", "24h"], precision="hop", features={
    "n": count(), "total": sum("amount"), "usual": mean("amount"), "most": max("amount")})
"""


def run(size: str) -> list[Line]:
    """Nothing where a server cannot be started here."""
    sys.path.insert(0, str(ROOT / "tests"))
    from servers.kafka import jars, kafka_server
    from servers.redis import redis_server

    if shutil.which("redis-server") is None or not (jars() / ".ready").is_file():
        sys.stderr.write("stream_kafka: left out, a server is not installed; make test-servers\n")
        return []
    n_events, rounds, n_windowed, seconds = SIZES[size]
    with ExitStack() as stack:
        kafka = stack.enter_context(kafka_server(scratch() / "kafka"))
        redis = stack.enter_context(redis_server(scratch() / "redis-stream"))
        topic = kafka.topic(1)
        log = KafkaEventLog(parse_kafka_url(kafka.url), None, keys={topic: "customer_id"})
        stack.callback(log.close)
        events = payments(n_events, int(time.time() * 1e6) - DAY_US, DAY_US)
        log.append(topic, events)
        return [
            *_decode(encode_rows(events), topic, rounds),
            *_consume(kafka, topic, n_events, rounds),
            *_state(kafka, topic, events, n_windowed, rounds),
            *_end_to_end(kafka, redis, topic, n_events, rounds),
            *_latency(kafka, redis, seconds),
        ]


def payments(n_events: int, since_us: int, span_us: int) -> pa.Table:
    """In order of time, evenly spread."""
    random = np.random.default_rng(7)
    weights = 1 / np.arange(1, N_CUSTOMERS + 1) ** ZIPF
    customers = random.choice(N_CUSTOMERS, n_events, p=weights / weights.sum())
    times = since_us + np.linspace(0, span_us, n_events, endpoint=False).astype(np.int64)
    return pa.table({
        "customer_id": customers, "at": pa.array(times, pa.timestamp("us", "UTC")),
        "payment_id": [f"{since_us}-{number}" for number in range(n_events)],
        "amount": np.round(random.gamma(2, 30, n_events), 2), "channel": ["web"] * n_events,
        "is_fraud": random.random(n_events) < 0.01,
    })  # fmt: skip


def view_of(topic: str) -> tuple[EventDecoder, WindowedView]:
    project = parse_project(SPEC.replace("TOPIC", topic), "project.yaml")
    features = parse_features(FEATURES, "features.py", project)
    (view,) = (view for view in features.views if isinstance(view, WindowedView))
    return EventDecoder(project, "payments", features.keys_of("payments")), view


def _decode(bodies: list[bytes], topic: str, rounds: int) -> list[Line]:
    decoder, _ = view_of(topic)
    times_us = np.full(len(bodies), int(time.time() * 1e6))
    schema = pa.schema([
        ("customer_id", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("payment_id", pa.string()),
        ("amount", pa.float64()), ("channel", pa.string()), ("is_fraud", pa.bool_()),
    ])  # fmt: skip
    parse = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    read = pj.ReadOptions(use_threads=False, block_size=4 << 20)

    def ours() -> None:
        for start in range(0, len(bodies), 16_384):
            decoder.decode(bodies[start : start + 16_384], times_us[start : start + 16_384])

    def arrow() -> None:
        for start in range(0, len(bodies), 16_384):
            text = pa.BufferReader(b"\n".join(bodies[start : start + 16_384]))
            pj.read_json(text, read_options=read, parse_options=parse)

    found = alternating(rounds, {"ours": ours, "arrow": arrow})
    rates = {name: len(bodies) / usage.cpu_s for name, (usage, _) in found.items()}
    what = f"decode and check {len(bodies):,} JSON events"
    against = "pyarrow.json, in blocks, unchecked"
    return [Line(what, against, rates["ours"], rates["arrow"], "events/s of CPU", rounds, higher_is_better=True)]


def _consume(kafka: Any, topic: str, n_events: int, rounds: int) -> list[Line]:
    decoder, view = view_of(topic)

    def ours() -> None:
        log = KafkaEventLog(parse_kafka_url(kafka.url), None, {topic: decoder})
        at = 0
        while at < n_events:
            at = log.read(topic, 0, at, BATCH_ROWS, state_columns(view.state)).following
        log.close()

    def quix() -> None:
        _quix(kafka, topic, n_events // QUIX_SHARE, lambda frame: frame.update(lambda value: None))

    found = alternating(rounds, {"ours": ours, "quix": quix})
    rates = {name: n_events / usage.cpu_s for name, (usage, _) in found.items()}
    rates["quix"] /= QUIX_SHARE
    what, against = f"consume and decode {n_events:,} events", "Quix Streams, a function per message"
    return [Line(what, against, rates["ours"], rates["quix"], "events/s of CPU", rounds, higher_is_better=True)]


def _quix(kafka: Any, topic: str, n_events: int, shape: Callable[[Any], Any]) -> None:
    from quixstreams import Application

    def processed(_topic: str, _partition: int, offset: int) -> None:
        if offset >= n_events - 1:
            app.stop()

    app = Application(
        broker_address=kafka.url.removeprefix("kafka://"), consumer_group=uuid4().hex, auto_offset_reset="earliest",
        state_dir=str(scratch() / f"quix-{uuid4().hex}"), loglevel="ERROR", use_changelog_topics=False,
        consumer_extra_config={"log_level": 0}, on_message_processed=processed,
    )  # fmt: skip
    shape(app.dataframe(app.topic(topic, value_deserializer="json")))
    app.run()


def _state(kafka: Any, topic: str, events: pa.Table, n_windowed: int, rounds: int) -> list[Line]:
    _, view = view_of(topic)
    state = view.state
    needed = events.select(list(state_columns(state)))

    def kernel() -> None:
        held: dict[bytes, bytes] = {}
        for start in range(0, len(needed), BATCH_ROWS):
            piece = needed.slice(start, BATCH_ROWS)
            keyed = keyed_events(state, piece, np.arange(start, start + len(piece)))
            merged = merged_states(state, [held.get(key) for key in keyed.keys], keyed)
            held.update(zip(keyed.keys, merged.blobs, strict=True))

    def windows(frame: Any) -> None:
        from quixstreams.dataframe.windows import Count, Sum

        window = frame.hopping_window(timedelta(hours=24), timedelta(minutes=5))
        window.agg(total=Sum("amount"), n=Count()).final()

    found = alternating(rounds, {"kernel": kernel, "quix": lambda: _quix(kafka, topic, n_windowed, windows)})
    ours, peer = len(needed) / found["kernel"][0].cpu_s, n_windowed / found["quix"][0].cpu_s
    against = f"Quix Streams, hopping 24 h/5 min, 2 functions, {n_windowed:,} events"
    what = "keep state, 4 windows, 4 functions: kernel alone"
    note = f"{ours / 300_000:.2f} of 300,000"
    return [Line(what, against, ours, peer, "events/s of CPU", rounds, higher_is_better=True, note=note)]


def _end_to_end(kafka: Any, redis: Any, topic: str, n_events: int, rounds: int) -> list[Line]:
    decoder, view = view_of(topic)

    def keep() -> None:
        with redis.client() as client:
            client.flushall()
        log = KafkaEventLog(parse_kafka_url(kafka.url), None, {topic: decoder})
        store = RedisOnlineStore(parse_redis_url(redis.url))
        keeper = StateKeeper(view, 0, log, store, SystemClock(), lambda event, **fields: None)
        while keeper.progress.position < n_events:
            keeper.step()
        log.close()
        store.close()

    usage, _ = alternating(rounds, {"keep": keep})["keep"]
    what = f"Kafka to Redis, {n_events:,} events of {N_CUSTOMERS:,} customers"
    rate = n_events / usage.cpu_s
    return [Line(what, "the figure to reach", rate, 30_000, "events/s of CPU", rounds, higher_is_better=True,
                 reach=1.0, note=f"{n_events / usage.wall_s:,.0f} events/s of wall time")]  # fmt: skip


def _latency(kafka: Any, redis: Any, seconds: float) -> list[Line]:
    """Produced at a steady rate by a thread; an event can be served when its state is written."""
    topic = kafka.topic(1)
    decoder, view = view_of(topic)
    store = RedisOnlineStore(parse_redis_url(redis.url))
    log = KafkaEventLog(parse_kafka_url(kafka.url), None, {topic: decoder})
    n_events = int(RATE * seconds)
    sent_s = np.zeros(n_events)
    producer = threading.Thread(target=_produce, args=(kafka, topic, n_events, sent_s))
    keeper = StateKeeper(view, 0, log, store, SystemClock(), lambda event, **fields: None)
    served_s = np.zeros(n_events)
    producer.start()
    pause = threading.Event()
    while (before := keeper.progress.position) < n_events:
        if keeper.step():
            served_s[before : keeper.progress.position] = time.perf_counter()
        else:
            pause.wait(0.005)
    producer.join()
    log.close()
    store.close()
    waited_ms = (served_s - sent_s) * 1000
    p50, p99 = np.percentile(waited_ms[RATE // 5 :], [50, 99])  # the first are there before anyone is warm
    what = f"event produced to servable at {RATE:,} events/s"
    return [
        Line(f"{what}: p50", "the figure to reach", float(p50), 250.0, "ms", n_events, reach=1.0),
        Line(f"{what}: p99", "the figure to reach", float(p99), 1000.0, "ms", n_events, reach=1.0),
    ]


def _produce(kafka: Any, topic: str, n_events: int, sent_s: np.ndarray) -> None:
    from confluent_kafka import Producer

    producer = Producer({**kafka.settings, "acks": "all", "linger.ms": 1})
    bodies = _numbered(n_events)
    started, pause = time.perf_counter(), threading.Event()
    for number, body in enumerate(bodies):
        late = started + number / RATE - time.perf_counter()
        if late > 0.001:
            pause.wait(late)
        sent_s[number] = time.perf_counter()
        producer.produce(topic, body)
        producer.poll(0)
    producer.flush(30)


def _numbered(n_events: int) -> Iterator[bytes]:
    yield from encode_rows(payments(n_events, int(time.time() * 1e6), int(n_events / RATE * 1e6)))
