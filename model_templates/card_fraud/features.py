"""What is known about a card and a terminal at the moment of payment, in the order the model sees it."""

import numpy as np

from tidewheel.features import batch, count, mean, request, windowed

# (t-W, t] in event time; the payment being scored is the newest event of its own card.
card = windowed(
    "transactions",
    by="customer",
    windows=["1h", "1d", "7d", "30d"],
    include_request=True,
    features={
        "card_n_tx": count(),  # card_n_tx_1h ... card_n_tx_30d
        "card_n_online": count(where={"channel": "online"}),
        "card_amount_mean": mean("amount"),
    },
    freshness="5s",
)

# delay="label" shifts it to (t-D-W, t-D], D = label.delay: what was not known yet cannot leak.
terminal = windowed(
    "labels",
    by="terminal",
    windows=["1d", "7d", "30d"],
    delay="label",
    features={
        "terminal_n_tx": count(),
        "terminal_fraud_ratio": mean("is_fraud", default=0.0),
    },
    freshness="1h",
)

profile = batch("profiles", by="customer", columns=["account_age_days"], ttl="2d")


@request
def payment_amount(amount):
    """The amount itself."""
    return amount


@request
def is_night(tx_time):
    """Paid between 00:00 and 07:00 UTC."""
    return tx_time.astype("datetime64[h]").astype(np.int64) % 24 < 7


@request
def amount_to_usual(amount, card_amount_mean_30d):
    """1 = this card's 30-day mean. Arguments are request fields and features, by name."""
    return amount / np.maximum(card_amount_mean_30d, 0.01)


@request
def large_amount(amount):
    """Also the heuristic of serving.fallback: read as a score when no model can answer."""
    return np.where(amount > 220, 0.9, 0.0)
