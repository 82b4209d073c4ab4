"""Make card payments, their labels and customer profiles, day by day, from nothing but a seed.

The model is the one of the Fraud Detection Handbook's prose (Le Borgne, Siblini, Lebichot, Bontempi, 2022):
customers and terminals live on a 100 x 100 map, a customer pays at terminals within reach, amounts are normal
around the customer's own mean, and three kinds of fraud happen:

1. a payment over 220 is a fraud (obvious, to check that a model learns at all);
2. two terminals a day are compromised, each payment there is a fraud for 28 days;
3. three customers a day lose their card data, a third of their payments are multiplied by five for 14 days.

Switches change the world from a day on, for rehearsals: ``--amount-factor`` (all prices move, the limit of 220
with them), ``--new-pattern-from`` (bursts of small online payments at night, a fraud nobody has seen yet),
``--feed-broken`` (the event feed loses most of its amounts, callers are not touched), ``--feed-late`` (events
arrive hours after they happened). The truth arrives ``--label-delay-days`` after the payment.

A day's rows depend on the seed and the day alone: any range of days can be made again, in any order, and memory
does not grow with the number of days.

    python generate.py --out data --days 30
    python generate.py --out data --first-day 30 --days 7 --per-day --amount-factor 1.5 --amount-from 33
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

DAY_US = 86_400_000_000
FRAUD_AMOUNT = 220.0
TERMINAL_DAYS, TERMINALS_A_DAY = 28, 2
CARD_DAYS, CARDS_A_DAY = 14, 3
BURST_CARDS_A_DAY, BURST_PAYMENTS = 8, 5
CHANNELS = np.array(["chip", "contactless", "online"])
# Streams of random numbers: one per day and purpose, so that a switch never shifts another purpose's numbers.
WORLD, PAYMENTS, TERMINAL_FRAUD, CARD_FRAUD, BURSTS, FEED = range(6)


@dataclass(frozen=True)
class World:
    """Everything that decides a day's rows. Days count from 0 at ``start``; ``..._from`` None means never."""

    seed: int = 7
    customers: int = 1500
    terminals: int = 3000
    reach: float = 5.0
    start: datetime = datetime(2026, 1, 5, tzinfo=UTC)
    amount_factor: float = 1.0
    amount_from: int | None = None
    new_pattern_from: int | None = None
    feed_broken: range = range(0)
    feed_late: range = range(0)
    label_delay_days: int = 7

    def rng(self, purpose: int, day: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, day])

    def midnight_us(self, day: int) -> int:
        return int(self.start.timestamp()) * 1_000_000 + day * DAY_US

    def price_level(self, day: int) -> float:
        return self.amount_factor if self.amount_from is not None and day >= self.amount_from else 1.0


@dataclass
class Population:
    """Customers and terminals; the same for every day."""

    world: World
    mean_amount: np.ndarray = field(init=False)  # [customers]
    payments_a_day: np.ndarray = field(init=False)  # [customers]
    account_age_days: np.ndarray = field(init=False)  # [customers], on day 0
    reachable: np.ndarray = field(init=False)  # terminals of customer 0, of customer 1, ...
    reach_start: np.ndarray = field(init=False)  # [customers + 1] offsets into reachable

    def __post_init__(self) -> None:
        world, rng = self.world, self.world.rng(WORLD)
        homes = rng.uniform(0, 100, (world.customers, 2))
        self.mean_amount = rng.uniform(5, 100, world.customers)
        self.payments_a_day = rng.uniform(0, 4, world.customers)
        self.account_age_days = rng.integers(1, 3650, world.customers).astype(np.int32)
        shops = rng.uniform(0, 100, (world.terminals, 2))
        near: list[np.ndarray] = []
        for block in np.array_split(np.arange(world.customers), max(1, world.customers // 500)):
            squared = ((homes[block, None, :] - shops[None, :, :]) ** 2).sum(axis=2)
            within = squared < world.reach**2
            within[np.arange(len(block)), squared.argmin(axis=1)] = True  # the nearest is always within reach
            near.extend(np.flatnonzero(row) for row in within)
        self.reachable = np.concatenate(near)
        self.reach_start = np.concatenate([[0], np.cumsum([len(shops_near) for shops_near in near])])


def day_of_payments(population: Population, day: int) -> dict[str, np.ndarray]:
    """All payments of one day in time order: tx_id, customer_id, terminal_id, time_us, amount, channel, is_fraud."""
    world, rng = population.world, population.world.rng(PAYMENTS, day)
    customer = np.repeat(np.arange(world.customers), rng.poisson(population.payments_a_day))
    second = rng.normal(43_200, 20_000, len(customer))
    mean = population.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    amount = np.where(amount < 0, rng.uniform(0, 2 * mean), amount)
    width = np.diff(population.reach_start)[customer]
    choice = population.reach_start[customer] + (rng.random(len(customer)) * width).astype(np.int64)
    terminal = population.reachable[choice]
    channel = rng.choice(3, len(customer), p=[0.45, 0.35, 0.20])
    third = rng.random(len(customer)) < 1 / 3
    awake = (second > 0) & (second < 86_400)  # the handbook drops payments outside the day

    fraud = amount > FRAUD_AMOUNT
    fraud |= np.isin(terminal, _drawn(world, TERMINAL_FRAUD, day, TERMINAL_DAYS, TERMINALS_A_DAY, world.terminals))
    leaked = np.isin(customer, _drawn(world, CARD_FRAUD, day, CARD_DAYS, CARDS_A_DAY, world.customers)) & third
    amount = np.where(leaked, amount * 5, amount)
    fraud |= leaked
    columns = [customer, terminal, second, amount, channel, fraud]
    columns = [column[awake] for column in columns]
    if world.new_pattern_from is not None and day >= world.new_pattern_from:
        columns = [np.concatenate(pair) for pair in zip(columns, _bursts(population, day), strict=True)]
    customer, terminal, second, amount, channel, fraud = columns

    order = np.argsort(second, kind="stable")
    time_us = world.midnight_us(day) + (second[order] * 1_000_000).astype(np.int64)
    return {
        "tx_id": np.int64(day) * 10_000_000 + np.arange(len(order)),
        "customer_id": customer[order],
        "terminal_id": terminal[order],
        "time_us": time_us,
        "amount": np.round(amount[order] * world.price_level(day), 2),
        "channel": CHANNELS[channel[order].astype(np.int64)],
        "is_fraud": fraud[order].astype(bool),
    }


def _drawn(world: World, purpose: int, day: int, lasting_days: int, a_day: int, of: int) -> np.ndarray:
    """Who was compromised on this day or on one of the days before that still count."""
    since = max(0, day - lasting_days + 1)
    draws = [
        world.rng(purpose, drawn_on).choice(of, min(a_day, of), replace=False) for drawn_on in range(since, day + 1)
    ]
    return np.unique(np.concatenate(draws))


def _bursts(population: Population, day: int) -> list[np.ndarray]:
    """The new pattern: small online payments in quick succession at night, all frauds."""
    world, rng = population.world, population.world.rng(BURSTS, day)
    cards = rng.choice(world.customers, min(BURST_CARDS_A_DAY, world.customers), replace=False)
    customer = np.repeat(cards, BURST_PAYMENTS)
    second = np.repeat(rng.uniform(3_600, 18_000, len(cards)), BURST_PAYMENTS) + rng.uniform(0, 600, len(customer))
    terminal = population.reachable[population.reach_start[customer]]
    amount = rng.uniform(1, 15, len(customer))
    return [customer, terminal, second, amount, np.full(len(customer), 2), np.full(len(customer), True)]


PAYMENT_SCHEMA = pa.schema(
    {
        "tx_id": pa.int64(),
        "customer_id": pa.int64(),
        "terminal_id": pa.int64(),
        "tx_time": pa.timestamp("us", "UTC"),
        "amount": pa.float64(),
        "channel": pa.string(),
    }
)
LABEL_SCHEMA = pa.schema(
    [
        *(PAYMENT_SCHEMA.field(name) for name in ("tx_id", "customer_id", "terminal_id", "tx_time")),
        ("is_fraud", pa.bool_()),
    ]
)
PROFILE_SCHEMA = pa.schema(
    {"customer_id": pa.int64(), "updated_at": pa.timestamp("us", "UTC"), "account_age_days": pa.int32()}
)


def requests_of(payments: dict[str, np.ndarray]) -> pa.Table:
    """What callers ask about: the payments as the gateway sees them."""
    return pa.Table.from_pydict({**payments, "tx_time": payments["time_us"]}, schema=PAYMENT_SCHEMA)


def feed_of(world: World, day: int, payments: dict[str, np.ndarray]) -> pa.Table:
    """The same payments as the event feed delivers them, in order of arrival."""
    table, rng = requests_of(payments), world.rng(FEED, day)
    if day in world.feed_broken:
        lost = pa.array(rng.random(len(table)) < 0.6)
        amounts = pc.if_else(lost, pa.scalar(None, pa.float64()), table["amount"])
        table = table.set_column(table.schema.get_field_index("amount"), "amount", amounts)
    if day in world.feed_late:
        late_us = np.where(rng.random(len(table)) < 0.2, rng.uniform(0, 6 * 3_600e6, len(table)), 0)
        table = table.take(np.argsort(payments["time_us"] + late_us, kind="stable"))
    return table


def labels_of(population: Population, day: int) -> pa.Table:
    """The labels that arrive on ``day``: those of the payments ``label_delay_days`` before."""
    paid_on = day - population.world.label_delay_days
    if paid_on < 0:
        return LABEL_SCHEMA.empty_table()
    payments = day_of_payments(population, paid_on)
    return pa.Table.from_pydict({**payments, "tx_time": payments["time_us"]}, schema=LABEL_SCHEMA)


def profiles_of(population: Population, day: int) -> pa.Table:
    """The customer table as it is published at the day's midnight."""
    world = population.world
    at = np.full(world.customers, world.midnight_us(day))
    columns = {
        "customer_id": np.arange(world.customers),
        "updated_at": at,
        "account_age_days": population.account_age_days + day,
    }
    return pa.Table.from_pydict(columns, schema=PROFILE_SCHEMA)


def tables_of(population: Population, day: int) -> dict[str, pa.Table]:
    """Everything of one day by file name."""
    payments = day_of_payments(population, day)
    return {
        "transactions": feed_of(population.world, day, payments),
        "requests": requests_of(payments),
        "labels": labels_of(population, day),
        "profiles": profiles_of(population, day),
    }


def write_days(population: Population, days: range, out: Path, per_day: bool) -> dict[str, int]:
    """Write the days to ``out`` (or ``out/day-NNN`` each) and return rows per file name; files appear whole."""
    rows: dict[str, int] = {}
    writers: dict[Path, pq.ParquetWriter] = {}
    try:
        for day in days:
            folder = out / f"day-{day:03d}" if per_day else out
            folder.mkdir(parents=True, exist_ok=True)
            for name, table in tables_of(population, day).items():
                path = folder / f"{name}.parquet"
                if path not in writers:
                    writers[path] = pq.ParquetWriter(path.with_suffix(".tmp"), table.schema)
                writers[path].write_table(table)
                rows[name] = rows.get(name, 0) + len(table)
            if per_day:
                _finish(writers)
        _finish(writers)
    finally:
        for path, writer in writers.items():
            writer.close()
            path.with_suffix(".tmp").unlink(missing_ok=True)
    return rows


def _finish(writers: dict[Path, pq.ParquetWriter]) -> None:
    for path in list(writers):
        writers[path].close()
        path.with_suffix(".tmp").replace(path)
        del writers[path]


def _day_range(text: str) -> range:
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; write FIRST:LAST, such as 76:78") from None
    return range(first, last)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; must be a whole number from 1 up")
    return int(text)


def _start(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}; write a date such as 2026-01-05") from None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write Parquet files to")
    parser.add_argument("--first-day", type=int, default=0, help="first day to make (default 0)")
    parser.add_argument("--days", type=_positive, default=30, help="how many days (default 30)")
    parser.add_argument("--per-day", action="store_true", help="one folder per day: day-000, day-001, ...")
    parser.add_argument("--seed", type=int, default=World.seed)
    parser.add_argument("--customers", type=_positive, default=World.customers)
    parser.add_argument("--terminals", type=_positive, default=World.terminals)
    parser.add_argument("--start", type=_start, default=World.start, help="date of day 0 (default 2026-01-05)")
    parser.add_argument("--amount-factor", type=float, default=1.0, help="prices from --amount-from on")
    parser.add_argument("--amount-from", type=int, help="day from which prices change")
    parser.add_argument("--new-pattern-from", type=int, help="day from which the new fraud pattern happens")
    parser.add_argument(
        "--feed-broken", type=_day_range, default=range(0), metavar="FIRST:LAST", help="days (LAST excluded)"
    )
    parser.add_argument(
        "--feed-late", type=_day_range, default=range(0), metavar="FIRST:LAST", help="days (LAST excluded)"
    )
    parser.add_argument("--label-delay-days", type=_positive, default=World.label_delay_days)
    given = vars(parser.parse_args(arguments))
    out, first, days, per_day = (given.pop(name) for name in ("out", "first_day", "days", "per_day"))
    population = Population(World(**given))
    rows = write_days(population, range(first, first + days), out, per_day)
    print(" ".join(f"{name}={count}" for name, count in rows.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
