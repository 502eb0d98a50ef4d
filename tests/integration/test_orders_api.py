"""The REST side against real sockets: bytes on the wire, and what every odd answer is taken for."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.clock import JumpClock
from support.upstream_fakes import settings
from support.upstream_script import Http, ScriptedUpstream, order

from relay.clock import SystemClock
from relay.errors import BadCredentials, NotVisible, Throttled, UpstreamError
from relay.metrics import Metrics
from relay.secret import Secret
from relay.upstream import orders_api
from relay.upstream.dial import open_rest_session
from relay.upstream.orders_api import OrdersApi, path_segment

MakeApi = Callable[..., OrdersApi]


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as server:
        yield server


@pytest.fixture
async def make_api(upstream: ScriptedUpstream) -> AsyncIterator[MakeApi]:
    made: list[OrdersApi] = []

    def make(clock: Any = None, metrics: Metrics | None = None, timeout: float = 10.0, **over: Any) -> OrdersApi:
        config = settings(rest_url=over.pop("rest_url", upstream.rest_url + "/"), **over)
        clock, metrics = clock or SystemClock(), metrics or Metrics("0")
        made.append(OrdersApi(config, lambda: open_rest_session("0"), clock, metrics, timeout=timeout))
        return made[-1]

    yield make
    for api in made:
        await api.close()


def answers(upstream: ScriptedUpstream, *canned: Http) -> None:
    upstream.rest_script.extend(canned)


async def test_one_odd_order_does_not_hide_its_page(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    """A lone surrogate escape is grammatical JSON that strict parsers refuse."""
    odd = rb'{"houdiniId":"o1","metadata":"x\ud83d"}'
    answers(upstream, Http(200, body=b'{"total":2,"orders":[' + odd + b',{"houdiniId":"o2"}]}'))
    page = await make_api().list_page()
    assert (page.rows, page.total) == ((odd, b'{"houdiniId":"o2"}'), 2)


async def test_a_page(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    upstream.orders = [order(1), order(2)]
    clock, metrics = SystemClock(), Metrics("0")
    before = clock.mono()
    api = make_api(clock, metrics, rest_headers={"x-user-ip": Secret.of("1.2.3.4")})
    page = await api.list_page(page=1, sortOrder="asc", **{"from": "2026-11-22T00:00:00.000Z"})
    assert [json.loads(row)["houdiniId"] for row in page.rows] == ["order-1", "order-2"]
    assert page.total == 2
    assert before <= page.asked_at <= clock.mono()
    assert page.server_ms is not None
    assert upstream.rest_requests == ["/v2/orders?page=1&sortOrder=asc&from=2026-11-22T00%3A00%3A00.000Z"]
    headers = upstream.rest_headers[0]
    assert (headers["Authorization"], headers["x-user-ip"]) == ("partner:s3cret", "1.2.3.4")
    assert headers["Accept-Encoding"] == "identity"
    assert "Origin" not in headers
    name = "houdini_relay_rest_requests_total"
    assert metrics.registry.get_sample_value(name, {"endpoint": "orders", "code": "200"}) == 1


async def test_rows_are_kept_byte_for_byte(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    answers(upstream, Http(200, body=b'{"total":"2","orders":[{ "a":0.10 }, {"b":1E5}]}'))
    page = await make_api().list_page()
    assert (page.rows, page.total) == ((b'{ "a":0.10 }', b'{"b":1E5}'), None)


@pytest.mark.parametrize(
    ("houdini_id", "path"),
    [
        ("h9Np", "h9Np"), ("../chains", "..%2Fchains"), ("..", "%2E%2E"), (".", "%2E"), ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("a b%41", "a%20b%2541"), ("é", "%C3%A9"), ("a.b", "a.b"),
    ],
)  # fmt: skip
async def test_ids_are_one_path_segment(
    upstream: ScriptedUpstream, make_api: MakeApi, houdini_id: str, path: str
) -> None:
    """An unencoded `../chains` reached another endpoint; on the wire stands exactly this."""
    answers(upstream, Http(200, body=b'{"houdiniId":"x","status":1}'))
    await make_api().get(houdini_id)
    assert upstream.rest_requests == [f"/v2/orders/{path}"]
    assert path_segment(houdini_id) == path


async def test_one_order(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    upstream.orders = [order(1)]
    assert json.loads((await make_api().get("order-1")).body)["houdiniId"] == "order-1"


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_credentials(upstream: ScriptedUpstream, make_api: MakeApi, status: int) -> None:
    answers(upstream, Http(status, body=b"{}"), Http(status))
    for _ in range(2):
        with pytest.raises(BadCredentials):
            await make_api().list_page()


async def test_unreadable_secret_is_a_matter_of_credentials(make_api: MakeApi) -> None:
    """127."""
    with pytest.raises(BadCredentials) as caught:
        await make_api(secret=Secret.of("a\r\nb")).list_page()
    assert "a\r" not in str(caught.value)
    with pytest.raises(BadCredentials):
        await make_api(rest_headers={"x": Secret.of("a\nb")}).list_page()


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Http(429, {"Retry-After": "7"}, b'{"retryAfter":45}'), 7),
        (Http(429, {}, b'{"code":"RATE_LIMIT_EXCEEDED","retryAfter":45}'), 45),
        (Http(429, {}, b'{"code":429,"extensions":{"retryAfter":44}}'), 44),
        (Http(200, {}, b'{"errors":[{"extensions":{"code":429,"retryAfter":43}}]}'), 43),
        (Http(429, {}, b"<html>"), 60),
        (Http(429, {"Retry-After": "7200"}), 7200),
        (Http(503, {"Retry-After": "3"}), 3),
    ],
)
async def test_throttled(upstream: ScriptedUpstream, make_api: MakeApi, answer: Http, seconds: float) -> None:
    """66: and everybody else waits too."""
    upstream.orders = [order(1)]
    answers(upstream, answer)
    clock = JumpClock()
    api = make_api(clock)
    with pytest.raises(Throttled) as caught:
        await api.list_page()
    assert caught.value.retry_after == seconds
    before = clock.mono()
    await api.get("order-1")
    assert clock.mono() - before == pytest.approx(seconds)


async def test_only_a_json_404_about_an_order_is_definitive(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    """67."""
    api = make_api()
    with pytest.raises(NotVisible):
        await api.get("nowhere")
    for body in (b"", b"<html>not found</html>", b"[]", b"404 page not found", b"{"):
        answers(upstream, Http(404, body=body))
        with pytest.raises(UpstreamError) as caught:
            await api.get("order-1")
        assert type(caught.value) is UpstreamError
    answers(upstream, Http(404, body=b"{}"))
    with pytest.raises(UpstreamError) as caught:
        await api.list_page()
    assert type(caught.value) is UpstreamError


@pytest.mark.parametrize(
    "answer",
    [
        Http(200), Http(204), Http(200, body=b"  \n"), Http(200, body=b"<html>busy</html>"), Http(200, body=b"[]"),
        Http(200, body=b'{"orders":null}'), Http(200, body=b'{"orders":{}}'), Http(200, body=b"null"),
        Http(200, body=b'{"orders":[{"a":NaN}]}'), Http(200, body=b'{"orders":["\xff"]}'),
        Http(200, body=b"[" * 100_000),
        Http(500, body=b"{}"), Http(502, body=b"<html>"), Http(503), Http(400, body=b"{}"), Http(418),
        Http(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\x00garbage"),
    ],
)  # fmt: skip
async def test_everything_else_is_an_ordinary_failure(
    upstream: ScriptedUpstream, make_api: MakeApi, answer: Http
) -> None:
    """HTML, empty 2xx, wrong shapes, gateways."""
    answers(upstream, answer)
    with pytest.raises(UpstreamError) as caught:
        await make_api().list_page()
    assert type(caught.value) is UpstreamError


async def test_an_answer_that_is_no_order(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    answers(upstream, Http(200, body=b'{"elsewhere":true}'))
    with pytest.raises(UpstreamError):
        await make_api().get("order-1")


async def test_redirects_are_not_followed(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    """5."""
    answers(upstream, Http(307, {"Location": "/v2/elsewhere"}))
    with pytest.raises(UpstreamError, match="redirect"):
        await make_api().list_page()
    assert len(upstream.rest_requests) == 1


async def test_a_huge_body_is_cut(
    upstream: ScriptedUpstream, make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders_api, "MAX_BODY", 100_000)
    answers(upstream, Http(200, body=b'{"orders":[' + b" " * 200_000 + b"]}"))
    with pytest.raises(UpstreamError, match="larger"):
        await make_api().list_page()


async def test_hanging_and_refused_calls_end(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    upstream.scripts = [[hang]]
    metrics = Metrics("0")
    with pytest.raises(UpstreamError, match="in time"):
        await make_api(metrics=metrics, timeout=0.1, rest_url=upstream.rest_url + "/ws?").get("x")
    with pytest.raises(UpstreamError, match="cannot be reached"):
        await make_api(metrics=metrics, rest_url="http://127.0.0.1:9/v2").list_page()
    name = "houdini_relay_rest_requests_total"
    assert metrics.registry.get_sample_value(name, {"endpoint": "orders", "code": "error"}) == 1


async def hang(upstream: ScriptedUpstream, _: Any) -> None:
    await upstream.stopping.wait()


async def test_no_secret_in_errors(upstream: ScriptedUpstream, make_api: MakeApi) -> None:
    """126."""
    api = make_api(secret=Secret.of("canary-secret"))
    for answer in (Http(401), Http(500), Http(200), Http(302, {"Location": "/x"}), Http(429)):
        answers(upstream, answer)
        with pytest.raises(UpstreamError) as caught:
            await api.list_page()
        assert "canary" not in repr(caught.value)
        assert caught.value.__cause__ is None
