"""Rows that one part writes and another reads: the columns of the prediction log and their meaning.

The model server writes one row per request and variant; monitoring, rollout and skew read them. Columns of the
request itself are stored as ``request.<column>`` with the source's own types.
"""

from __future__ import annotations

from typing import Literal

Role = Literal["champion", "canary", "shadow", "fallback", "vector", "test"]

# name -> Arrow type as text (pyarrow.type_for_alias, or "list<double>", "list<int64>", "list<string>")
PREDICTION_COLUMNS: dict[str, str] = {
    "record_id": "string",  # hash of request id and version: the key by which duplicates drop
    "request_id": "string",
    "project": "string",
    "version": "string",  # model version that scored; empty when the fallback ladder answered without a model
    "digest": "string",  # its bundle
    # A Role; champion, canary and fallback rows were seen by a caller, vector rows by one who sent the features, test
    # rows by one who asked to try the server out.
    "role": "string",
    "generation": "int64",  # of the deployment document that routed the request
    "event_time_us": "int64",  # t: the time features were read at
    "event_id": "string",
    "unit": "string",  # the rollout unit's key, as text
    "features": "list<double>",  # the vector as served, in the version's feature order; NaN is missing
    "positions": "list<int64>",  # per state of that version: every event before it in its log was known
    "feature_digest": "string",
    "score": "double",
    "decision": "string",
    "degraded": "bool",
    "reasons": "list<string>",  # why it was degraded
    "latency_us": "int64",  # from the first byte of the request read to the reply ready; a shadow's own time
    "logged_at_us": "int64",  # wall clock
    # Who wrote it, and the how manieth of its records it was: what is missing in between was lost.
    "writer": "string",
    "sequence": "int64",
}

REQUEST_PREFIX = "request."
