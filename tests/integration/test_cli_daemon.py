"""`status`, `backfill` and `audit` as they are typed, against a served admin room."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from admin_kit import AdminRoom, served
from cli_kit import Terminal
from msgspec.structs import replace
from structlog.testing import capture_logs
from support.factories import event
from support.stores import again, dead, delivered

from relay.admin import audit as audit_module
from relay.board import TargetBoard, UpstreamState
from relay.errors import UpstreamError
from relay.simulator.child import free_port


@pytest.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    with capture_logs():  # the relay's own lines, which would go where the command prints
        async with served(tmp_path) as room:
            yield Terminal(room, tmp_path / "config.yaml")


async def fail(room: AdminRoom, target: str, error: str) -> None:
    """The one delivery of a target fails and waits; its target remembers why."""
    (head,) = await room.bench.claim(target, now_ms=room.clock.wall_ms())
    later = again(head, due_ms=room.clock.wall_ms() + 60_000)
    await room.bench.settle(later, judge=lambda standing, _: replace(standing, last_error=error))


async def test_status_fine(terminal: Terminal):
    room = terminal.room
    room.board.upstream.last_message_ms = room.clock.wall_ms()
    await room.bench.add(event("order-1", 4), now_ms=room.clock.wall_ms() - 60_000, targets=["alpha"])
    claimed = await room.bench.claim("alpha", now_ms=room.clock.wall_ms())
    answered = {"ok_ms": room.clock.wall_ms()}
    await room.bench.settle(*map(delivered, claimed), judge=lambda standing, _: replace(standing, **answered))
    code, out, err = await terminal.type("status")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "houdini-relay 1.2.3: fine"
    assert re.search(r"^upstream  subscribed for \d+ s \(connection 1\), in sync", out, re.M)
    assert "gaps      none" in out
    assert re.search(r"^target    alpha \(active\): 0 waiting; last success \d+ s ago", out, re.M)
    assert "target    beta (active): 0 waiting; no success yet" in out


async def test_status_upstream_down_with_an_open_gap(terminal: Terminal):
    room = terminal.room
    upstream = room.board.upstream
    upstream.state, upstream.first_sweep_done, upstream.in_sync = UpstreamState.WAITING, False, False
    upstream.last_error = "the connection broke: [Errno 104] Connection reset by peer while reading a frame"
    await room.store.begin_gap(room.clock.wall_ms() - 34_000, upstream.last_error)
    code, out, _ = await terminal.type("status")
    assert code == 1
    assert out.splitlines()[0] == "houdini-relay 1.2.3: 1 thing is wrong"
    assert "1. upstream: no subscription: the connection broke" in out
    assert "   -> it retries" in out
    assert "not in sync yet: no subscription" in out
    assert "UTC, open for 34 s: the connection broke" in out
    assert "a sweep follows the next subscription" in " ".join(out.split())


async def test_status_credentials_refused(terminal: Terminal):
    terminal.room.board.upstream.state = UpstreamState.AUTH_FAILED
    terminal.room.board.upstream.last_error = "the upstream refused the credentials (4401)"
    code, out, _ = await terminal.type("status")
    assert code == 1
    assert "1. upstream: the credentials are refused: the upstream refused" in out
    assert "-> correct upstream.partner_id and upstream.secret" in out


async def test_status_a_target_failing_and_past_gaps(terminal: Terminal):
    room = terminal.room
    await room.bench.add(event("order-1", 4), now_ms=room.clock.wall_ms() - 65_000, targets=["beta"])
    room.board.targets["beta"] = TargetBoard(in_flight=1, last_started=room.clock.mono())
    await fail(room, "beta", "timeout: no answer within 15 s")
    long_ago_ms = room.clock.wall_ms() - 7_200_000
    await room.bench.add(event("order-2", 4), now_ms=long_ago_ms, targets=["beta"])
    await room.bench.settle(*[dead(one) for one in await room.bench.claim("beta", now_ms=long_ago_ms)])
    for number in range(7):
        await room.store.begin_gap(number * 100_000, "closed by the upstream (1012)")
        await room.store.end_gap(number * 100_000 + 125_000)
    await room.store.close_gaps(1_000_000, "first sweep of connection 2")
    code, out, _ = await terminal.type("status")
    assert code == 1
    flat = " ".join(out.split())
    assert "1. target beta: the last attempt failed: timeout: no answer within 15 s; 1 waiting" in flat
    assert "-> see that its URL answers 2xx" in flat
    assert "https://shop.example.com/hooks/[redacted]" in flat
    assert "target beta (active): 1 waiting, the oldest for 1 min 5 s, 1 in flight" in flat
    assert "1970-01-01 00:10:00 UTC, 2 min 5 s: closed by the upstream (1012); covered by a sweep" in flat
    assert "and 2 older; --json shows them" in flat
    assert "note target beta: 1 delivery ended dead and was not sent again since" in flat


async def test_status_as_json(terminal: Terminal):
    code, out, err = await terminal.type("status", "--json")
    assert (code, err, json.loads(out)["fine"]) == (0, "", True)
    terminal.room.board.stopping = True
    code, out, _ = await terminal.type("status", "--json")
    assert (code, json.loads(out)["problems"][0]["subject"]) == (1, "relay")


async def test_what_the_relay_says_cannot_steer_the_terminal(terminal: Terminal):
    await terminal.room.bench.add(event("order-1", 4), now_ms=terminal.room.clock.wall_ms() - 1_000)
    await fail(terminal.room, "alpha", "\x1b]0;owned\x07 \x9b2J")
    _, out, _ = await terminal.type("status")
    assert "owned" in out
    assert not any(char in out for char in "\x1b\x07\x9b")


@pytest.mark.parametrize("command", ["status", "backfill", "audit"])
async def test_a_relay_that_cannot_be_asked_exits_with_3(terminal: Terminal, command: str):
    terminal.configure("null")
    code, out, err = await terminal.type(command)
    assert (code, out, "admin.listen is null" in err) == (3, "", True)
    terminal.configure(f'"127.0.0.1:{free_port()}"')
    code, out, err = await terminal.type(command)
    assert (code, out, "(Connection refused): is `houdini-relay run` running" in " ".join(err.split())) == (3, "", True)
    terminal.configure(f'"127.0.0.1:{terminal.room.admin.port}"', "wrong-token")
    code, out, err = await terminal.type(command)
    assert (code, out, "does not accept the token" in " ".join(err.split())) == (3, "", True)


async def test_backfill(terminal: Terminal):
    assert (await terminal.type("backfill"))[:2] == (0, "A sweep is requested; it begins within seconds.\n")
    assert json.loads((await terminal.type("backfill", "--json"))[1]) == {"requested": True}
    assert terminal.room.sweeps == ["asked for"] * 2


async def test_backfill_that_waits_sees_a_whole_sweep_end(terminal: Terminal):
    """The first to end may have begun before it was asked for."""
    room = terminal.room
    ended: list[str] = []

    async def sweep(reason: str) -> None:
        ended.append(reason)
        room.metrics.sweeps.labels("ok" if len(ended) == 1 else "incomplete").inc()

    object.__setattr__(room.admin._context, "want_sweep", sweep)
    code, out, _ = await terminal.type("backfill", "--wait", "--json")
    assert (code, json.loads(out), len(ended)) == (1, {"requested": True, "ended": "incomplete"}, 2)


async def test_backfill_that_waits_cannot_at_an_instance_that_follows(terminal: Terminal):
    board = terminal.room.board
    board.lead.shared, board.lead.leader, board.upstream.state = True, "host-b", UpstreamState.FOLLOWING
    assert (await terminal.type("backfill"))[0] == 0
    code, out, err = await terminal.type("backfill", "--wait")
    assert (code, out, "does not hold the upstream connection" in " ".join(err.split())) == (2, "", True)


async def test_audit_clean(terminal: Terminal):
    code, out, err = await terminal.type("audit")
    assert (code, out) == (0, "0 orders made in the last 24h compared: no difference.\n")
    assert "looked at again after a minute" in " ".join(err.split())


async def a_difference(room: AdminRoom, settle: Any = dead) -> None:
    room.source.show("order-" + "x" * 40, 4, room.clock.wall_ms() - 36 * 3_600_000)
    await room.bench.add(event("order-" + "x" * 40, 4))
    for name in ("alpha", "beta"):
        await room.bench.settle(*map(settle, await room.bench.claim(name)))


async def test_audit_names_every_difference_and_repairs_it(terminal: Terminal):
    await a_difference(terminal.room)
    code, out, _ = await terminal.type("audit", "--since", "24h")
    assert code == 0, "made before the window that was asked for"
    code, out, _ = await terminal.type("audit", "--since", "2d", "--target", "beta")
    flat = " ".join(out.split())
    assert code == 1
    assert "target beta never acknowledged FINISHED: event 1 (order.finished) ended dead: exhausted" in flat
    assert "1 order made in the last 2d compared: 1 difference." in flat
    assert "`houdini-relay audit --repair --since 2d --target beta` delivers what is missing" in flat
    code, out, _ = await terminal.type("audit", "--since", "48h", "--repair")
    assert (code, "2 differences, 2 repaired" in out) == (0, True)
    for name in ("alpha", "beta"):
        await terminal.room.bench.settle(
            *map(delivered, await terminal.room.bench.claim(name, now_ms=terminal.room.clock.wall_ms()))
        )
    assert (await terminal.type("audit", "--since", "48h"))[0] == 0


async def test_an_audit_while_a_target_is_down_is_short(terminal: Terminal):
    """What waits is a line for each target, and what to do about the rest is still said."""
    room = terminal.room
    for number in range(30):
        room.source.show(f"o{number}", 4, room.clock.wall_ms() - 3_600_000)
        await room.bench.add(event(f"o{number}", 4))
    await room.bench.settle(*map(delivered, await room.bench.claim("beta")))
    (head, *_) = await room.bench.claim("alpha")
    await room.bench.settle(dead(head))
    code, out, _ = await terminal.type("audit", "--since", "2h")
    flat = " ".join(out.split())
    assert (code, len(out.splitlines()) < 15) == (1, True)
    assert "target alpha has not acknowledged 29 events of 29 orders yet" in flat
    assert "`houdini-relay audit --repair --since 2h` delivers what is missing" in flat
    assert "what waits is attempted by schedule" in flat


async def test_an_audit_names_so_many_and_counts_the_rest(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relay.cli.audit.MOST_NAMED", 2)
    room = terminal.room
    for number in range(3):
        room.source.show(f"o{number}", 4, room.clock.wall_ms() - 3_600_000)
        await room.bench.add(event(f"o{number}", 4), targets=["alpha"])
    await room.bench.settle(*map(dead, await room.bench.claim("alpha")))
    _, out, _ = await terminal.type("audit", "--target", "alpha")
    assert (out.count("never acknowledged"), "... and 1 more; --json names all of them" in out) == (2, True)
    assert "3 differences." in " ".join(out.split())


async def test_an_audit_that_stopped_early_is_not_clean(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit_module, "MOST_DIFFERENCES", 1)
    await a_difference(terminal.room)
    code, out, _ = await terminal.type("audit", "--since", "48h", "--target", "alpha", "--repair")
    assert (code, "1 difference, 1 repaired" in out, "There may be more" in out) == (1, True, True)


async def test_audit_as_json(terminal: Terminal):
    await a_difference(terminal.room)
    code, out, err = await terminal.type("audit", "--json", "--since", "48h")
    report = json.loads(out)
    assert (code, err, report["compared"]) == (1, "", 1)
    assert report["differences"][0] == {
        "order": "order-" + "x" * 40,
        "target": "alpha",
        "kind": "dead",
        "upstream": "FINISHED",
        "known": "FINISHED",
        "detail": "event 1 (order.finished) ended dead: exhausted",
        "repaired": False,
    }


async def test_audit_of_what_is_not_there_is_a_usage_error(terminal: Terminal):
    assert (await terminal.type("audit", "--target", "gamma"))[0] == 2
    assert (await terminal.type("audit", "--since", "soon"))[0] == 2
    code, out, err = await terminal.type("audit", "--since", "3d")
    assert (code, out, "REST shows orders of the last 48 h only" in " ".join(err.split())) == (2, "", True)


async def test_an_audit_that_cannot_be_done_exits_with_3(terminal: Terminal):
    """1 would say that there are differences."""
    source = terminal.room.source
    source.reason = "the relay is still reading what the upstream has"
    code, out, err = await terminal.type("audit")
    assert (code, out, "still reading" in err) == (3, "", True)
    source.reason, source.error = None, UpstreamError("REST: the upstream answered 500")
    assert (await terminal.type("audit"))[0] == 3
