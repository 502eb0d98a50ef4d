"""`deliveries`, `events`, `orders`, `targets` and `replay` as they are typed, with the relay and without it."""

import json
import re
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from admin_kit import AdminRoom, served
from cli_kit import Terminal
from msgspec.structs import replace
from structlog.testing import capture_logs
from support.factories import event, failed_attempt
from support.stores import again, dead, delivered

from relay.model import Attempt, Event, FailureKind, Outcome
from relay.simulator.child import free_port
from relay.standing import Breaker

FAR = 10**14

ORDER = "h9NpKm75gRnX7GWaFATwYn"
WEBHOOK_ID = "evt_" + "0123456789abcdef" * 2
HOSTILE = b"\x1b]0;owned\x07<b>\x00\xff\x9b2J " + b"A" * 2**20


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    with capture_logs():  # the relay's own lines, which would go where the command prints
        async with served(tmp_path) as room:
            yield Terminal(room, tmp_path / "config.yaml")


async def some_life(room: AdminRoom) -> None:
    """Three minutes ago: alpha refused it (1), beta has it (2); just now a second event (3, 4)."""
    now_ms = room.clock.wall_ms()
    first = event(ORDER, 2, webhook_id=WEBHOOK_ID, at_ms=now_ms - 200_000)
    await room.bench.add(first, now_ms=now_ms - 200_000)
    (head,) = await room.bench.claim("alpha", now_ms=now_ms)
    said = replace(failed_attempt(now_ms - 190_000), response_body=HOSTILE, error="\x1b[2J")
    await room.bench.settle(replace(dead(head), attempt=said), now_ms=now_ms - 180_000)
    (head,) = await room.bench.claim("beta", now_ms=now_ms)
    await room.bench.settle(delivered(head), now_ms=now_ms - 180_000)
    await room.bench.add(event(ORDER, 4, sequence=2, at_ms=now_ms), now_ms=now_ms)


async def stop(terminal: Terminal) -> None:
    """The relay has ended; its configuration names a port where nobody listens."""
    await terminal.room.admin.stop()
    await terminal.room.store.close()
    terminal.configure(f'"127.0.0.1:{free_port()}"')


async def test_deliveries_list(terminal: Terminal):
    assert (await terminal.type("deliveries", "list"))[:2] == (0, "No deliveries.\n")
    await some_life(terminal.room)
    code, out, err = await terminal.type("deliveries", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["id", "status,", "event", "target", "order,", "attempts", "made"]
    assert lines[-2].split(maxsplit=4) == ["1", "dead", "(exhausted)", "alpha", f"{ORDER}  3 min ago"]
    assert lines[-1].split(maxsplit=1) == ["order.exchanging", "1 attempt, last 500"]
    assert lines[2].split() == ["order.finished"], "not attempted yet"
    assert [line.split()[0] for line in lines[1::2]] == ["4", "3", "2", "1"]
    _, out, err = await terminal.type("deliveries", "list", "--limit", "3")
    assert (len(out.splitlines()), "add --cursor" in err) == (7, True)
    _, out, _ = await terminal.type("deliveries", "list", "--cursor", err.split()[-1])
    assert out.splitlines()[1].split()[0] == "1"
    assert (
        len((await terminal.type("deliveries", "list", "--status", "dead", "--target", "alpha"))[1].splitlines()) == 3
    )


async def test_lists_as_json_over_many_pages(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relay.cli.looking.MOST", 2)
    for number in range(4):
        await terminal.room.bench.add(event(f"order-{number}", 4))
    code, out, err = await terminal.type("deliveries", "list", "--json", "--limit", "7", "--since", "1970-01-01")
    document = json.loads(out)
    assert (code, err, [one["id"] for one in document["items"]]) == (0, "", list(range(8, 1, -1)))
    assert document["next"] is not None
    _, out, _ = await terminal.type("events", "list", "--json", "--limit", "9")
    assert ([one["order"] for one in json.loads(out)["items"]], json.loads(out)["next"]) == (
        ["order-3", "order-2", "order-1", "order-0"],
        None,
    )


async def test_deliveries_show(terminal: Terminal):
    await some_life(terminal.room)
    code, out, err = await terminal.type("deliveries", "show", "1")
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    assert out.splitlines()[0] == "delivery 1: dead (exhausted)"
    assert f"event order.exchanging, {WEBHOOK_ID}" in flat
    assert " UTC (3 min ago) attempts 1" in flat
    assert "1 retry, 500, 12 ms;" in flat
    assert "\\x1b]0;owned\\x07<b>\\x00\\xff\\x9b2J" in flat
    assert len(out) < 3_000, "a screen is no place for a megabyte"
    _, out, _ = await terminal.type("deliveries", "show", "1", "--json")
    assert len(json.loads(out)["attempts"][0]["response_body"]) > 2**20
    assert (await terminal.type("deliveries", "show", "99"))[::2] == (
        2,
        "houdini-relay: there is no delivery of this id here\n",
    )
    assert (await terminal.type("deliveries", "show", "../status"))[0] == 2


async def test_what_a_delivery_waits_for_is_its_target_where_that_is_not_sent_to(terminal: Terminal):
    room = terminal.room
    await some_life(room)
    (head,) = await room.bench.claim("beta", now_ms=room.clock.wall_ms() + 1)
    opened: dict[str, Any] = {"breaker": Breaker.OPEN, "probe_due_ms": room.clock.wall_ms() + 90_500}
    await room.bench.settle(again(head, 1), judge=lambda standing, _: replace(standing, **opened))
    flat = " ".join((await terminal.type("deliveries", "show", "4"))[1].split())
    assert re.search(
        r"waits for its target's breaker, next probe \d{4}-\S+ \S+ UTC \(in \d+ (s|min)( \d+ s)?\)", flat
    ), flat
    assert " due " not in flat
    flat = " ".join((await terminal.type("orders", "show", ORDER))[1].split())
    assert "- beta: pending, waits for its target's breaker, next probe" in flat
    await room.store.pause("beta", room.clock.wall_ms())
    flat = " ".join((await terminal.type("deliveries", "show", "4"))[1].split())
    assert "waits for its target, which is paused attempts" in flat


async def test_events_list_and_show(terminal: Terminal):
    assert (await terminal.type("events", "list"))[:2] == (0, "No events.\n")
    await some_life(terminal.room)
    _, out, _ = await terminal.type("events", "list", "--order", ORDER)
    assert WEBHOOK_ID in out.split()
    assert "1 dead, 1 delivered" in out
    code, out, _ = await terminal.type("events", "show", WEBHOOK_ID)
    flat = " ".join(out.split())
    assert (code, f"event {WEBHOOK_ID}: order.exchanging" in flat) == (0, True)
    assert "status EXCHANGING changed status" in flat
    assert f'"houdiniId": "{ORDER}"' in out
    assert (await terminal.type("events", "show", "evt_nowhere"))[0] == 2
    notice = Event("evt_n", "relay:upstream", "relay.upstream.gap_exceeds_window", 1_000, b'"\xc2\x9b2J"', None)
    await terminal.room.bench.add(notice, targets=[])
    assert "no target" in (await terminal.type("events", "list"))[1]
    assert (await terminal.type("events", "show", "evt_n"))[0] == 0


async def test_orders_show(terminal: Terminal):
    await some_life(terminal.room)
    code, out, _ = await terminal.type("orders", "show", ORDER)
    flat = " ".join(out.split())
    assert (code, out.splitlines()[0]) == (0, f"order {ORDER}: FINISHED")
    assert "1. order.exchanging (EXCHANGING), changed: status" in flat
    assert "- alpha: dead (exhausted) (delivery 1) 1 retry, 500, 12 ms;" in flat
    assert "2. order.finished (FINISHED)" in flat
    assert re.search(r"- beta: pending, due \d+ s ago \(delivery 4\)", flat)
    assert json.loads((await terminal.type("orders", "show", ORDER, "--json"))[1])["life"][0]["id"] == WEBHOOK_ID
    assert (await terminal.type("orders", "show", "nobody's/order?x"))[::2] == (
        2,
        "houdini-relay: there is no order of this id here\n",
    )


async def test_targets_list(terminal: Terminal):
    room = terminal.room
    await some_life(room)
    (head,) = await room.bench.claim("beta", now_ms=room.clock.wall_ms() + 1)
    opened: dict[str, Any] = {"breaker": Breaker.OPEN, "last_error": "connect: refused \x1b[2J", "probe_due_ms": 1}
    opened["ok_ms"] = room.clock.wall_ms() - 7_300_000
    await room.bench.settle(again(head, 1), judge=lambda standing, _: replace(standing, **opened))
    code, out, _ = await terminal.type("targets", "list")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == ["alpha", "active", "closed", "1", "0", "s", "-"]
    assert rows[2] == ["beta", "active", "open", "1", "0", "s", "2", "h", "ago"]
    assert out.splitlines()[3] == "beta: connect: refused \\x1b[2J"
    assert [one["name"] for one in json.loads((await terminal.type("targets", "list", "--json"))[1])["items"]] == [
        "alpha",
        "beta",
    ]


LOOKS = (
    ("deliveries", "list"),
    ("deliveries", "show", "1"),
    ("events", "list"),
    ("events", "show", WEBHOOK_ID),
    ("orders", "show", ORDER),
    ("targets", "list"),
)


@pytest.mark.parametrize("listen", ["port", "null"])
async def test_without_a_relay_the_store_says_the_same(terminal: Terminal, listen: str):
    await some_life(terminal.room)
    terminal.room.targets = terminal.room.targets[:1]
    await terminal.room.bench.configure("alpha")
    over_api = [json.loads((await terminal.type(*look, "--json"))[1]) for look in LOOKS]
    await stop(terminal)
    if listen == "null":
        terminal.configure("null")
    before = (terminal.config.parent / "relay.db").read_bytes()
    for look, expected in zip(LOOKS, over_api, strict=True):
        code, out, err = await terminal.type(*look, "--json")
        assert (code, "read from the store" in err) == (0, True)
        document = json.loads(out)
        if look[0] == "targets":
            for one in [*document["items"], *expected["items"]]:
                del one["oldest_age_s"]
                del one["url"]  # the room's own configuration has another
        assert document == expected
    assert (await terminal.type("deliveries", "show", "99"))[0] == 2
    assert (await terminal.type("deliveries", "list", "--since", "never"))[0] == 2
    assert (terminal.config.parent / "relay.db").read_bytes() == before


async def test_a_relay_that_cannot_be_asked_keeps_its_store(terminal: Terminal):
    await some_life(terminal.room)
    terminal.configure("null")
    code, out, err = await terminal.type("deliveries", "list")
    flat = " ".join(err.split())
    assert (code, out, "admin.listen is null" in flat, "is in use by another process" in flat) == (3, "", True, True)
    terminal.configure(f'"127.0.0.1:{terminal.room.admin.port}"', "wrong-token")
    code, out, err = await terminal.type("deliveries", "list")
    assert (code, out, "does not accept the token" in " ".join(err.split())) == (3, "", True)


async def test_a_store_that_is_not_there_or_of_another_version(terminal: Terminal):
    await stop(terminal)
    path = terminal.config.parent / "relay.db"
    content = bytearray(path.read_bytes())
    content[60:64] = (99).to_bytes(4, "big")  # user_version
    path.write_bytes(content)
    code, _, err = await terminal.type("events", "list")
    assert (code, "the store has schema 99" in " ".join(err.split())) == (3, True)
    path.unlink()
    code, _, err = await terminal.type("events", "list")
    assert (code, "there is no such file" in " ".join(err.split())) == (3, True)


async def test_retry_and_cancel(terminal: Terminal):
    await some_life(terminal.room)
    code, out, _ = await terminal.type("deliveries", "retry", "1")
    assert (code, out) == (0, "It had ended, so its event is sent again, as delivery 5.\n")
    code, _, err = await terminal.type("deliveries", "retry", "5")
    assert (code, "delivery 3;" in err) == (1, True)
    assert (await terminal.type("deliveries", "retry", "3"))[:2] == (0, "Delivery 3 is attempted now.\n")
    assert (await terminal.type("deliveries", "cancel", "3"))[:2] == (0, "Delivery 3 is cancelled.\n")
    assert (await terminal.type("deliveries", "cancel", "3"))[0] == 1
    assert json.loads((await terminal.type("deliveries", "cancel", "5", "--json"))[1]) == {
        "delivery": 5,
        "cancelled": True,
    }
    assert (await terminal.type("deliveries", "retry", "99"))[0] == 2
    assert (await terminal.type("deliveries", "retry", "x"))[0] == 2


async def test_replay(terminal: Terminal):
    await some_life(terminal.room)
    assert (await terminal.type("replay", "--target", "alpha", "--dry-run"))[
        1
    ] == "1 event would be sent to alpha again.\n"
    assert (await terminal.type("replay", "--target", "alpha", "--json"))[1] == '{"count": 1}\n'
    assert (await terminal.type("replay", "--target", "alpha"))[1] == "0 events will be sent to alpha again.\n"
    code, out, _ = await terminal.type(
        "replay", "--target", "beta", "--status", "any", "--order", ORDER, "--since", "1h"
    )
    assert (code, out) == (0, "1 event will be sent to beta again.\n")
    assert (await terminal.type("replay", "--target", "nobody"))[0] == 2
    assert (await terminal.type("replay"))[0] == 2


@pytest.mark.parametrize(("typed", "count"), [("y\n", 1), ("n\n", 0)])
async def test_on_a_terminal_replay_asks_first(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, typed: str, count: int
):
    await some_life(terminal.room)
    monkeypatch.setattr(import_module("relay.cli.replay"), "is_terminal", lambda: True)
    code, out, err = await terminal.type("replay", "--target", "alpha", "--json", typed=typed)
    assert (code, json.loads(out), "Send 1 event to alpha again?" in err) == (0, {"count": count}, True)
    assert (await terminal.room.store.backlog())["alpha"].pending == 1 + count
    assert "?" not in (await terminal.type("replay", "--target", "alpha", "--yes"))[2]


async def test_pause_resume_and_test(terminal: Terminal):
    room = terminal.room
    assert (await terminal.type("targets", "pause", "alpha"))[1] == "alpha: paused; its deliveries are kept.\n"
    assert "was paused already" in (await terminal.type("targets", "pause", "alpha"))[1]
    assert (await terminal.type("targets", "resume", "alpha"))[1].startswith("alpha: resumed, it was paused;")
    none = "alpha: was neither parked nor paused, and its breaker is closed.\n"
    assert (await terminal.type("targets", "resume", "alpha"))[1] == none
    await some_life(room)
    (head,) = await room.bench.claim("beta", now_ms=room.clock.wall_ms() + 1)
    opened: dict[str, Any] = {"breaker": Breaker.OPEN, "probe_due_ms": FAR}
    await room.bench.settle(again(head, 1), judge=lambda standing, _: replace(standing, **opened))
    code, out, _ = await terminal.type("targets", "resume", "beta")
    assert (code, out.startswith("beta: only its breaker was open: it is probed now;")) == (0, True)
    assert (await room.store.backlog())["beta"].standing.probe_due_ms != FAR
    code, out, _ = await terminal.type("targets", "test", "alpha")
    assert (code, out.splitlines()[0], "1  ok, 200, 12 ms" in out) == (0, "alpha: it answered", True)
    room.control.answer = Attempt(
        room.clock.wall_ms(), 1.0, Outcome.RETRY, kind=FailureKind.DNS, error="dns: \x1b[2J", response_body=HOSTILE
    )
    code, out, _ = await terminal.type("targets", "test", "alpha")
    assert (code, "did not accept" in out, "no answer" in out, "dns: \\x1b[2J" in out) == (1, True, True, True)
    assert (await terminal.type("targets", "test", "a/../b"))[0] == 2


async def test_forget(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    room = terminal.room
    await room.bench.add_life("order-1", 3)
    assert (await terminal.type("targets", "forget", "beta"))[0] == 1
    room.targets = room.targets[:1]
    await room.bench.configure("alpha")
    monkeypatch.setattr(import_module("relay.cli.targets"), "is_terminal", lambda: True)
    assert (await terminal.type("targets", "forget", "beta", typed="n\n"))[0] == 1
    assert (await room.store.backlog())["beta"].pending == 3
    assert (await terminal.type("targets", "forget", "beta", "--yes"))[1] == "beta: 3 deliveries cancelled.\n"
    assert (await terminal.type("targets", "forget", "beta", "--yes"))[0] == 2
