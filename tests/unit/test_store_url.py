"""`store.url`: which are good, how they are shown, and that no password gets out, however it was written."""

import copy
import pickle

import pytest

from relay.config.store_url import StoreUrl, passwords, shown_store_url, store_url_fault
from relay.errors import SecretUnreadable

GOOD = {
    "sqlite:///relay.db": "sqlite:///relay.db",
    "sqlite:////var/lib/relay.db": "sqlite:////var/lib/relay.db",
    "postgresql://": "postgresql://",
    "postgresql:///relay": "postgresql:///relay",
    "postgresql://relay@db.example.com/relay": "postgresql://relay@db.example.com/relay",
    "postgresql://relay:pa55word@db:5432/relay?sslmode=verify-full": "postgresql://relay@db:5432/relay",
    "postgresql://relay:p%40%2F%23w@[::1]:5432/relay": "postgresql://relay@[::1]:5432/relay",
    "postgresql://relay:pa55word@one:1,two:2/relay": "postgresql://relay@one:1,two:2/relay",
    "postgresql:///relay?host=/run/postgresql&user=relay&password=pa55word": "postgresql:///relay",
    "postgresql://relay:pa@word@db/relay": "postgresql://relay@db/relay",
}
BAD = [
    "relay.db",
    "postgres://relay@db/relay",
    "sqlite://relay.db",
    "postgresql://relay:pa55word/x@db/relay",
    "postgresql://relay:pa55word?x@db/relay",
    "postgresql://relay:pa55word#x@db/relay",
    "postgresql://relay:pa55word[x@db/relay",
    "postgresql://relay:pa55word x@db/relay",
    "postgresql://relay:pa55word\n@db/relay",
    "postgresql://relay@db:pa55word/relay",
    "postgresql://db:123456/relay",
]


@pytest.mark.parametrize(("url", "shown"), GOOD.items())
def test_good_ones_and_how_they_are_shown(url: str, shown: str) -> None:
    assert store_url_fault(url) is None
    assert shown_store_url(url) == shown
    assert str(StoreUrl.of(url)) == shown


@pytest.mark.parametrize("url", BAD)
def test_bad_ones_are_refused_and_show_nothing(url: str) -> None:
    fault = store_url_fault(url)
    assert fault
    assert "pa55word" not in fault
    if url.startswith("postgresql:"):
        assert shown_store_url(url) == "postgresql://(unreadable)"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite:///relay.db", set()),
        ("postgresql://relay@db/relay", {""}),
        ("postgresql://relay:p%40ss+word@db/relay", {"p%40ss+word", "p@ss+word", "p@ss word"}),
        ("postgresql:///relay?user=relay&password=pa%2Bss&sslpassword=key", {"", "pa%2Bss", "pa+ss", "key"}),
    ],
)
def test_what_of_it_logs_must_never_show(url: str, found: set[str]) -> None:
    assert {one.reveal() for one in passwords(StoreUrl.of(url))} == found


def test_it_is_read_once_for_what_it_means_and_anew_for_its_password() -> None:
    texts = iter(["postgresql://relay:old@db/relay", "postgresql://relay:new@db/relay"])
    url = StoreUrl(lambda: next(texts), "file x")
    assert url.known == url.known == "postgresql://relay:old@db/relay"
    assert url.reveal() == "postgresql://relay:new@db/relay"
    assert (repr(url), copy.deepcopy(url)) == ("Secret(file x)", url)
    with pytest.raises(TypeError):
        pickle.dumps(url)


def test_one_that_cannot_be_read_says_why_when_it_is_used() -> None:
    def read() -> str:
        raise SecretUnreadable("no such thing")

    url = StoreUrl(read)
    assert str(url) == "[unreadable]"
    assert list(passwords(url)) == []
    with pytest.raises(SecretUnreadable, match="no such thing"):
        _ = url.known
