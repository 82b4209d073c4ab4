"""Examples in the reference: a block ``http`` is a request, a block ``json`` behind it is its answer.

A request is its line (with the status that it gets, if not 200, behind it), headers, an empty line and the body.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    method: str
    path: str
    headers: dict[str, str]
    body: str
    status: int
    answer: Any


def examples_of(page: str) -> list[Example]:
    """Every example of a page, in order."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made = []
    for at, (kind, text) in enumerate(blocks):
        if kind != "http":
            continue
        head, _, body = text.strip().partition("\n\n")
        line, *headers = head.splitlines()
        method, path, *status = line.split()
        answer = json.loads(blocks[at + 1][1]) if blocks[at + 1 :] and blocks[at + 1][0] == "json" else None
        named = dict(header.split(": ", 1) for header in headers)
        made.append(Example(method, path, named, body, int(status[-1]) if status else 200, answer))
    return made


def shape_of(value: Any) -> Any:
    """Names and types of a JSON value; a number is a number."""
    if isinstance(value, dict):
        return {name: shape_of(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape_of(one) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__
