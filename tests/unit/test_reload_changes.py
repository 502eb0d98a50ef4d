"""What another configuration changes: by path, never by value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.config import Settings, parse
from relay.errors import SecretUnreadable
from relay.reload import Changes, compare, digests
from relay.secret import Secret

CURRENT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEXT = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
KEY = b"of this process"


def shop(**changes: Any) -> dict[str, Any]:
    return {"name": "shop", "url": "https://shop.example.com/hooks/k3y", "secrets": [CURRENT], **changes}


def written(*targets: dict[str, Any], upstream: dict[str, Any] | None = None, **sections: Any) -> Settings:
    base = {"websocket_url": "wss://up.example.com/ws", "rest_url": "https://up.example.com", "partner_id": "p"}
    whole = {"upstream": {**base, "secret": "s" * 8, **(upstream or {})}, "targets": list(targets) or [shop()]}
    return parse(yaml.safe_dump(whole | sections).encode(), "config.yaml", environ={})


def changes(before: Settings, after: Settings, read_file: Callable[[str], str] = lambda path: path) -> Changes:
    return compare(digests(before, KEY, read_file), digests(after, KEY, read_file))


def test_the_same_file_changes_nothing():
    assert changes(written(), written()) == Changes(())


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"url": "https://shop.example.com/hooks/0ther"}, ["targets.shop.url"]),
        ({"secrets": [NEXT, CURRENT]}, ["targets.shop.secrets"]),
        ({"headers": {"x-key": "value"}}, ["targets.shop.headers"]),
        ({"auth": {"bearer": "b" * 8}}, ["targets.shop.auth"]),
        ({"breaker": {"probe": {"initial": "3s"}}}, ["targets.shop.breaker.probe.initial"]),
        ({"retry": {"schedule": ["1s"]}, "paused": True}, ["targets.shop.paused", "targets.shop.retry.schedule"]),
        ({"timeout": "15s"}, []),
    ],
)
def test_what_differs_is_named_by_the_targets_name(changed: dict[str, Any], paths: list[str]):
    found = changes(written(), written(shop(**changed)))
    assert list(found.paths) == paths
    assert not found.refusals
    assert not found.renews_upstream


def test_targets_come_and_go_as_one_path_each_and_their_order_means_nothing():
    two, three = [shop(name=name) for name in ("a", "b")], [shop(name=name) for name in ("c", "b", "a")]
    found = changes(written(*two), written(*three))
    assert found == Changes(("targets.c",), added=frozenset({"c"}))
    assert changes(written(*three), written(*two)) == Changes(("targets.c",), removed=frozenset({"c"}))
    assert not changes(written(*two), written(*reversed(two))).paths


def test_values_of_default_sections_reach_every_target():
    found = changes(written(), written(defaults={"timeout": "3s"}))
    assert found.paths == ("targets.shop.timeout",)


def test_a_rotated_file_counts_though_its_path_is_the_same():
    """`reveal` reads anew, so what was there before has to be remembered as a digest."""
    content = [CURRENT]
    before = written()
    one = before.targets[0].model_copy(update={"secrets": (Secret(lambda: content[0], "file /run/s"),)})
    settings = before.model_copy(update={"targets": (one,)})
    held = digests(settings, KEY, str)
    content[0] = NEXT
    assert compare(held, digests(settings, KEY, str)).paths == ("targets.shop.secrets",)


def test_a_secret_that_moves_to_a_file_counts_though_it_is_the_same():
    """The old file may be removed as soon as the reload is done."""
    before = written()
    moved = before.targets[0].model_copy(update={"secrets": (Secret(lambda: CURRENT, "file /run/s"),)})
    assert changes(before, before.model_copy(update={"targets": (moved,)})).paths == ("targets.shop.secrets",)


def test_an_unreadable_secret_is_compared_as_such():
    def gone() -> str:
        raise SecretUnreadable("gone")

    before = written()
    one = before.targets[0].model_copy(update={"secrets": (Secret(gone, "file /run/s"),)})
    settings = before.model_copy(update={"targets": (one,)})
    assert not changes(settings, settings).paths
    assert changes(settings, before).paths == ("targets.shop.secrets",)


def test_another_certificate_in_the_same_file_counts():
    settings = written(shop(tls={"ca_file": "/etc/ca.pem"}))
    before, after = (digests(settings, KEY, lambda _path, said=said: said) for said in ("old", "new"))
    found = compare(before, after)
    assert found.paths == ("targets.shop.tls.ca_file",)
    assert found.needs_client("shop")


@pytest.mark.parametrize(
    ("changed", "needed"),
    [
        ({"url": "https://b.example.com/"}, True),
        ({"secrets": [NEXT]}, True),
        ({"timeout": "3s"}, True),
        ({"format": "raw"}, True),
        ({"proxy": "http://proxy.example.com"}, True),
        ({"concurrency": 3}, False),
        ({"events": ["order.finished"]}, False),
        ({"ordering": "none"}, False),
    ],
)
def test_a_client_is_made_anew_only_for_what_it_is_made_of(changed: dict[str, Any], needed: bool):
    twin = shop(name="shop-2")
    found = changes(written(shop(), twin), written(shop(**changed), twin))
    assert found.needs_client("shop") is needed
    assert not found.needs_client("shop-2")


def test_a_new_target_needs_a_client():
    assert changes(written(), written(shop(), shop(name="new"))).needs_client("new")


@pytest.mark.parametrize(
    ("upstream", "renewing"),
    [
        ({"orders": ["a", "b"]}, []),
        ({"backfill": {"interval": "1m", "page_size": 7, "requests_per_minute": 3}}, []),
        ({"rest_headers": {"x-via": "here"}}, []),
        ({"secret": "t" * 8}, ["upstream.secret"]),
        ({"heartbeat": {"interval": "20s"}, "orders": ["a"]}, ["upstream.heartbeat.interval"]),
        ({"auth_retry": "1m"}, ["upstream.auth_retry"]),
        ({"websocket_url": "wss://b.example.com/ws"}, ["upstream.websocket_url"]),
    ],
)
def test_what_of_the_upstream_needs_another_connection(upstream: dict[str, Any], renewing: list[str]):
    found = changes(written(), written(upstream=upstream))
    assert found.paths
    assert list(found.renews_upstream) == renewing
    assert not found.refusals


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"store": {"url": "sqlite:///other.db"}}, "store.url"),
        ({"admin": {"listen": "127.0.0.1:1"}}, "admin.listen"),
        ({"admin": {"listen": None}}, "admin.listen"),
        ({"upstream": {"partner_id": "q"}}, "upstream.partner_id"),
    ],
)
def test_what_cannot_change_while_it_runs_says_that_a_restart_is_needed(changed: dict[str, Any], path: str):
    (sentence,) = changes(written(), written(**changed)).refusals
    assert sentence.startswith(f"{path}: ")
    assert "restart" in sentence


@pytest.mark.parametrize(
    "changed",
    [
        {"store": {"retention": "9d"}},
        {"log": {"level": "debug"}},
        {"log": {"format": "json"}},
        {"admin": {"token": "t" * 20, "allowed_hosts": ["relay.example.com"]}},
    ],
)
def test_what_changes_in_place(changed: dict[str, Any]):
    found = changes(written(), written(**changed))
    assert found.paths
    assert not found.refusals


def test_what_matters_on_the_first_start_only_is_said():
    found = changes(written(), written(upstream={"backfill": {"first_start": "emit"}}))
    assert found.paths == ("upstream.backfill.first_start",)
    assert "first start only" in found.notes[0]
    assert not changes(written(), written(log={"level": "debug"})).notes


def test_digests_show_nothing_without_the_key():
    held = digests(written(), KEY, str)
    assert CURRENT not in repr(held)
    assert held != digests(written(), b"of another process", str)


def stored(tmp_path: Path, url: str) -> Settings:
    (tmp_path / "url").write_text(url)
    return written(store={"url": {"file": str(tmp_path / "url")}})


def test_another_password_of_the_database_in_its_file_is_no_change_but_another_database_is(tmp_path: Path):
    before = digests(stored(tmp_path, "postgresql://relay:old@db/relay"), KEY, lambda path: path)
    rotated = digests(stored(tmp_path, "postgresql://relay:new@db/relay"), KEY, lambda path: path)
    moved = digests(stored(tmp_path, "postgresql://relay:new@other/relay"), KEY, lambda path: path)
    assert compare(before, rotated) == Changes(())
    assert compare(before, moved).refusals
    inline = [written(store={"url": f"postgresql://relay:{one}@db/relay"}) for one in ("old", "new")]
    assert changes(*inline).refusals, "nothing would take it before a restart"
