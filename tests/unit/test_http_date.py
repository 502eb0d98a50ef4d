"""The date of an HTTP header, in whatever form it comes."""

import pytest

from relay.http_date import LONGEST, http_date_ms

AT_MS = 1_795_330_800_000


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("Sun, 22 Nov 2026 07:00:00 GMT", AT_MS),
        ("Sunday, 22-Nov-26 07:00:00 GMT", AT_MS),
        ("Sun Nov 22 07:00:00 2026", AT_MS),
        ("Sun, 22 Nov 2026 09:00:00 +0200", AT_MS),
        ("Sun, 22 Nov 2026 07:00:00 -0000", AT_MS),
        ("Sun, 99 Nov 2026 07:00:00 GMT", None),
        ("Sun, 22 Nov 99999999999999999999 07:02:00 GMT", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_every_form_and_none(text: str | None, at_ms: int | None) -> None:
    assert http_date_ms(text) == at_ms


def test_it_is_no_longer_than_a_date_can_be() -> None:
    padded = "Sun, 22 Nov 2026 07:00:00 GMT".ljust(LONGEST)
    assert LONGEST == 64
    assert http_date_ms(padded) == AT_MS
    assert http_date_ms(padded + " ") is None
