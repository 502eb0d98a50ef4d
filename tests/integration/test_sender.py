"""What the sender puts on the wire."""

import asyncio

import pytest
import standardwebhooks
from sender_kit import (
    OK,
    ORDER,
    SECRET,
    Peer,
    a_delivery,
    a_request,
    a_sender,
    a_target,
    answering,
    header_values,
    silent,
)

from relay.clock import SystemClock
from relay.delivery.sender import build_request
from relay.delivery.signer import Signer
from relay.model import Outcome, Secret


@pytest.fixture
async def sender():
    async with a_sender() as opened:
        yield opened


async def test_the_bytes_received_are_the_bytes_signed(sender):
    async with Peer(answering(OK)) as peer:
        target = a_target(peer.url, X_Team="blue")
        now_ms = SystemClock().wall_ms()
        request = build_request(a_delivery(attempts_made=2), target, Signer([SECRET]), now_ms)
        attempt = await sender.post(request)
    assert attempt.outcome is Outcome.OK
    [(head, body)] = peer.requests
    assert head.startswith(b"POST /hooks HTTP/1.1\r\n")
    assert body == request.body
    assert ORDER in body
    headers = {name: value for line in head.decode().split("\r\n")[1:-2] for name, _, value in [line.partition(": ")]}
    assert {name.lower() for name in headers} == {
        *("host", "content-length", "content-type", "user-agent", "accept", "accept-encoding", "x-team"),
        *("webhook-id", "webhook-timestamp", "webhook-signature", "relay-attempt"),
    }
    lower = {name.lower(): value for name, value in headers.items()}
    standardwebhooks.Webhook(SECRET).verify(body, lower)
    assert lower["content-type"] == "application/json"
    assert lower["user-agent"] == "houdini-relay/1.2.3"
    assert lower["accept-encoding"] == "identity"
    assert lower["webhook-id"] == "evt_1"
    assert lower["webhook-timestamp"] == str(now_ms // 1000)
    assert lower["relay-attempt"] == "3"
    assert lower["x-team"] == "blue"


async def test_a_later_attempt_is_signed_anew_under_the_same_id():
    target, signer = a_target("https://shop.example.com/h"), Signer([SECRET])
    first = build_request(a_delivery(0), target, signer, 1_000_000)
    later = build_request(a_delivery(1), target, signer, 1_600_999)
    assert first.body == later.body
    assert first.headers["webhook-id"] == later.headers["webhook-id"]
    assert (first.headers["webhook-timestamp"], later.headers["webhook-timestamp"]) == ("1000", "1600")
    assert later.headers["webhook-signature"] == signer.sign("evt_1", 1600, later.body)


async def test_static_headers_cannot_replace_the_signed_ones():
    """The configuration refuses such names; a mistake there must not forge an id."""
    target = a_target("https://shop.example.com/h")
    forging = target.model_copy(update={"headers": {"Webhook-Id": Secret.of("evt_forged")}})
    request = build_request(a_delivery(), forging, Signer([SECRET]), 1_000_000)
    assert request.headers["webhook-id"] == "evt_1"
    assert sum(name.lower() == "webhook-id" for name in request.headers) == 1


async def test_a_request_does_not_show_its_secrets():
    url = "https://user:pass@shop.example.com/a/hidden-path?k=hidden-query"
    target = a_target(url, x_key="hidden-header")
    shown = repr(build_request(a_delivery(), target, Signer([SECRET]), 1_000_000))
    assert "hidden" not in shown.replace("hidden=", "")
    assert "pass" not in shown


async def test_connections_are_reused(sender):
    async with Peer(answering(OK)) as peer:
        for _ in range(3):
            assert (await sender.post(a_request(peer.url))).outcome is Outcome.OK
        assert (len(peer.requests), peer.connections) == (3, 1)


async def test_stalled_receivers_never_fill_the_pool(sender):
    async with Peer(silent) as stalled, Peer(answering(OK)) as healthy:
        stuck = [asyncio.create_task(sender.post(a_request(stalled.url, timeout=30))) for _ in range(120)]
        async with asyncio.timeout(20):
            await stalled.wait_for_requests(120)
            assert (await sender.post(a_request(healthy.url))).outcome is Outcome.OK
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_cookies_are_not_sent_back(sender):
    cookie = b"HTTP/1.1 200 OK\r\nset-cookie: session=1; Path=/\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering(cookie)) as peer:
        await sender.post(a_request(peer.url.replace("127.0.0.1", "localhost")))
        await sender.post(a_request(peer.url.replace("127.0.0.1", "localhost")))
    assert len(peer.requests) == 2
    assert all(header_values(head, "cookie") == [] for head, _ in peer.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_failed_attempts_and_never_followed(sender, status):
    async with Peer(answering(OK)) as elsewhere:
        answer = f"HTTP/1.1 {status} Go\r\nlocation: {elsewhere.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with Peer(answering(answer)) as peer:
            attempt = await sender.post(a_request(peer.url))
        assert (attempt.outcome, attempt.status_code) == (Outcome.RETRY, status)
        assert elsewhere.connections == 0


async def test_proxy_variables_and_netrc_are_ignored(monkeypatch, tmp_path):
    async with Peer(answering(OK)) as proxy, Peer(answering(OK)) as peer:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login a password b\n")
        monkeypatch.setenv("NETRC", str(netrc))
        async with a_sender() as sender:
            assert (await sender.post(a_request(peer.url))).outcome is Outcome.OK
        assert header_values(peer.requests[0][0], "authorization") == []
        assert proxy.connections == 0
