"""A scrape of a real server, its catalogue and the operator's page name the same metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from servers.model_server import Rig, bundles, rig, wait_for
from tidewheel.serving.metric_catalog import METRICS

__all__ = ["bundles", "rig"]  # fixtures
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def families(text: str) -> dict[str, str]:
    """Kind by name of what a scrape has lines of, each with its help."""
    told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helped = set(re.findall(r"^# HELP (\S+) \S.*$", text, re.MULTILINE))
    assert helped == told.keys()
    return {name: kind for name, kind in told.items() if re.search(rf"^{name}(_bucket)?{{", text, re.MULTILINE)}


def test_a_scrape_has_every_metric_of_the_catalogue(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    rig.ask(7)  # no amount: a feature is missing
    rig.failure("infer", b"{}")
    wait_for("the log", rig.logged)
    text = rig.get("/metrics").decode()
    expected = {f"tidewheel_{name}": kind for name, (kind, _) in METRICS.items()}
    # These have no lines before there is something to tell.
    rare = {f"tidewheel_{name}" for name in ("requests_shed_total", "breaker_changes_total", "degraded_total")}
    found = families(text)
    assert {name: expected[name] for name in found} == found
    assert expected.keys() - found.keys() <= rare
    for name, least in {
        'request_latency_seconds_count{project="tiny",replica="0",version="1"}': 1,
        'responses_total{project="tiny",replica="0",protocol="http",code="400"}': 1,
        'missing_values_total{project="tiny",replica="0",version="1",feature="large"}': 0,
        'stage_seconds_count{project="tiny",replica="0",stage="read"}': 1,
        'cold_start_seconds{project="tiny",replica="0"}': 0.1,
        'process_resident_memory_bytes{project="tiny",replica="0"}': 2e7,
        'breaker_state{project="tiny",replica="0",state="closed"}': 1,
        'feature_age_seconds{project="tiny",replica="0",version="1",view="card"}': 0,
        'prediction_log_shipped_total{project="tiny",replica="0"}': 1,
    }.items():
        (value,) = re.findall(rf"^{re.escape('tidewheel_' + name)} (\S+)$", text, re.MULTILINE)
        assert float(value) >= least, name


def test_nothing_that_a_caller_sends_is_in_metrics_or_logs(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    rig.start()
    secret = "canary-8731"
    rig.ask(87318731, channel=secret, payment_id=secret, amount=8731.8731)
    rig.failure(
        "infer", f'{{"inputs": [{{"name": "{secret}", "shape": [1], "datatype": "INT64", "data": [1]}}]}}'.encode()
    )
    rig.send("GET", f"/v2/models/{secret}")
    text = rig.get("/metrics").decode() + (rig.home.root / "server-0.log").read_text()
    assert [one for one in (secret, "87318731", "8731.8731") if one in text] == []


def test_the_operators_page_explains_every_metric(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "server-metrics.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    explained = {name for row in rows for name in re.findall(r"`tidewheel_(\w+)`", row.split(" | ")[0])}
    assert explained == METRICS.keys()


def test_logs_for_machines_are_an_object_per_line(rig: Rig) -> None:
    rig.deploy({"1": 1.0})
    server = rig.start(0, "--log-format", "json")
    rig.ask(7)
    server.terminate()
    assert server.wait(timeout=60) == 0
    lines = [json.loads(line) for line in (rig.home.root / "server-0.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "version_ready", "stopped"]
    assert all(line["at"].endswith("Z") and line["level"] == "info" for line in lines)
