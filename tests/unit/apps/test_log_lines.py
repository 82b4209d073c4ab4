"""Log lines for machines."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from tidewheel.apps.log_lines import JsonLines, fields_of


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("event=stopped", {"event": "stopped"}),
        ("event=a n=3 message=two words, x=1", {"event": "a", "n": "3", "message": "two words, x=1"}),
        ("plain words", {"message": "plain words"}),
        ("event=a and then words", {"message": "event=a and then words"}),
        ("event=a error=", {"event": "a", "error": ""}),
    ],
)
def test_a_message_is_taken_apart(message: str, fields: dict[str, str]) -> None:
    assert fields_of(message) == fields


def test_a_line_is_one_object_with_its_traceback() -> None:
    try:
        raise ValueError("no\nnewline gets out")
    except ValueError:
        record = logging.LogRecord(
            "tidewheel.x", logging.ERROR, "f", 1, "event=%s error=%s", ("a", "b c"), sys.exc_info()
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["event"], read["error"], read["level"], read["logger"]) == ("a", "b c", "error", "tidewheel.x")
    assert "ValueError: no" in read["traceback"]
    assert read["at"].endswith("Z")
