"""A small valid project for tests of the spec."""

GOOD_PROJECT = """\
name: card-fraud
owner: payments-risk
entities:
  customer: {key: customer_id, type: int64}
sources:
  payments:
    topic: payments
    path: payments
    event_time: at
    event_id: id
    columns: {amount: float64, channel: string}
  labels:
    topic: labels
    path: labels
    event_time: at
    event_id: id
    columns: {is_fraud: bool}
request: payments
label: {source: labels, column: is_fraud, delay: 7d}
training: {window: 28d}
serving:
  decision: {approve: 0.0, decline: 0.9}
"""
