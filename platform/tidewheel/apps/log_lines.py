"""How a process writes its log: lines for people, or an object per line for machines.

Messages are ``event=NAME key=value ...``; ``error`` and ``message`` come last and run to the end of the line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Literal

from tidewheel.clock import SECOND_US, utc_text

LogFormat = Literal["text", "json"]
_PAIR = re.compile(r"(\w+)=(\S*)\s*")
_TO_THE_END = ("error", "message")


def set_up_log(log_format: LogFormat) -> None:
    """All of this process's log goes to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class JsonLines(logging.Formatter):
    """One JSON object per record: at, level, logger, and the pairs of its message."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "at": utc_text(int(record.created * SECOND_US)),
            "level": record.levelname.lower(),
            "logger": record.name,
            **fields_of(record.getMessage()),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def fields_of(message: str) -> dict[str, str]:
    """The pairs of a message; one that is no list of pairs is the field ``message``.

    >>> fields_of("event=started port=80 error=no such file")
    {'event': 'started', 'port': '80', 'error': 'no such file'}
    """
    fields: dict[str, str] = {}
    at = 0
    while match := _PAIR.match(message, at):
        name = match[1]
        if name in _TO_THE_END:
            return {**fields, name: message[match.start(2) :]}
        fields[name], at = match[2], match.end()
    return fields if fields and at == len(message) else {"message": message}
