"""What the errors add to what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidewheel.errors import naming


@pytest.mark.parametrize(
    ("error", "filename"),
    [
        pytest.param(OSError(28, "No space left on device"), "/lake/part", id="an error without a file gets it"),
        pytest.param(OSError(2, "No such file", "/other"), "/other", id="an error with a file keeps its own"),
    ],
)
def test_naming_a_path(error: OSError, filename: str) -> None:
    with pytest.raises(OSError) as raised, naming(Path("/lake/part")):
        raise error
    assert raised.value is error
    assert raised.value.filename == filename
