"""The stand-in's REST against a plain aiohttp client: as documented, and broken on request."""

import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import aiohttp
import pytest

from relay.clock import SystemClock
from relay.simulator.faults import RestFault, ThrottleShape
from relay.simulator.lifecycle import Kind, Stage
from relay.simulator.orders import Style
from relay.simulator.server import SimulatedUpstream
from relay.simulator.world import Order, World

WAITING = Stage(0, "WAITING_FOR_DEPOSIT", 1)
CONFIRMING = Stage(1, "DEPOSIT_DETECTED", 2)
GOOD = {"Authorization": "partner:secret"}
HOUR_MS = 3_600_000
Query = list[tuple[str, str]]


@pytest.fixture
async def upstream() -> AsyncIterator[SimulatedUpstream]:
    server = SimulatedUpstream(World(SystemClock(), Random(1)), partner_id="partner", secret="secret")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Client:
    def __init__(self, upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
        self._base = upstream.rest_url
        self._http = http

    async def get(
        self, path: str, query: Query | None = None, headers: dict[str, str] = GOOD
    ) -> tuple[int, bytes, Any]:
        async with self._http.get(self._base + path, params=query, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers

    async def ids(self, *query: tuple[str, str]) -> list[str]:
        status, body, _ = await self.get("/orders", list(query))
        assert status == 200
        return [row["houdiniId"] for row in json.loads(body)["orders"]]


@pytest.fixture
def client(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> Client:
    return Client(upstream, http)


def aged(upstream: SimulatedUpstream, *hours: float) -> list[Order]:
    return [
        upstream.world.create(Kind.CEX, WAITING, age_ms=round(age * HOUR_MS), announce=False, style=Style.ODD)
        for age in hours
    ]


def ids(orders: list[Order]) -> list[str]:
    return [order.houdini_id for order in orders]


async def test_a_list_holds_the_very_bytes_of_each_order(upstream: SimulatedUpstream, client: Client) -> None:
    order = aged(upstream, 1)[0]
    status, body, headers = await client.get("/orders")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert "Date" in headers
    assert body == b'{"total":1,"totalPages":1,"orders":[' + order.changes[0].body + b"]}"
    assert len(order.changes[0].shown) == 1


async def test_one_order_is_the_bare_object(upstream: SimulatedUpstream, client: Client) -> None:
    order = aged(upstream, 1)[0]
    upstream.world.transition(order, CONFIRMING)
    assert (await client.get(f"/orders/{order.houdini_id}"))[1] == order.changes[-1].body
    assert [len(change.shown) for change in order.changes] == [0, 1]


async def test_orders_outside_the_window_are_not_visible(upstream: SimulatedUpstream, client: Client) -> None:
    young, old = aged(upstream, 47, 49)
    assert await client.ids(("from", "2020-01-01T00:00:00Z")) == [young.houdini_id]
    status, body, _ = await client.get(f"/orders/{old.houdini_id}")
    assert (status, json.loads(body)["code"]) == (404, "ORDER_NOT_FOUND")
    assert (await client.get("/orders/nobody"))[0] == 404


async def test_pages_and_sorting(upstream: SimulatedUpstream, client: Client) -> None:
    orders = aged(upstream, 5, 4, 3, 2, 1)
    ascending = [("sortBy", "created"), ("sortOrder", "asc")]
    assert await client.ids() == ids(orders)[::-1]
    assert await client.ids(*ascending) == ids(orders)
    assert await client.ids(*ascending, ("pageSize", "2"), ("page", "2")) == ids(orders)[2:4]
    assert await client.ids(("page", "9")) == []
    _, body, _ = await client.get("/orders", [("pageSize", "2")])
    assert (json.loads(body)["total"], json.loads(body)["totalPages"]) == (5, 3)
    upstream.world.transition(orders[0], CONFIRMING)
    assert (await client.ids(("sortBy", "updated")))[0] == orders[0].houdini_id


async def test_filters_and_parameters_nobody_knows(upstream: SimulatedUpstream, client: Client) -> None:
    older, newer = aged(upstream, 3, 1)
    private = upstream.world.create(Kind.PRIVATE, WAITING, announce=False)
    upstream.world.transition(newer, CONFIRMING)
    assert await client.ids(("status", "1")) == [newer.houdini_id]
    assert len(await client.ids(("status", "1"), ("status", "0"))) == 3
    assert await client.ids(("anonymous", "true")) == [private.houdini_id]
    assert await client.ids(("to", older.fields["created"])) == [older.houdini_id]
    assert len(await client.ids(("from", older.fields["created"]))) == 3
    assert set(await client.ids(("from", newer.fields["created"]))) == {newer.houdini_id, private.houdini_id}
    assert len(await client.ids(("colour", "blue"))) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("page", "0"), ("page", "x"), ("pageSize", "101"), ("status", "done"), ("from", "soon"), ("sortBy", "luck")],
)
async def test_parameters_out_of_bounds(client: Client, name: str, value: str) -> None:
    status, body, _ = await client.get("/orders", [(name, value)])
    assert (status, json.loads(body)["code"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 402), ({"Authorization": "partner:wrong"}, 401), ({**GOOD, "Origin": "https://example.com"}, 403)],
)
async def test_credentials(client: Client, headers: dict[str, str], status: int) -> None:
    for path in ("/orders", "/orders/some"):
        got, body, _ = await client.get(path, headers=headers)
        assert got == status
        assert (body == b"{}") is (status == 402)


async def test_the_rate_limit(upstream: SimulatedUpstream, client: Client) -> None:
    upstream.faults.rate_limit = 2
    assert [(await client.get("/orders"))[0] for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("shape", ThrottleShape)
async def test_every_shape_of_429(upstream: SimulatedUpstream, client: Client, shape: ThrottleShape) -> None:
    upstream.faults.update({"rest_fault": "throttled", "throttle_shape": shape, "retry_after": 12})
    status, body, headers = await client.get("/orders")
    answer = json.loads(body)
    says = {
        ThrottleShape.META: lambda: answer["retryAfter"] == answer["meta"]["retryAfter"] == 12,
        ThrottleShape.EXTENSIONS: lambda: answer["code"] == 429 and answer["extensions"]["retryAfter"] == 12,
        ThrottleShape.GRAPHQL: lambda: answer["errors"][0]["extensions"] == {"code": 429, "retryAfter": 12},
        ThrottleShape.SENTENCE: lambda: "Try again in 12 seconds." in answer["message"],
    }
    assert status == 429
    assert says[shape]()
    assert "Retry-After" not in headers
    upstream.faults.retry_after_header = True
    assert (await client.get("/orders"))[2]["Retry-After"] == "12"


async def test_faults_of_the_next_answers(upstream: SimulatedUpstream, client: Client) -> None:
    upstream.faults.update({"rest_fault": "status", "rest_status": 502, "rest_fault_count": 2})
    assert [(await client.get("/orders"))[0] for _ in range(3)] == [502, 502, 200]
    upstream.faults.update({"rest_fault": "html", "rest_fault_count": 1})
    assert (await client.get("/orders"))[1].startswith(b"<html>")
    upstream.faults.update({"rest_fault": "empty", "rest_fault_count": 1})
    assert (await client.get("/orders"))[:2] == (200, b"")


async def test_a_hanging_answer_shows_nothing(upstream: SimulatedUpstream, http: aiohttp.ClientSession) -> None:
    order = aged(upstream, 1)[0]
    upstream.faults.rest_fault = RestFault.HANG
    with pytest.raises(TimeoutError):
        await http.get(upstream.rest_url + "/orders", headers=GOOD, timeout=aiohttp.ClientTimeout(total=0.1))
    assert order.changes[0].shown == []


async def test_a_lagging_answer_and_an_ignored_sort(upstream: SimulatedUpstream, client: Client) -> None:
    orders = aged(upstream, 1, 3, 2)
    upstream.faults.ignore_sort = True
    assert await client.ids(("sortOrder", "asc")) == ids(orders)
    upstream.faults.rest_lag_seconds = 60
    assert await client.ids() == []
