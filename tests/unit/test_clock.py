"""Event times are microseconds UTC; text in any zone becomes the same instant."""

from __future__ import annotations

import pytest

from tidewheel.clock import parse_utc, utc_text


@pytest.mark.parametrize(
    ("text", "at_us"),
    [
        ("1970-01-01", 0),
        ("2018-04-01T00:00:00Z", 1_522_540_800_000_000),
        ("2018-04-01T02:00:00+02:00", 1_522_540_800_000_000),
        ("2016-02-29T23:59:59.999999Z", 1_456_790_399_999_999),
        ("1969-12-31T23:59:59.5Z", -500_000),
    ],
)
def test_text_is_read_as(text, at_us):
    assert parse_utc(text) == at_us
    assert parse_utc(utc_text(at_us)) == at_us


def test_what_is_no_time_says_what_is_one():
    with pytest.raises(ValueError, match=r"not a time \(got 'soon'\); write 2018-06-04 or"):
        parse_utc("soon")
