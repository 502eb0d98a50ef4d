"""The composition root, where a whole process would be too much for the question."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay import descriptors
from relay.admin.app import Admin
from relay.config import parse
from relay.daemon import Daemon, Exit
from relay.errors import SecretUnreadable, StoreError
from relay.store.sqlite import SqliteStore

CONFIG = """\
upstream: {{websocket_url: "ws://127.0.0.1:9/", rest_url: "http://127.0.0.1:9/", partner_id: p, secret: s}}
store: {{url: "sqlite:///{store}"}}
targets: [{{name: t, url: "http://127.0.0.1:9/", secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]}}]
admin: {{listen: "127.0.0.1:0"}}
"""


async def test_a_store_that_fails_while_rooms_are_built_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not 1: the operator must be sent to the store, whenever it is that it fails."""

    async def fail(_admin: Admin) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(Admin, "start", fail)
    settings = parse(CONFIG.format(store=tmp_path / "relay.db").encode(), "c.yaml", environ={})
    assert await Daemon(settings, "test").run() == Exit.STORE


async def test_the_store_is_told_how_each_target_is_reached_paused_and_ordered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[Any] = []

    async def opened(_store: SqliteStore, entries: Any) -> None:
        told.extend(entries)
        raise StoreError("enough")

    monkeypatch.setattr(SqliteStore, "open", opened)
    text = CONFIG.format(store=tmp_path / "relay.db").replace("secrets:", "ordering: none, paused: true, secrets:")
    assert await Daemon(parse(text.encode(), "c.yaml", environ={}), "test").run() == Exit.STORE
    (one,) = told
    assert (one.name, one.ordering.value, one.paused, len(one.reach)) == ("t", "none", True, 64)


async def test_a_secret_that_has_become_unreadable_does_not_keep_it_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unreadable(_target: Any) -> str:
        raise SecretUnreadable("file /gone cannot be read")

    async def fail(_admin: Admin) -> None:
        raise StoreError("enough")

    monkeypatch.setattr("relay.candidate.reach_digest", unreadable)
    monkeypatch.setattr(Admin, "start", fail)
    settings = parse(CONFIG.format(store=tmp_path / "relay.db").encode(), "c.yaml", environ={})
    with capture_logs() as logs:
        assert await Daemon(settings, "test").run() == Exit.STORE
    assert [line["event"] for line in logs].count("secret_unreadable") == 1


@pytest.mark.parametrize(("limit", "said"), [(descriptors.RESERVE + 15, 1), (descriptors.RESERVE + 16, 0), (None, 0)])
async def test_too_few_open_files_for_all_targets_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, said: int
):
    """Failure mode 117."""

    async def fail(_admin: Admin) -> None:
        raise StoreError("enough")

    monkeypatch.setattr(Admin, "start", fail)
    monkeypatch.setattr(descriptors, "raise_limit", lambda: limit)
    settings = parse(CONFIG.format(store=tmp_path / "relay.db").encode(), "c.yaml", environ={})
    with capture_logs() as logs:
        await Daemon(settings, "test").run()
    lines = [line for line in logs if line["event"] == "file_limit_low"]
    assert len(lines) == said
    assert all("raise the limit of open files by 1 " in line["advice"] for line in lines)
