"""What the dashboard and the API show of several instances: who leads, who follows, who delivers what."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from admin_kit import AdminRoom, served
from browser_kit import Browser

from relay.board import UpstreamState
from relay.store.values import Instance, LiveInstance


def follow(room: AdminRoom, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """The room's instance follows one on that host."""
    now_ms = room.clock.wall_ms()
    both = [
        LiveInstance(Instance("leader-0123456789", host, now_ms - 120_000), now_ms, 7, {"alpha": 3, "beta": 1}),
        LiveInstance(Instance("me-0123456789", "here", now_ms - 60_000), now_ms, None, {}),
    ]

    async def instances() -> Sequence[LiveInstance]:
        return both

    monkeypatch.setattr(room.store, "instances", instances)
    lead = room.board.lead
    lead.shared, lead.instance, lead.leader, lead.instances = True, "me-0123456789", host, 2
    room.board.upstream.state, room.board.upstream.in_sync = UpstreamState.FOLLOWING, False


async def test_the_overview_says_who_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with served(tmp_path) as room, Browser(room) as browser:
        await browser.sign_in()
        assert "Instances" not in (await browser.get("/")).text  # nobody to tell of
        follow(room, monkeypatch, "host-b<i>")
        page = (await browser.get("/")).text
        assert "host-b&lt;i&gt;" in page
        assert "host-b<i>" not in page
        for said in ("epoch 7", "follows", "this one", "alpha: 3, beta: 1", "the leader sees to that"):
            assert said in page, said
        assert "Everything is delivered" in page


async def test_a_follower_of_nobody_is_wrong_on_the_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with served(tmp_path) as room, Browser(room) as browser:
        await browser.sign_in()
        follow(room, monkeypatch, "host-b")
        room.board.lead.leader = None
        assert "no instance holds the connection" in (await browser.get("/")).text
