"""What the chart's alerts and dashboard look at is there, and whoever is woken finds a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from chart.test_chart import rendered

METRIC = re.compile(r"\btidewheel_[a-z_]+")
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")


def rules() -> list[dict[str, Any]]:
    (found,) = (one for one in rendered("everything") if one["kind"] == "PrometheusRule")
    return [rule for group in found["spec"]["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    (board,) = (one for one in rendered("everything") if one["metadata"]["name"].endswith("-dashboard"))
    panels = json.loads(board["data"]["tidewheel.json"])["panels"]
    return [str(rule["expr"]) for rule in rules()] + [target["expr"] for one in panels for target in one["targets"]]


def test_every_metric_that_is_looked_at_is_described(repository: Path) -> None:
    pages = [repository / "docs" / "reference" / name for name in ("server-metrics.md", "metrics.md")]
    told = {SUFFIX.sub("", name) for page in pages for name in METRIC.findall(page.read_text())}
    code = (repository / "platform" / "tidewheel" / "apps" / "controller_http.py").read_text()
    told |= set(METRIC.findall(code))
    looked_at = {SUFFIX.sub("", name) for one in expressions() for name in METRIC.findall(one)}
    assert len(looked_at) > 10
    assert looked_at - told == set()


def test_an_alert_leads_to_its_section(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "alerts.md").read_text()
    for rule in rules():
        assert f"## {rule['alert']}\n" in page
        assert rule["annotations"]["runbook_url"].endswith(f"/reference/alerts.md#{rule['alert'].lower()}")
        assert rule["labels"]["severity"] in ("page", "ticket")
