"""What the sender puts on the wire, and on which connections."""

import asyncio

import pytest
import standardwebhooks
from sender_kit import (
    EMPTY,
    OK,
    ORDER,
    SECRET,
    Peer,
    a_delivery,
    a_request,
    a_sender,
    a_target,
    answering,
    both_loops,
    header_values,
    nothing_left_open,
    post_once,
    run_on,
    silent,
)

from relay.clock import SystemClock
from relay.delivery.request import build_request, fixed_part
from relay.delivery.signer import Signer
from relay.model import Outcome


@both_loops
def test_the_bytes_received_are_the_bytes_signed(new_loop):
    async def scenario():
        async with nothing_left_open(), Peer(answering(OK)) as peer:
            target = a_target(peer.url, {"X-Team": "blue"})
            now_ms = SystemClock().wall_ms()
            signer = Signer([SECRET])
            request = build_request(a_delivery(attempts_made=2), fixed_part(target, {}), signer, now_ms, partner_id="p")
            attempt = await post_once(peer.url, request)
        assert attempt.outcome is Outcome.OK
        [(head, body)] = peer.requests
        assert head.startswith(b"POST /hooks HTTP/1.1\r\n")
        assert body == request.body
        assert ORDER in body
        headers = [line.partition(": ")[::2] for line in head.decode().split("\r\n")[1:-2]]
        assert sorted(name for name, _ in headers) == sorted(
            [
                *("host", "content-length", "content-type", "user-agent", "accept", "accept-encoding", "x-team"),
                *("webhook-id", "webhook-timestamp", "webhook-signature", "relay-attempt"),
            ]
        )
        lower = dict(headers)
        standardwebhooks.Webhook(SECRET).verify(body, lower)
        assert lower["host"] == f"127.0.0.1:{peer.port}"
        assert lower["content-type"] == "application/json"
        assert lower["user-agent"] == "houdini-relay/1.2.3"
        assert lower["accept-encoding"] == "identity"
        assert lower["webhook-id"] == "evt_1"
        assert lower["webhook-timestamp"] == str(now_ms // 1000)
        assert lower["relay-attempt"] == "3"
        assert lower["x-team"] == "blue"

    run_on(new_loop, scenario())


@pytest.mark.parametrize(
    ("rest", "target"),
    [("", "/"), ("/", "/"), ("/a//b/?k=v&x=%20", "/a//b/?k=v&x=%20"), ("/a?", "/a?"), ("/%7Ea/../b", "/%7Ea/../b")],
)
async def test_path_and_query_are_sent_as_they_are_written(rest, target):
    async with Peer(answering(OK)) as peer:
        await post_once(f"http://user:word@127.0.0.1:{peer.port}{rest}")
    head = peer.requests[0][0]
    assert head.split(b"\r\n")[0] == f"POST {target} HTTP/1.1".encode()
    assert b"word" not in head, "userinfo is for the authorization header, which is not the sender's"


async def test_the_host_header_is_the_urls_host():
    async with Peer(answering(OK)) as peer:
        await post_once(f"http://Shop.Test:{peer.port}/", allow_networks=["127.0.0.0/8"])
    assert header_values(peer.requests[0][0], "host") == [f"shop.test:{peer.port}"]


@both_loops
def test_connections_are_reused(new_loop):
    async def scenario():
        async with Peer(answering(OK)) as peer, a_sender(peer.url) as sender:
            first = await sender.post(a_request())
            later = [await sender.post(a_request()) for _ in range(3)]
            assert {attempt.outcome for attempt in later} == {Outcome.OK}
            assert (len(peer.requests), peer.connections) == (4, 1)
        assert first.timings.connect_ms is not None
        assert (later[-1].timings.connect_ms, later[-1].timings.dns_ms, later[-1].timings.tls_ms) == (None, None, None)
        assert 0 < later[-1].timings.first_byte_ms <= later[-1].duration_ms

    run_on(new_loop, scenario())


@both_loops
def test_attempts_at_the_same_time_never_share_a_connection(new_loop):
    async def scenario():
        async def echo_its_number(peer, reader, writer):
            while True:
                _, body = await peer.request(reader)
                await asyncio.sleep(0.001 * (body[0] % 5))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

        async with nothing_left_open(), Peer(echo_its_number) as peer, a_sender(peer.url) as sender:
            slots = asyncio.Semaphore(8)

            async def one(number):
                async with slots:
                    body = b"%d" % number
                    assert (await sender.post(a_request(body=body))).response_body == body

            await asyncio.gather(*(one(number) for number in range(200)))
            assert 1 < peer.connections <= 8

    run_on(new_loop, scenario())


async def test_stalled_receivers_hold_up_nobody_else():
    async with Peer(silent) as stalled, Peer(answering(OK)) as healthy, a_sender(stalled.url) as sender:
        stuck = [asyncio.create_task(sender.post(a_request(timeout=30))) for _ in range(120)]
        async with asyncio.timeout(20):
            await stalled.wait_for_requests(120)
            assert (await post_once(healthy.url)).outcome is Outcome.OK
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def test_cookies_are_not_sent_back():
    cookie = b"HTTP/1.1 200 OK\r\nset-cookie: session=1; Path=/\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering(cookie)) as peer, a_sender(f"http://localhost:{peer.port}/") as sender:
        attempt = await sender.post(a_request())
        await sender.post(a_request())
    assert attempt.headers == {}
    assert len(peer.requests) == 2
    assert all(header_values(head, "cookie") == [] for head, _ in peer.requests)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_redirects_are_failed_attempts_and_never_followed(status):
    async with Peer(answering(OK)) as elsewhere:
        answer = f"HTTP/1.1 {status} Go\r\nlocation: {elsewhere.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with Peer(answering(answer)) as peer:
            attempt = await post_once(peer.url)
        assert (attempt.outcome, attempt.status_code) == (Outcome.RETRY, status)
        assert attempt.headers["location"] == elsewhere.url
        assert elsewhere.connections == 0


async def test_proxy_variables_and_netrc_are_ignored(monkeypatch, tmp_path):
    async with Peer(answering(OK)) as proxy, Peer(answering(OK)) as peer:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login a password b\n")
        monkeypatch.setenv("NETRC", str(netrc))
        assert (await post_once(peer.url)).outcome is Outcome.OK
        assert header_values(peer.requests[0][0], "authorization") == []
        assert proxy.connections == 0


async def test_a_large_body_arrives_whole():
    body = bytes(range(256)) * 8192
    async with Peer(answering(EMPTY)) as peer:
        assert (await post_once(peer.url, a_request(body=body))).outcome is Outcome.OK
    assert peer.requests[0][1] == body


async def test_an_answer_before_the_request_was_read_counts_but_ends_the_connection():
    async def early(peer, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
        await reader.read()
        peer.hung_up.set()

    async with Peer(early) as peer, asyncio.timeout(8), a_sender(peer.url) as sender:
        attempt = await sender.post(a_request(body=bytes(30_000_000), timeout=30))
        assert attempt.status_code == 413
        assert sender._pool._idle == []
        await peer.hung_up.wait()
    assert attempt.duration_ms < 7000
