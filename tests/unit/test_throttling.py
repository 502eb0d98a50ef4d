"""How long the upstream asks to wait."""

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from relay.http_date import http_date_ms
from relay.upstream.throttling import is_throttled, retry_after_header, throttle_seconds

NOW_MS = 1_795_330_800_000
DATE = "Sun, 22 Nov 2026 07:00:00 GMT"
LATER = "Sun, 22 Nov 2026 07:00:30 GMT"
assert http_date_ms(DATE) == NOW_MS


def seconds(body: Any = None, **headers: str) -> float:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return throttle_seconds(CIMultiDict({key.replace("_", "-"): value for key, value in headers.items()}), text, NOW_MS)


def test_documented_shapes() -> None:
    """66."""
    assert seconds({"code": "RATE_LIMIT_EXCEEDED", "retryAfter": 45, "meta": {"retryAfter": 9}}) == 45
    assert seconds({"code": "RATE_LIMIT_EXCEEDED", "meta": {"retryAfter": 9}, "extensions": {"retryAfter": 5}}) == 9
    assert seconds({"code": 429, "extensions": {"retryAfter": 44, "limit": 45, "windowMs": 60000}}) == 44
    assert seconds({"errors": [{"extensions": {"code": 429, "retryAfter": 43}}]}) == 43
    assert seconds({"message": "FREE tier: 10 readHeavy requests per minute. Try again in 12 seconds."}) == 12
    assert seconds({"errors": [{"message": "try again in 2 minutes"}]}) == 120
    assert seconds({"retryAfter": 45}, retry_after="7") == 7


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{", b"null", b'{"retryAfter":null}', b'{"errors":[1,null,{}]}']
)
def test_without_a_time_a_minute(body: bytes) -> None:
    assert seconds(body) == 60


@pytest.mark.parametrize("value", [-5, True, "soon", [], {}, "-3", "1e5", None])
def test_garbage_gives_way_to_the_next_in_trust(value: object) -> None:
    assert seconds({"retryAfter": value, "meta": {"retryAfter": 8}}) == 8


def test_bounds() -> None:
    assert seconds({"retryAfter": 1e12}) == 86_400
    assert seconds({"retryAfter": 0}) == 1
    assert seconds({"retryAfter": "3600"}) == 3600


def test_header_forms() -> None:
    """4, 99: seconds, dates in three spellings, relative to the server's own clock."""

    def read(text: str, **more: str) -> float | None:
        return retry_after_header(CIMultiDict({"retry-after": text, **more}), NOW_MS)

    assert read("120.6") == 120.6
    assert read(" 7 ") == 7
    assert read(LATER) == 30
    assert read("Sunday, 22-Nov-26 07:00:30 GMT") == 30
    assert read("Sun Nov 22 07:00:30 2026") == 30
    assert read(LATER, Date=LATER) == 0
    assert read(DATE, Date=LATER) is None
    for garbage in ("-7", "", "soon", "NaN", "inf", "1" * 400, "Sun, 99 Foo 2026 99:99:99 GMT", "٣"):
        assert read(garbage) is None
    assert retry_after_header({}, NOW_MS) is None


def test_what_counts_as_throttled() -> None:
    limited = json.dumps({"errors": [{"extensions": {"code": 429}}]}).encode()
    assert is_throttled(429, {}, b"")
    assert is_throttled(503, {"Retry-After": "1"}, b"")
    assert is_throttled(200, {}, limited)
    assert is_throttled(400, {}, b'{"code":"RATE_LIMIT_EXCEEDED"}')
    assert not is_throttled(503, {}, b"")
    assert not is_throttled(500, {}, b'{"code":500}')
    assert not is_throttled(200, {}, b"{" * 70_000)


@pytest.mark.parametrize("our_clock_off_s", [-36_000, 36_000])
def test_our_own_clock_does_not_decide_for_hours(our_clock_off_s: int) -> None:
    """132: a date without a `Date` beside it is measured by a clock that may be wrong."""
    now_ms = NOW_MS + our_clock_off_s * 1000
    wait = throttle_seconds(CIMultiDict({"Retry-After": LATER}), b"", now_ms)
    assert wait <= 900
    assert throttle_seconds(CIMultiDict({"Retry-After": LATER, "Date": DATE}), b"", now_ms) == 30
    assert throttle_seconds(CIMultiDict({"Retry-After": "7200"}), b"", now_ms) == 7200


def test_a_date_is_trusted_to_a_quarter_of_an_hour_by_our_clock() -> None:
    assert retry_after_header({"Retry-After": "Sun, 22 Nov 2026 07:15:00 GMT"}, NOW_MS) == 900
    assert retry_after_header({"Retry-After": "Sun, 22 Nov 2026 07:15:01 GMT"}, NOW_MS) == 900
    assert retry_after_header({"Retry-After": "Sun, 22 Nov 2026 07:14:59 GMT"}, NOW_MS) == 899


def test_what_is_looked_at_is_bounded() -> None:
    body = b'{"retryAfter":7,"x":"%s"}'
    fits = 65_536 - len(body % b"")
    assert seconds(body % (b"y" * fits)) == 7
    assert seconds(body % (b"y" * (fits + 1))) == 60
    sentence = "try again in 5 s"
    assert seconds({"message": "." * (500 - len(sentence)) + sentence}) == 5
    assert seconds({"message": "." * (501 - len(sentence)) + sentence}) == 60
