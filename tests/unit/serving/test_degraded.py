"""Reasons of degraded replies, and the page that explains them."""

from __future__ import annotations

import re
from pathlib import Path

from tidewheel.serving.degraded import CAUSES, RUNGS


def test_the_concept_page_explains_every_reason(repository: Path) -> None:
    page = (repository / "docs" / "concepts" / "deadline-and-fallback.md").read_text()
    table = page.partition("## Reasons")[2]
    explained = re.findall(r"^\| `(\w+)(?::<view>)?` \|", table, re.MULTILINE)
    assert explained == [
        "FeaturesUnavailable", "FeaturesLate", *[one for one in CAUSES if one not in explained[:2]], *RUNGS,
    ]  # fmt: skip


def test_no_module_makes_up_a_reason_of_its_own(repository: Path) -> None:
    found = set()
    for path in (repository / "platform" / "tidewheel" / "serving").rglob("*.py"):
        if path.name != "degraded.py":
            text = path.read_text()
            found |= {one for one in (*CAUSES, *RUNGS) if f'"{one}"' in text or f'"{one}:' in text}
    assert found == set()
