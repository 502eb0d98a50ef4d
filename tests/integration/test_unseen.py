"""Open orders that sweeps do not show, and watched orders that have ended: real store, scripted REST."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.clock import JumpClock
from support.factories import order_body, snapshot
from support.upstream_real import RealRoom
from support.upstream_script import Http, ScriptedUpstream, order

from relay.upstream import unseen


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


def by_id(upstream: ScriptedUpstream) -> list[str]:
    return [path.rsplit("/", 1)[1] for path in upstream.rest_requests if "?" not in path]


async def open_orders(room: RealRoom) -> list[str]:
    return [one.houdini_id for one in await room.store.open_orders(100)]


async def test_an_order_that_sweeps_do_not_show_is_read_by_id(upstream: ScriptedUpstream, tmp_path: Path):
    """42, 67: and what it shows is an event like any other; terminal ones are not asked for."""
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.see(snapshot("hidden", 1), snapshot("order-1", 1), snapshot("done", 4))
        upstream.orders = [order(1, 1)]
        await room.first_sweep(None)
        upstream.rest_script = [Http(200, body=b'{"houdiniId":"hidden","status":2,"created":"2026-11-20T00:00:00Z"}')]
        await room.backfill.run_once()
        assert by_id(upstream) == ["hidden"]
        await room.intake.join()
        room.clock.move(6)
        room.ingest.return_hints()
        await room.intake.join()
        assert ("hidden", 2, "backfill") in await room.events()


async def test_three_definitive_answers_ten_minutes_apart_age_an_order_out(upstream: ScriptedUpstream, tmp_path: Path):
    """67: told once, no event, never asked for again; it survives a restart in between."""
    clock = JumpClock()
    with capture_logs() as logs:
        async with RealRoom(upstream, tmp_path / "relay.db", clock, interval=300.0) as room:
            await room.see(snapshot("hidden", 1))
            await room.first_sweep(None)
            began = clock.mono()
            await room.pass_time(700)
            assert await open_orders(room) == ["hidden"]
        async with RealRoom(upstream, tmp_path / "relay.db", clock, interval=300.0) as room:
            await room.first_sweep(None)
            while await open_orders(room):
                await room.backfill.run_once()
            assert 1200 <= clock.mono() - began < 2500
            asked = len(by_id(upstream))
            await room.pass_time(3600)
            assert await room.events() == [("hidden", 1, "websocket")]
    assert len(by_id(upstream)) == asked <= 4
    assert [line["order"] for line in logs if line["event"] == "order_aged_out"] == ["hidden"]


@pytest.mark.parametrize("bad", [Http(500), Http(404), Http(404, body=b"<html>"), Http(200), Http(429)])
async def test_failures_never_age_an_order_out(upstream: ScriptedUpstream, tmp_path: Path, bad: Http):
    """67: resolver failures, 500s, gateways' pages: the order stays tracked, and REST is not hammered."""
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.see(snapshot("hidden", 1))
        await room.first_sweep(None)
        room.backfill._trailing_at = None  # a sweep would insist on being answered
        upstream.rest_requests.clear()
        upstream.rest_script = [bad] * 1000
        await room.pass_time(7200)
        assert await open_orders(room) == ["hidden"]
        assert 7200 / 65 - 2 <= len(by_id(upstream)) <= 7200 / 60 + 2


async def test_many_unseen_orders_take_turns(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A bounded number per sweep, the least recently read first."""
    monkeypatch.setattr(unseen, "PER_SWEEP", 4)
    turns = ["o0 o1 o2 o3", "o4 o5 o6 o7", "o8 o9 o0 o1"]
    async with RealRoom(upstream, tmp_path / "relay.db") as room:
        await room.see(*(snapshot(f"o{number}", 1) for number in range(10)))
        await room.backfill.begin(None)
        for turn in turns:
            answers = [Http(200, body=order_body(name, 1)) for name in turn.split()]
            upstream.rest_script = [Http(200, body=b'{"total":0,"orders":[]}'), *answers]
            room.clock.move(10)
            room.backfill.want_sweep("again")
            await room.backfill.run_once()
            while room.backfill._unseen.ready:
                await room.backfill.run_once()
        assert by_id(upstream) == " ".join(turns).split()


async def test_watched_orders_end_and_are_unsubscribed(upstream: ScriptedUpstream, tmp_path: Path):
    """45: terminal for 48 h; what has only aged out is not read any more, but stays subscribed to."""
    clock = JumpClock()
    names = tuple(f"order-{number}" for number in range(6))
    upstream.orders = [order(number, 4 if number < 2 else 1) for number in range(4)]
    told: list[Any] = []
    async with RealRoom(upstream, tmp_path / "relay.db", clock, orders=names, interval=600.0) as room:
        room.backfill.on_watched = told.append
        await room.see(snapshot("order-4", 1), snapshot("order-0", 4), snapshot("order-1", 4))
        await room.first_sweep(None)
        assert told == [frozenset(names)]
        await room.pass_time(3600)
        upstream.rest_requests.clear()
        await room.pass_time(600)
        assert "order-4" not in by_id(upstream)  # it has aged out
        assert told[-1] == frozenset(names)
        clock.move(48 * 3600)
        await room.pass_time(600)
        assert told[-1] == await room.backfill.followed.watched() == frozenset(names) - {"order-0", "order-1"}
        upstream.rest_requests.clear()
        await room.pass_time(600)
        assert set(by_id(upstream)) == {"order-2", "order-3", "order-5"}
        assert [entry for entry in await room.events() if entry[0] == "order-4"] == [("order-4", 1, "websocket")]


async def test_an_order_that_has_aged_out_keeps_its_subscription_until_it_ends(
    upstream: ScriptedUpstream, tmp_path: Path
):
    """REST shows 48 h; an order that stays open for longer would otherwise never be seen to finish."""
    clock = JumpClock()
    async with RealRoom(upstream, tmp_path / "relay.db", clock, orders=("slow",), interval=600.0) as room:
        await room.see(snapshot("slow", 1))
        await room.first_sweep(None)
        await room.pass_time(3600)
        assert await room.store.aged_out_orders(["slow"]) == {"slow"}
        clock.move(72 * 3600)
        assert await room.backfill.followed.watched() == {"slow"}
        await room.see(snapshot("slow", 4))
        assert await room.backfill.followed.watched() == {"slow"}
        clock.move(48 * 3600)
        assert await room.backfill.followed.watched() == frozenset()


async def test_sweeps_change_their_pace_and_pages_in_place(upstream: ScriptedUpstream, tmp_path: Path):
    """A reload of `backfill`: no new connection, nothing out of sync."""
    async with RealRoom(upstream, tmp_path / "relay.db", JumpClock(), interval=3600.0) as room:
        await room.first_sweep(None)
        await room.pass_time(100)
        upstream.rest_requests.clear()
        faster = room.config.backfill.model_copy(update={"interval": 60.0, "page_size": 7})
        room.backfill.reconfigure(room.config.model_copy(update={"backfill": faster}))
        assert room.backfill.in_sync_at is not None
        await room.pass_time(65)
        assert len(upstream.rest_requests) == 1
        assert "pageSize=7" in upstream.rest_requests[0]
        never = faster.model_copy(update={"interval": 0.0})
        room.backfill.reconfigure(room.config.model_copy(update={"backfill": never}))
        await room.pass_time(3600)
        assert len(upstream.rest_requests) == 1


async def test_orders_that_change_while_the_store_is_asked_are_those_of_the_answer(
    upstream: ScriptedUpstream, tmp_path: Path
):
    """A connection that begins with the old list, after `all` was asked for, would miss every other order."""
    async with RealRoom(upstream, tmp_path / "relay.db", JumpClock(), orders=("a",)) as room:
        ask = room.store.ended_orders

        async def change_meanwhile(*asked: Any) -> set[str]:
            room.backfill.reconfigure(room.config.model_copy(update={"orders": orders}))
            return await ask(*asked)

        room.store.ended_orders = change_meanwhile
        orders: Any = ("b", "c")
        assert await room.backfill.followed.watched() == {"b", "c"}
        orders = "all"
        assert await room.backfill.followed.watched() is None
