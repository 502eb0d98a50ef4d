"""A token server may answer anything."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.token_answer import LONGEST_LIFE, SHORTEST_LIFE, USUAL_LIFE, read_token, read_trouble


def answer(**members):
    return json.dumps({"access_token": "tok", "token_type": "Bearer", **members}).encode()


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, 3540),
        ("3600", 3540),
        (3600.5, 3540.5),
        (100, 90),
        (10, 9),
        (0, SHORTEST_LIFE),
        (-5, SHORTEST_LIFE),
        (10**30, LONGEST_LIFE - 60),
        (float("inf"), LONGEST_LIFE - 60),
        (float("-inf"), SHORTEST_LIFE),
        (float("nan"), USUAL_LIFE - 30),
        ("soon", USUAL_LIFE - 30),
        ("", USUAL_LIFE - 30),
        (None, USUAL_LIFE - 30),
        (True, USUAL_LIFE - 30),
        ([3600], USUAL_LIFE - 30),
        ({}, USUAL_LIFE - 30),
    ],
)
def test_how_long_a_token_is_used(expires_in, life):
    assert read_token(answer(expires_in=expires_in), 1000.0).good_until == pytest.approx(1000.0 + life)


def test_a_number_beyond_every_float_is_as_good_as_for_ever():
    body = b'{"access_token":"tok","token_type":"bearer","expires_in":' + b"9" * 400 + b"}"
    assert read_token(body, 0.0).good_until > 0


def test_without_expires_in():
    assert read_token(answer(), 0.0).good_until == pytest.approx(USUAL_LIFE - 30)


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER"])
def test_bearer_in_any_letters(kind):
    assert read_token(answer(token_type=kind), 0.0).value == "tok"


def test_a_token_without_a_type_counts_as_bearer():
    assert read_token(b'{"access_token":"tok"}', 0.0).value == "tok"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"tok"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        answer(access_token=""),
        answer(access_token=None),
        answer(access_token=5),
        answer(access_token=["tok"]),
        answer(access_token="to k"),
        answer(access_token="tok\r\nx-evil: 1"),
        answer(access_token="tök"),
        answer(access_token="t" * 8193),
        answer(token_type="mac"),
        answer(token_type=None),
        answer(token_type=["bearer"]),
        b'{"token_type":"bearer"}',
    ],
)
def test_what_is_no_token(body):
    with pytest.raises(ValueError, match="answered") as caught:
        read_token(body, 0.0)
    assert "evil" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_answer_does_more_than_fail(body):
    try:
        token = read_token(body, 0.0)
    except ValueError:
        return
    assert token.value.isprintable()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b'{"error":"invalid_client","error_description":"CANARY"}', "answered 401 (invalid_client)"),
        (400, b'{"error":"CANARY"}', "answered 400"),
        (400, b'{"error":["invalid_client"]}', "answered 400"),
        (500, b"CANARY", "answered 500"),
        (302, b"", "answered with a redirect (302), which is not followed"),
        (204, b"", "answered 204"),
    ],
)
def test_trouble_is_told_without_the_servers_words(status, body, words):
    assert read_trouble(status, body) == words


def test_a_token_does_not_show_itself():
    assert "tok" not in repr(read_token(answer(), 0.0)).replace("Token", "")
