"""The handbook's features under the names of its published table."""

import numpy as np

from tidewheel.features import count, mean, request, windowed

WINDOWS = {"1DAY_WINDOW": "1d", "7DAY_WINDOW": "7d", "30DAY_WINDOW": "30d"}


@request
def TX_AMOUNT(TX_AMOUNT):
    return TX_AMOUNT


@request
def TX_DURING_WEEKEND(TX_DATETIME):
    days = TX_DATETIME.astype("datetime64[D]").astype(np.int64)
    return (days + 3) % 7 >= 5  # day 0, 1970-01-01, was a Thursday; Monday is 0


@request
def TX_DURING_NIGHT(TX_DATETIME):
    return TX_DATETIME.astype("datetime64[h]").astype(np.int64) % 24 <= 6


customer = windowed("transactions", by="customer", windows=WINDOWS, include_request=True, features={
    "CUSTOMER_ID_NB_TX": count(),
    "CUSTOMER_ID_AVG_AMOUNT": mean("TX_AMOUNT"),
})

terminal = windowed("transactions", by="terminal", windows=WINDOWS, delay="label", features={
    "TERMINAL_ID_NB_TX": count(),
    "TERMINAL_ID_RISK": mean("TX_FRAUD", default=0.0),
})
