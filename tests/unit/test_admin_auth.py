"""Guesses are counted per address, forgotten with time, and never fill the memory."""

import pytest

from relay.admin.auth import LOGIN_FAILURES, LOGIN_RECOVERY, REMEMBERED_ADDRESSES, FailedLogins, token_matches


def test_a_few_guesses_are_free_then_it_is_slow():
    logins = FailedLogins()
    for _ in range(LOGIN_FAILURES):
        assert logins.wait("192.0.2.1", 100.0) == 0
        logins.note("192.0.2.1", 100.0)
    assert logins.wait("192.0.2.1", 100.0) == pytest.approx(LOGIN_RECOVERY)
    assert logins.wait("192.0.2.1", 100.0 + LOGIN_RECOVERY) == 0
    logins.note("192.0.2.1", 100.0 + LOGIN_RECOVERY)
    assert logins.wait("192.0.2.1", 100.0 + LOGIN_RECOVERY) == pytest.approx(LOGIN_RECOVERY)
    assert logins.wait("192.0.2.2", 100.0) == 0


def test_a_network_of_ipv6_counts_as_one_address():
    logins = FailedLogins()
    for number in range(LOGIN_FAILURES):
        logins.note(f"2001:db8::{number:x}", 0.0)
    assert logins.wait("2001:db8::ffff", 0.0) > 0
    assert logins.wait("2001:db8:0:1::1", 0.0) == 0
    for number in range(LOGIN_FAILURES):
        logins.note(f"::ffff:192.0.2.{number}", 0.0)
    assert logins.wait("::ffff:192.0.2.1", 0.0) == 0


def test_memory_is_bounded_and_forgets_who_was_quiet_longest():
    logins = FailedLogins()
    for _ in range(LOGIN_FAILURES):
        logins.note("198.51.100.1", 0.0)
    for number in range(REMEMBERED_ADDRESSES - 1):
        logins.note(f"10.0.{number // 256}.{number % 256}", 0.0)
    assert logins.wait("198.51.100.1", 0.0) > 0
    logins.note("203.0.113.1", 0.0)
    assert len(logins._recovered_at) == REMEMBERED_ADDRESSES
    assert logins.wait("198.51.100.1", 0.0) == 0


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        (["Bearer token"], True),
        (["bearer token"], True),
        (["BEARER  token "], True),
        (["Bearer"], False),
        (["Bearer "], False),
        (["token"], False),
        (["Basic token"], False),
        (["Bearer tokens"], False),
        (["Bearer toke"], False),
        (["Bearer Token"], False),
        (["Bearer tok\udcffen"], False),
        (["Bearer token", "Bearer token"], False),
        ([], False),
    ],
)
def test_what_counts_as_the_token(given: list[str], fits: bool):
    assert token_matches(given, "token") is fits
