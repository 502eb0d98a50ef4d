"""What an attempt failed with, in one line: useful where the answer is, harmless whatever it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.said import LINE_CAP, first_line, why_failed
from relay.model import Attempt, FailureKind, Outcome


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", ""),
        (b"database is locked", "database is locked"),
        (b"\xef\xbb\xbf\r\n  no such\torder \r\nsecond line", "no such order"),
        (b'{"error":"database is locked"}', '{"error":"database is locked"}'),
        (json.dumps({"error": "database is locked"}, indent=2).encode(), '"error": "database is locked"'),
        (b"<!doctype html><title>500</title>", ""),
        (b"\n <html>", ""),
        (b"-- \n<html><body>x", ""),
        (b"}\r\n<title>x", ""),
        (b"\x00<html>x", ""),
        (b"a < b", "a < b"),
        (b"\n" * 4080 + b"whsec_MfKQ9r8GK1", ""),
        (b"\n" * 4080 + b"see whsec_MfKQ9r", "see ..."),
        (b"locked\n" + b"x" * 4089, "locked"),
        (b"----\n\n", ""),
        (b"\x1b[2Jgone\x07 \xff", "\\x1b[2Jgone\\x07 \\xff"),
        ("\u202egone\u2028second".encode(), "\\u202egone"),
        (b"a" * LINE_CAP, "a" * LINE_CAP),
        (b"a" * 4096, ""),
        (b"see " + b"a" * 4096, "see ..."),
        (b'{"error":"locked","trace":"' + b"a" * 4096, '{"error":"locked","trace":" ...'),
    ],
)
def test_the_first_line_that_says_something(body: bytes, line: str):
    assert first_line(body) == line


@given(st.binary(max_size=600) | st.text(max_size=600).map(lambda text: text.encode("utf-8", "replace")))
def test_whatever_comes_is_one_short_printable_line(body: bytes):
    line = first_line(body)
    assert line.isprintable()
    assert len(line) <= LINE_CAP
    assert line == " ".join(line.split())


def test_half_a_secret_is_left_out():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    for before in range(LINE_CAP):
        line = first_line(b"x" * before + b" " + secret.encode() + b" ...")
        assert secret in line or secret[:6] not in line


def test_why_an_attempt_failed():
    assert why_failed(Attempt(0, 1.0, Outcome.RETRY, 500)) == "status 500"
    assert why_failed(Attempt(0, 1.0, Outcome.RETRY, 500, response_body=b"locked\n")) == "status 500: locked"
    silent = Attempt(0, 1.0, Outcome.RETRY, kind=FailureKind.DNS, error="dns: no such name")
    assert why_failed(silent) == "dns: no such name"
