"""Moments as people write them, and what is no moment."""

import pytest

from relay.admin.questions import moment_ms

NOW = 1_795_330_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", NOW - 86_400_000),
        ("90m", NOW - 5_400_000),
        ("2d", NOW - 172_800_000),
        ("0s", NOW),
        ("2026-11-22T00:00:00Z", 1_795_305_600_000),
        ("2026-11-22T01:00:00+01:00", 1_795_305_600_000),
        ("2026-11-22", 1_795_305_600_000),
        ("1950-01-01", 0),
    ],
)
def test_moments(text: str, expected: int):
    assert moment_ms(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "24 h", "1.5h", "9999999h", "tomorrow", "2026-13-01", "24h\n"])
def test_no_moments(text: str):
    with pytest.raises(ValueError, match="write how long ago"):
        moment_ms(text, NOW)


def test_the_future_is_refused():
    with pytest.raises(ValueError, match="future"):
        moment_ms("2099-01-01", NOW)


def test_more_time_than_there_has_been_is_all_of_it():
    assert moment_ms("999999d", 1_795_330_000_000) == 0
