"""JSON that goes out: secrets blanked, text printable, stored JSON as it is."""

import json
from collections.abc import Iterator

import pytest

from relay import log
from relay.admin.answers import JsonText, Shown, embedded, encoded, outside_text

SECRET = "canary-secret-in-an-answer"


@pytest.fixture(autouse=True)
def known_secret() -> Iterator[None]:
    log.register_secrets([SECRET])
    yield
    log.forget_secrets()


@pytest.mark.parametrize(
    "document",
    [{}, [], {"a": [1, None, True, 2.5, "text", {"b": []}]}, {"int": 2**70}, "ü€", {'"': "\\"}],
)
def test_plain_documents_stay_what_they_are(document: object):
    assert json.loads(encoded(document)) == document


def test_secrets_and_control_characters_are_gone():
    text = encoded({"error": f"\x1b[31m{SECRET}", "inner": [f"x{SECRET}"]})
    assert SECRET not in text
    assert json.loads(text) == {"error": "\\x1b[31m[redacted]", "inner": ["x[redacted]"]}


@pytest.mark.parametrize(
    "body", [b'{"odd" :1.0E5, "n": 123456789012345678901234567890}', b'"\\u001b[31m"', b" [] ", '{"ü":1}'.encode()]
)
def test_stored_json_stands_there_byte_for_byte(body: bytes):
    shown = embedded(body)
    assert isinstance(shown, JsonText)
    assert encoded({"data": shown}).encode() == b'{"data": ' + body + b"}"


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b"\xff", b'{"a": 1} x', b'"\x1b"', b"[" * 100_000])
def test_what_is_no_json_becomes_text(body: bytes):
    shown = embedded(body)
    assert isinstance(shown, Shown)
    assert isinstance(json.loads(encoded({"data": shown}))["data"], str)


def test_a_secret_in_stored_json_is_blanked():
    assert encoded(embedded(json.dumps({"echo": SECRET}).encode())) == '{"echo": "[redacted]"}'


def test_what_a_stranger_said_is_whole_and_harmless():
    shown = outside_text(b"<b>\x1b]0;owned\x07\r\n\tnext\xff \xc2\x9b " + SECRET.encode() + b"x" * 5000)
    assert shown.startswith("<b>\\x1b]0;owned\\x07\\r\n\tnext\\xff \\x9b [redacted]xxx")
    assert len(shown) > 5000
    assert json.loads(encoded(shown)) == shown
