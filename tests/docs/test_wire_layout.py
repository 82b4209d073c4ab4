"""The bytes on the page of the wire layout are the bytes that we write."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from tidewheel.features import feast_layout as layout
from tidewheel.features.keys import entity_keys


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "reference" / "wire-layout.md").read_text(encoding="utf-8")


def block(page: str, kind: str) -> list[str]:
    found = re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def test_the_entity_key_is_the_one_on_the_page(page: str):
    shown = [re.match(r"((?:[0-9a-f]{2} {1,2})+)", line) for line in block(page, "bytes")]
    (key,) = entity_keys((("customer_id", "int64"),), [np.array([42])])
    assert (
        bytes.fromhex("".join(line[1] for line in shown if line)) == key + layout.feast_project("card-fraud").encode()
    )


def test_fields_and_values_are_those_on_the_page(page: str):
    lines = block(page, "example")
    assert len(lines) == 6
    for line in lines:
        name, kind, value, *shown = re.split(r"\s{2,}", line)
        written = [bytes.fromhex(part) for part in shown]
        view, _, feature = name.partition(":")
        if kind == "time":
            micros = np.array([datetime.fromisoformat(value).timestamp() * 1e6]).round().astype(np.int64)
            assert (layout.time_field(feature), layout.encode_times(micros)) == (name.encode(), written)
        elif kind == "offset":
            assert layout.position_field(feature) == name.encode()
            assert layout.encode_positions(np.array([int(value)])) == written
        else:
            blob = layout.encode_bytes(bytes.fromhex(value)) if kind == "bytes" else None
            encoded = blob if blob is not None else layout.encode_numbers(kind, np.array([float(value)]))[0]
            assert [layout.feature_field(view, feature), encoded] == written, name
