"""Attempts that end without a usable answer, each with its kind and nothing secret."""

import asyncio
import socket
import struct

import aiohttp
import pytest
from sender_kit import OK, Names, Peer, a_request, a_sender, answering, answering_once, silent

from relay.clock import SystemClock
from relay.delivery import sender as sender_module
from relay.delivery.sender import Sender, describe_failure
from relay.model import Outcome


@pytest.fixture
async def sender():
    async with a_sender() as opened:
        yield opened


async def test_headers_a_byte_at_a_time_end_at_the_timeout(sender):
    async def script(peer, reader, writer):
        await peer.request(reader)
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"a" * 4000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with Peer(script) as peer:
        attempt = await sender.post(a_request(peer.url, timeout=0.5))
    assert (attempt.outcome, attempt.status_code) == (Outcome.RETRY, None)
    assert attempt.error == "timeout: no answer within 0.5 s"
    assert 400 < attempt.duration_ms < 3000


async def test_endless_informational_answers_end_at_the_timeout(sender):
    async def script(peer, reader, writer):
        await peer.request(reader)
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    async with Peer(script) as peer:
        async with asyncio.timeout(8):
            attempt = await sender.post(a_request(peer.url, timeout=0.5))
    assert attempt.error == "timeout: no answer within 0.5 s"


async def test_a_receiver_that_never_answers_is_hung_up_on(sender):
    async with Peer(silent) as peer:
        async with asyncio.timeout(8):
            attempt = await sender.post(a_request(peer.url, timeout=0.3))
            await peer.hung_up.wait()
    assert attempt.error == "timeout: no answer within 0.3 s"


async def test_the_timeout_covers_resolving():
    class Slow(Names):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            await asyncio.Event().wait()

    async with a_sender(Slow()) as sender:
        attempt = await sender.post(a_request("http://shop.test/", timeout=0.3))
    assert attempt.error == "timeout: no answer within 0.3 s"


async def test_closing_after_reading_is_a_reset_that_may_have_been_processed(sender):
    async with Peer(answering_once(b"")) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.status_code) == (Outcome.RETRY, None)
    assert attempt.error == "reset: connection closed before an answer; the request may have been processed"
    assert len(peer.requests) == 1


async def test_a_tcp_reset_is_a_reset(sender):
    async def script(peer, reader, writer):
        await peer.request(reader)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with Peer(script) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert attempt.error == "reset: Connection reset by peer"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nx-big: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"220 mail.example.com ESMTP \x1b[2J ready\r\n",
    ],
    ids=["huge header", "many headers", "length of letters", "negative length", "not http"],
)
async def test_an_unusable_answer_is_a_protocol_error(sender, answer):
    async with Peer(answering_once(answer)) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert attempt.outcome is Outcome.RETRY
    assert attempt.error.startswith("protocol: the answer is not usable HTTP (")
    assert len(attempt.error) < 100


async def test_an_echo_server_cannot_put_our_secrets_into_the_error(sender):
    async def echo(peer, reader, writer):
        head, body = await peer.request(reader)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with Peer(echo) as peer:
        attempt = await sender.post(a_request(peer.url + "/hidden-path", headers={"x-key": "hidden-header"}))
    assert attempt.error.startswith("protocol: ")
    assert "hidden" not in attempt.error


async def test_nobody_listening_is_a_connect_error(sender):
    async with Peer(silent) as peer:
        closed = peer.url
    attempt = await sender.post(a_request(closed))
    assert attempt.error == "connect: Connection refused"


async def test_an_unknown_name_is_a_dns_error(sender, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    attempt = await sender.post(a_request("http://shop.test/hidden-path"))
    assert attempt.error == "dns: Name or service not known"


@pytest.mark.parametrize("url", ["", "/hooks", "ftp://shop.test/", "http://", "http://[::1/", "http://u:p@"])
async def test_a_url_that_cannot_be_used_is_a_request_error(sender, url):
    attempt = await sender.post(a_request(url))
    assert attempt.error.startswith("request: the URL or a header cannot be sent (")


@pytest.mark.parametrize("headers", [{"x": "a\r\nevil: 1"}, {"x\nevil": "1"}, {"x": 1}])
async def test_a_header_that_cannot_be_sent_is_a_request_error(sender, headers):
    async with Peer(answering(OK)) as peer:
        attempt = await sender.post(a_request(peer.url, headers=headers))
        assert attempt.error.startswith("request: ")
        assert peer.requests == []


async def test_a_sender_that_is_not_open_says_so_without_raising():
    sender = Sender(SystemClock(), "1.2.3")
    await sender.close()
    attempt = await sender.post(a_request("http://127.0.0.1:9/"))
    assert (attempt.outcome, attempt.error) == (Outcome.RETRY, "request: unexpected RuntimeError")


async def test_cancelling_passes_through_and_hangs_up(sender):
    async with Peer(silent) as peer:
        task = asyncio.create_task(sender.post(a_request(peer.url)))
        await peer.wait_for_requests(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await peer.hung_up.wait()


async def test_cancelling_during_the_body_passes_through_and_hangs_up(sender):
    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await reader.read()
        peer.hung_up.set()

    reading = asyncio.Event()
    read_body = sender_module._read_body

    async def announced(response, seconds):
        reading.set()
        return await read_body(response, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sender_module, "_read_body", announced)
        async with Peer(script) as peer:
            task = asyncio.create_task(sender.post(a_request(peer.url)))
            await reading.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(1):
                await peer.hung_up.wait()


async def test_error_text_is_escaped_and_bounded():
    text = describe_failure(OSError(-5, "\x1b[31m\udcff" + "ü" * 600), 1.0)
    assert text.startswith("reset: \\x1b[31m\\udcff")
    assert 500 < len(text.encode()) <= 512


def test_every_aiohttp_error_has_a_kind():
    """A kind chosen by accident of inheritance would show here."""
    key = aiohttp.client_reqrep.ConnectionKey("h", 1, False, True, None, None, None)
    refused = OSError(111, "Connection refused")
    assert describe_failure(aiohttp.ClientConnectorError(key, refused), 1) == "connect: Connection refused"
    assert describe_failure(aiohttp.ConnectionTimeoutError(), 1) == "timeout: no answer within 1 s"
    assert describe_failure(aiohttp.SocketTimeoutError(), 1) == "timeout: no answer within 1 s"
    assert describe_failure(aiohttp.ClientPayloadError(), 1).startswith("protocol: ")
    assert describe_failure(aiohttp.ClientConnectionResetError("hidden"), 1).startswith("reset: Client")
    assert describe_failure(aiohttp.InvalidURL("http://hidden"), 1).startswith("request: the URL")
    assert describe_failure(KeyError("hidden"), 1) == "request: unexpected KeyError"
