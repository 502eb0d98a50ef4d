"""Sentences for eighty columns."""

import pytest

from relay.cli.words import ago, printable, size, span, wrapped


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (864_000, "10 d"),
    ],
)
def test_spans(seconds: float, words: str):
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (42_000, "42 kB"), (3.2e6, "3.2 MB"), (5e9, "5.0 GB")],
)
def test_sizes(count: float, words: str):
    assert size(count) == words


def test_what_comes_from_outside_cannot_steer_the_terminal():
    assert printable("a\x1b[2J\n\u202eb") == "a?[2J??b"
    assert wrapped("x ", "\x1b]0;owned\x07") == "x ?]0;owned?"


def test_long_sentences_hang_under_their_beginning():
    lines = wrapped("1. ", "word " * 40).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line[:3] for line in lines] == ["1. ", "   ", "   "]
    assert max(map(len, wrapped("", "x" * 200).splitlines())) == 80
    assert wrapped("1. ", "") == "1."


def test_moments_are_told_by_their_distance():
    assert ago("2026-11-22T07:00:00.000Z", "2026-11-22T07:00:34.000Z") == "34 s"
    assert ago(None, "2026-11-22T07:00:34.000Z") is None
