"""Every metric of a model server: its kind and what it says. The operator's page is held to this list by a test."""

from __future__ import annotations

from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

METRICS: dict[str, tuple[Kind, str]] = {
    "request_latency_seconds": ("histogram", "From a request's first byte to its reply, by the version that scored."),
    "predictions_total": ("counter", "Rows answered, by version, role and decision."),
    "degraded_total": ("counter", "Rows answered by anything but fresh features and the model, by reason."),
    "responses_total": ("counter", "Answers by protocol and status."),
    "requests_shed_total": ("counter", "Requests turned away since too many wait, by what was exceeded."),
    "breaker_changes_total": ("counter", "Changes of the online store's circuit breaker, by the new state."),
    "breaker_state": ("gauge", "1 for the state that the circuit breaker of the online store is in."),
    "batch_rows": ("histogram", "Rows that were read and scored together."),
    "batch_seconds": ("histogram", "A batch from being taken from the queue to being logged."),
    "stage_seconds": ("histogram", "A batch by stage: read (the store), score (vectors, model, decision), log."),
    "missing_values_total": ("counter", "Values that were missing before defaults, by version and feature."),
    "feature_age_seconds": ("gauge", "How far the source of a view lagged when it was last looked at."),
    "waiting_rows": ("gauge", "Rows that wait to be read for."),
    "open_connections": ("gauge", "HTTP connections."),
    "generation": ("gauge", "Generation of the deployment document that is served, -1 before the first."),
    "ready": ("gauge", "1 where a verified version serves."),
    "cold_start_seconds": ("gauge", "From the start of the process to the first version that serves, 0 before."),
    "internal_errors_total": ("counter", "Faults of the server itself; its log has a traceback of each."),
    "shadow_scored_total": ("counter", "Rows that shadow versions scored."),
    "shadow_dropped_total": ("counter", "Rows that shadow versions were too slow for."),
    "prediction_log_written_total": ("counter", "Records in the spool, before their replies were sent."),
    "prediction_log_lost_total": ("counter", "Records that the spool had no room for."),
    "prediction_log_failing": ("gauge", "1 where the newest write to the spool failed."),
    "prediction_log_backlog_bytes": ("gauge", "Bytes in the spool that are not in the lake yet."),
    "prediction_log_shipped_total": ("counter", "Records that reached the lake."),
    "prediction_log_ship_failures_total": ("counter", "Times that the lake refused a part; it is tried again."),
    "prediction_log_torn_bytes_total": ("counter", "Bytes of records that a kill cut off: never acknowledged."),
    "prediction_log_syncs_total": ("counter", "Times that the disk was made to hold the spool."),
    "prediction_log_sync_seconds_total": ("counter", "How long that took, all of them together."),
    "process_cpu_seconds_total": ("counter", "CPU time of the server's process."),
    "process_resident_memory_bytes": ("gauge", "Memory of the server's process."),
}
