"""Traces of a real server at a collector."""

from __future__ import annotations

from typing import Any

import pytest

from servers.model_server import Rig, bundles, rig, wait_for
from servers.otlp import collector

__all__ = ["bundles", "rig"]  # fixtures
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BODY = {"inputs": [{"name": "customer_id", "shape": [1], "datatype": "INT64", "data": [87318731]}]}


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_request_of_a_sampled_trace_becomes_a_span_with_its_stages(rig: Rig) -> None:
    with collector() as kept:
        rig.deploy({"1": 1.0})
        rig.start(0, "--otlp-endpoint", kept.url, "--trace-ratio", "0")
        sent = rig.send("POST", "/v2/models/tiny/infer", BODY, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert sent.status == 200
        for unsampled in ({"traceparent": f"00-{TRACE}-{PARENT}-00"}, {}, {"traceparent": "nonsense"}):
            assert rig.send("POST", "/v2/models/tiny/infer", BODY, **unsampled).status == 200
        wait_for("spans", lambda: len(kept.spans) >= 5)
        (predict,) = [span for span in kept.spans if span.name == "predict"]
        stages = [span for span in kept.spans if span.name != "predict"]
    assert (predict.trace_id.hex(), predict.parent_span_id.hex()) == (TRACE, PARENT)
    assert [span.name for span in stages] == ["queue", "read features", "score", "log"]
    assert all(span.parent_span_id == predict.span_id for span in stages)
    moments = [predict.start_time_unix_nano, *(span.end_time_unix_nano for span in stages)]
    assert moments == sorted(moments)
    assert predict.end_time_unix_nano == moments[-1]
    told = attributes(predict)
    assert (told["tidewheel.project"], told["tidewheel.rows"], told["tidewheel.degraded"]) == ("tiny", 1, False)
    assert [one.string_value for one in told["tidewheel.versions"].values] == ["1"]
    assert "87318731" not in kept.text()


def test_a_collector_that_is_not_there_costs_no_caller_anything(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    server = rig.start(0, "--trace-ratio", "1", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert [rig.ask(number)["degraded"] for number in range(30)] == [False] * 30
    server.terminate()
    assert server.wait(timeout=60) == 0
