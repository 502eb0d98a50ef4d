"""The lists and what stands behind one id, as they are asked over HTTP."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from admin_kit import KEY_IN_URL, TOKEN, WEBHOOK_SECRET, AdminRoom, served
from msgspec.structs import replace
from support.factories import event, failed_attempt
from support.stores import again, dead, delivered

from relay import log
from relay.board import TargetBoard
from relay.errors import SecretUnreadable
from relay.model import Attempt, Event, FailureKind, Outcome, Timings
from relay.standing import Breaker, Standing

HOSTILE = b"\x1b]0;owned\x07<script>alert(1)</script>\x00\xff\x9b2J " + b"A" * 2**20


async def page_through(room: AdminRoom, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, document = await room.get(f"{path}&cursor={cursor}" if cursor else path)
        assert status == 200, document
        assert set(document) == {"items", "next"}
        items += document["items"]
        cursor = document["next"]
        if cursor is None:
            return items
        assert quote(cursor, safe="") == cursor


async def test_deliveries_in_their_shape(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        (head,) = await room.bench.claim()
        await room.bench.settle(dead(head))
        status, document = await room.get("/api/v1/deliveries")
        assert status == 200
        shape = {
            "id": head.id,
            "event_id": "evt_order-1_1",
            "type": "order.finished",
            "order": "order-1",
            "target": "alpha",
            "status": "dead",
            "reason": "exhausted",
            "replay": 0,
            "head": False,
            "attempts_made": 1,
            "due_at": None,
            "created_at": "1970-01-01T00:00:01.000Z",
            "finished_at": "1970-01-01T00:00:02.000Z",
            "last_outcome": "retry",
            "last_status_code": 500,
            "replayed": False,
        }
        assert document == {"items": [shape], "next": None}
        _, alone = await room.get(f"/api/v1/deliveries/{head.id}")
        (attempt,) = alone.pop("attempts")
        assert alone == shape | {"held_by": None, "held_until": None}
        assert attempt == {
            "number": 1,
            "at": "1970-01-01T00:00:01.000Z",
            "outcome": "retry",
            "status_code": 500,
            "duration_ms": 12.5,
            "kind": None,
            "error": None,
            "response_body": "oops",
            "headers": {},
            "timings": {"dns_ms": None, "connect_ms": None, "tls_ms": None, "first_byte_ms": None},
            "manual": False,
            "probe": False,
        }


async def test_paging_to_the_end_while_new_ones_come(tmp_path: Path):
    async with served(tmp_path) as room:
        for number in range(30):
            await room.bench.add(event(f"order-{number}", 4))
        _, first = await room.get("/api/v1/deliveries?limit=7")
        seen, cursor = [one["id"] for one in first["items"]], first["next"]
        while cursor is not None:
            await room.bench.add(event(f"later-{cursor}", 4))
            _, page = await room.get(f"/api/v1/deliveries?limit=7&cursor={cursor}")
            seen += [one["id"] for one in page["items"]]
            cursor = page["next"]
        assert seen == list(range(60, 0, -1))
        assert len(await page_through(room, "/api/v1/events?limit=4&type=order.finished")) == 30 + 8


async def test_filters_in_flight_included(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4))
        await room.bench.add(event("order-2", 4))
        (first, second) = await room.bench.claim("alpha")
        await room.store.release([second])
        found = await page_through(room, "/api/v1/deliveries?status=in_flight")
        assert [one["id"] for one in found] == [first.id]
        assert found[0]["status"] == "in_flight"
        assert len(await page_through(room, "/api/v1/deliveries?status=pending&target=alpha")) == 1
        assert len(await page_through(room, "/api/v1/deliveries?order=order-2&since=1970-01-01")) == 2
        assert await page_through(room, "/api/v1/deliveries?since=1h") == []
        (one,) = await page_through(room, "/api/v1/events?status=in_flight&limit=1")
        assert one["counts"] == {"in_flight": 1, "pending": 1}
        assert "data" not in one


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=5&limit=5",
        "cursor=xyz",
        "status=ready",
        "frm=1",
        "target=%1b",
        "since=never",
        "since=1h&until=2h",
        "order=%00",
        "=1",
    ],
)
@pytest.mark.parametrize("kind", ["deliveries", "events", "targets"])
async def test_questions_that_make_no_sense(tmp_path: Path, kind: str, query: str):
    async with served(tmp_path) as room:
        status, document = await room.get(f"/api/v1/{kind}?{query}")
        assert (status, set(document)) == (400, {"error"})
        assert document["error"]["message"].isascii()


async def test_a_cursor_of_another_list_is_refused(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add_life("order-1", 3)
        _, document = await room.get("/api/v1/events?limit=1")
        assert (await room.get(f"/api/v1/deliveries?cursor={document['next']}"))[0] == 400


@pytest.mark.parametrize(
    "path", ["deliveries/99", "deliveries/x", "deliveries/1%0a", "events/evt_x", "orders/o%2f..%2fx"]
)
async def test_what_is_not_there(tmp_path: Path, path: str):
    async with served(tmp_path) as room:
        status, document = await room.get(f"/api/v1/{path}")
        assert (status, document["error"]["code"][:8]) == (404, "unknown_")
        assert (await room.get(f"/api/v1/{path}?limit=1"))[0] == 400


async def test_an_event_has_its_data_byte_for_byte(tmp_path: Path):
    body = b'{"houdiniId":"order-1", "amount" : 1.10E+5,"n":12345678901234567890123,"s":"\\u001b[31m \xc3\xbc"}'
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4, body=body))
        raw = await room.read("/api/v1/events/evt_order-1_1")
        assert b'"data": ' + body in raw
        document = json.loads(raw)
        assert (document["id"], document["order"], document["sequence"]) == ("evt_order-1_1", "order-1", 1)
        assert (document["status"], document["previous_status"], document["origin"]) == ("FINISHED", None, "websocket")
        assert [one["target"] for one in document["deliveries"]] == ["alpha", "beta"]


async def test_a_notice_is_an_event_too(tmp_path: Path):
    notice = Event("evt_n", "relay:upstream", "relay.upstream.down", 1_000, b"not json", None)
    async with served(tmp_path) as room:
        await room.bench.add(notice)
        status, document = await room.get("/api/v1/events/evt_n")
        assert (status, document["data"], document["sequence"], document["changed"]) == (200, "not json", None, [])
        assert len(await page_through(room, "/api/v1/events?order=relay:upstream&limit=3")) == 1


async def test_the_life_of_an_order(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add_life("order-1", 3, targets=["alpha"])
        (head,) = await room.bench.claim()
        await room.bench.settle(again(head, 3_000))
        (head,) = await room.bench.claim()
        await room.bench.settle(delivered(head))
        _, document = await room.get("/api/v1/orders/order-1")
        assert (document["id"], document["status"], document["terminal"]) == ("order-1", "ANONYMIZING", False)
        assert document["fields"] == {"status": 3}
        assert document["data"]["status"] == 3
        assert [one["sequence"] for one in document["life"]] == [1, 2, 3]
        assert [one["outcome"] for one in document["life"][0]["deliveries"][0]["attempts"]] == ["retry", "ok"]
        assert [one["deliveries"][0]["status"] for one in document["life"]] == ["delivered", "pending", "pending"]
        assert document["life_is_whole"] is True


async def test_the_life_of_a_long_lived_order_ends_with_its_newest(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add_life("order-1", 60, targets=[])
        _, document = await room.get("/api/v1/orders/order-1")
        assert [one["sequence"] for one in document["life"]] == list(range(11, 61))
        assert document["life_is_whole"] is False


async def test_targets_in_their_shape_orphans_last(tmp_path: Path):
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha", "beta"], now_ms=room.clock.wall_ms() - 5_000)
        room.targets = room.targets[1:]
        await room.bench.configure("beta")
        await room.store.pause("beta", 7_000)
        room.board.targets["beta"] = TargetBoard(in_flight=1, probing=True)
        (head,) = await room.bench.probe("beta", now_ms=room.clock.wall_ms() + 1)
        opened = {"breaker": Breaker.OPEN, "probe_due_ms": 9_000, "failures": 10, "last_error": "\x1b[31mrefused"}
        failed = replace(failed_attempt(), status_code=None, error="x")
        await room.bench.settle(
            replace(again(head, 3_000), attempt=failed), judge=lambda standing, _: replace(standing, **opened)
        )
        status, document = await room.get("/api/v1/targets")
        assert status == 200
        assert document["next"] is None
        beta, alpha = document["items"]
        assert 4 < beta.pop("oldest_age_s") < 60
        assert beta == {
            "name": "beta",
            "url": "https://shop.example.com/hooks/[redacted]",
            "state": "paused",
            "breaker": "half_open",
            "pending": 1,
            "last_success_at": None,
            "last_error": "\\x1b[31mrefused",
            "in_flight": 1,
            "failures": 10,
            "paused_by": "person",
            "paused_at": "1970-01-01T00:00:07.000Z",
            "parked_at": None,
            "probe_at": "1970-01-01T00:00:09.000Z",
            "throttled_until": None,
        }
        assert (alpha["name"], alpha["state"], alpha["url"], alpha["pending"]) == ("alpha", "orphaned", None, 1)


async def test_public_keys(tmp_path: Path):
    async with served(tmp_path) as room:
        room.keys = {"alpha": ["whpk_abc"]}
        assert await room.get("/api/v1/keys") == (200, {"items": [{"target": "alpha", "keys": ["whpk_abc"]}]})

        def unreadable() -> dict[str, list[str]]:
            raise SecretUnreadable("file /run/x cannot be read: no such file")

        object.__setattr__(room.admin._context, "public_keys", unreadable)
        status, document = await room.get("/api/v1/keys")
        assert (status, document["error"]["code"]) == (503, "secret_unreadable")


async def test_what_a_receiver_says_is_whole_and_harmless(tmp_path: Path):
    hostile = Attempt(
        at_ms=1_000,
        duration_ms=1.0,
        outcome=Outcome.RETRY,
        status_code=500,
        kind=FailureKind.PROTOCOL,
        error="protocol: \x1b[2J",
        response_body=HOSTILE,
        headers={"retry-after": "\x1b[31m"},
        timings=Timings(),
    )
    async with served(tmp_path) as room:
        await room.bench.add(event("order-1", 4), targets=["alpha"])
        (head,) = await room.bench.claim()
        await room.bench.settle(replace(again(head, 3_000), attempt=hostile))
        for path in (f"deliveries/{head.id}", "orders/order-1"):
            _, text, answer = await room.ask("GET", f"/api/v1/{path}")
            raw = (await room.read(f"/api/v1/{path}")).decode()
            assert not any(char in raw for char in "\x1b\x07\x00\x9b")
            assert answer.headers["content-type"].startswith("application/json")
            attempt = text["attempts"][0] if "attempts" in text else text["life"][0]["deliveries"][0]["attempts"][0]
            assert attempt["response_body"].startswith("\\x1b]0;owned\\x07<script>alert(1)</script>\\x00\\xff\\x9b2J ")
            assert len(attempt["response_body"]) > 2**20
            assert attempt["error"] == "protocol: \\x1b[2J"
            assert attempt["headers"] == {"retry-after": "\\x1b[31m"}


async def test_secrets_are_in_no_answer(tmp_path: Path):
    secrets = [TOKEN, KEY_IN_URL, WEBHOOK_SECRET]
    log.register_secrets(secrets)
    try:
        async with served(tmp_path) as room:
            body = json.dumps({"houdiniId": "order-1", "status": 4, "echo": secrets}).encode()
            await room.bench.add(event("order-1", 4, body=body), targets=["alpha"])
            (head,) = await room.bench.claim()
            said = " ".join(secrets)
            attempt = replace(failed_attempt(), error=said, response_body=said.encode(), headers={"x": said})

            def judge(standing: Standing, _settlement: object) -> Standing:
                return replace(standing, last_error=said)

            await room.bench.settle(replace(again(head, 3_000), attempt=attempt), judge=judge)
            for kind in ("targets", "events", "deliveries", "keys", f"deliveries/{head.id}", "orders/order-1"):
                status, text, _ = await room.ask("GET", f"/api/v1/{kind}")
                assert status == 200
                assert not any(secret in str(text) for secret in secrets), kind
            _, text, _ = await room.ask("GET", "/api/v1/events/evt_order-1_1")
            assert not any(secret in str(text) for secret in secrets)
    finally:
        log.forget_secrets()
