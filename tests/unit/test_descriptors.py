import resource

import pytest

from relay.descriptors import RESERVE, raise_limit, shortage


@pytest.mark.parametrize(("limit", "attempts", "missing"), [
    (None, 10**6, 0), (1024, 1024 - RESERVE, 0), (1024, 1025 - RESERVE, 1), (1024, 16_000, 16_000 + RESERVE - 1024),
])  # fmt: skip
def test_what_is_missing(limit: int | None, attempts: int, missing: int):
    assert shortage(limit, attempts) == missing


def test_the_soft_limit_becomes_the_hard_one(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: asked.append(limits))
    assert raise_limit() == 4096
    assert asked == [(4096, 4096)]


def test_what_is_not_granted_stays(monkeypatch: pytest.MonkeyPatch):
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 1024


def test_no_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, _limits: None)
    assert raise_limit() is None
