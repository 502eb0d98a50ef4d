"""Attempts that end without a usable answer, each with its kind and nothing secret."""

import asyncio
import socket
import struct

import pytest
from sender_kit import (
    OK,
    Names,
    Peer,
    a_request,
    a_sender,
    answering,
    answering_once,
    both_loops,
    never_reading,
    nothing_left_open,
    post_once,
    run_on,
    silent,
)

from relay.clock import SystemClock
from relay.delivery.failures import AttemptFailed, error_text, os_words
from relay.delivery.lookup import Lookup
from relay.model import FailureKind, Outcome

PROCESSED = "; the request may have been processed"


def kind_and_error(attempt):
    assert (attempt.outcome, attempt.status_code, attempt.response_body) == (Outcome.RETRY, None, b"")
    assert attempt.error.startswith(f"{attempt.kind}: ")
    return attempt.kind, attempt.error.partition(": ")[2]


async def test_headers_a_byte_at_a_time_end_at_the_timeout():
    async def script(peer, reader, writer):
        await peer.request(reader)
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"a" * 4000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async with Peer(script) as peer:
        attempt = await post_once(peer.url, a_request(timeout=0.5))
    assert kind_and_error(attempt) == ("timeout", "no answer within 0.5 s: waiting for the status line")
    assert 400 < attempt.duration_ms < 3000


@both_loops
def test_a_receiver_that_never_answers_is_hung_up_on(new_loop):
    async def scenario():
        async with nothing_left_open(), Peer(silent) as peer, asyncio.timeout(8):
            attempt = await post_once(peer.url, a_request(timeout=0.3))
            await peer.hung_up.wait()
        assert kind_and_error(attempt) == ("timeout", "no answer within 0.3 s: waiting for the status line")
        assert attempt.timings.connect_ms is not None
        assert attempt.timings.first_byte_ms is None

    run_on(new_loop, scenario())


@both_loops
def test_a_receiver_that_never_reads_is_hung_up_on(new_loop):
    async def scenario():
        async with nothing_left_open(), Peer(never_reading) as peer:
            attempt = await post_once(peer.url, a_request(timeout=0.4, body=bytes(30_000_000)))
        said = "no answer within 0.4 s: sending the request, which the receiver does not read"
        assert kind_and_error(attempt) == ("timeout", said)

    run_on(new_loop, scenario())


async def test_the_timeout_covers_looking_up():
    class Slow(Names):
        async def resolve(self, host, port):
            await asyncio.Event().wait()

    attempt = await post_once("http://shop.test/", a_request(timeout=0.3), Slow())
    assert kind_and_error(attempt) == ("timeout", "no answer within 0.3 s: looking up the name")


@both_loops
def test_closing_after_reading_is_a_reset_that_may_have_been_processed(new_loop):
    async def scenario():
        async with nothing_left_open(), Peer(answering_once(b"")) as peer:
            attempt = await post_once(peer.url)
        assert kind_and_error(attempt) == ("reset", "connection closed before an answer" + PROCESSED)
        assert len(peer.requests) == 1

    run_on(new_loop, scenario())


async def test_closing_in_the_middle_of_the_head():
    async with Peer(answering_once(b"HTTP/1.1 20")) as peer:
        attempt = await post_once(peer.url)
    assert kind_and_error(attempt) == ("reset", "connection closed in the middle of the answer's head" + PROCESSED)


@both_loops
def test_a_tcp_reset_is_a_reset(new_loop):
    async def script(peer, reader, writer):
        await peer.request(reader)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def scenario():
        async with nothing_left_open(), Peer(script) as peer:
            attempt = await post_once(peer.url)
        assert kind_and_error(attempt) == ("reset", "Connection reset by peer" + PROCESSED)

    run_on(new_loop, scenario())


async def test_a_reset_before_anything_was_read():
    async def script(peer, reader, writer):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with Peer(script) as peer:
        attempt = await post_once(peer.url, a_request(body=bytes(5_000_000)))
    assert kind_and_error(attempt)[0] == "reset"


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HEAD + b"x-big: " + b"a" * 1_000_000 + b"\r\n\r\n", "its head is longer than 32768 bytes"),
        (HEAD + b"x-big: " + b"a" * 33_000 + b"\r\n\r\n", "its head is longer than 32768 bytes"),
        (HEAD + b"x: y\r\n" * 100_000 + b"\r\n", "it has more than 128 header lines"),
        (HEAD + b"x: y\r\n" * 129 + b"\r\n", "it has more than 128 header lines"),
        (b"\r\n" * 500_000, "its head is longer than 32768 bytes"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17 + OK, "more than 16 interim answers"),
        (b"HTTP/1.1 101 Go\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "it switches protocols"),
        (b"HTTP/1.1 101 Go\r\n\r\n" + OK, "it switches protocols"),
        (b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n", "no HTTP/1.1 status line"),
        (b"HTTP/1.1 abc Odd\r\ncontent-length: 0\r\n\r\n", "Invalid status code"),
        (b"HTTP/1.1 2000 Odd\r\ncontent-length: 0\r\n\r\n", "Invalid response status"),
        (b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", "no HTTP/1.1 status line"),
        (b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n", "no HTTP/1.1 status line"),
        (HEAD + b"content-length: abc\r\n\r\n", "Invalid character in Content-Length"),
        (HEAD + b"content-length: -1\r\n\r\n", "Invalid character in Content-Length"),
        (HEAD + b"content-length: 99999999999999999999\r\n\r\n", "Content-Length overflow"),
        (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok", "Duplicate Content-Length"),
        (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (HEAD + b"x: a\0b\r\n\r\n", "Invalid header value char"),
        (HEAD + b"x: \x1b[2J\r\n\r\n", "Invalid header value char"),
        (HEAD + b"x y: z\r\n\r\n", "Invalid header token"),
        (b"220 mail.example.com ESMTP \x1b[2J ready\r\n", "Expected HTTP/"),
        (b"<html>welcome</html>", "Expected HTTP/"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "that port speaks TLS; write https:// in the URL"),
    ],
)
async def test_an_unusable_answer_is_a_protocol_error(answer, why):
    async with nothing_left_open(), Peer(answering_once(answer)) as peer, asyncio.timeout(8):
        attempt = await post_once(peer.url)
    kind, error = kind_and_error(attempt)
    assert kind == "protocol"
    assert error.startswith(f"the answer is not usable HTTP ({why}")
    assert len(error) < 100


async def test_endless_informational_answers_end_at_their_cap():
    async def script(peer, reader, writer):
        await peer.request(reader)
        while True:
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    async with Peer(script) as peer, asyncio.timeout(8):
        attempt = await post_once(peer.url)
    assert kind_and_error(attempt)[0] == "protocol"


async def test_an_echo_server_cannot_put_our_secrets_into_the_error():
    async def echo(peer, reader, writer):
        head, body = await peer.request(reader)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with Peer(echo) as peer:
        attempt = await post_once(peer.url + "/hidden-path", a_request(headers=[("x-key", "hidden-header")]))
    kind, error = kind_and_error(attempt)
    assert kind == "protocol"
    assert "hidden" not in error


async def test_nobody_listening_is_a_connect_error():
    async with Peer(silent) as peer:
        closed = peer.url
    attempt = await post_once(closed)
    assert kind_and_error(attempt) == ("connect", "Connection refused")


async def test_no_descriptor_left_is_a_connect_error(monkeypatch):
    def none_left(*args, **kwargs):
        raise OSError(24, "Too many open files")

    async with a_sender("http://127.0.0.1:9/") as sender:
        monkeypatch.setattr("relay.delivery.dialing.socket.socket", none_left)
        attempt = await sender.post(a_request())
    assert kind_and_error(attempt) == ("connect", "Too many open files")


async def test_an_unknown_name_is_a_dns_error(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    attempt = await post_once("http://shop.test/hidden-path", lookup=Lookup(SystemClock()))
    assert kind_and_error(attempt) == ("dns", "Name or service not known")


@pytest.mark.parametrize(
    "header",
    [
        *(("x", f"a{bad}b") for bad in ("\r\nevil: 1", "\r", "\n", "\0", "\x7f", "\u2028", "\udcff")),
        *((name, "1") for name in ("x\nevil", "x ", "x:", "", "ü")),
        *((name, "1") for name in ("Host", "content-length", "transfer-encoding", "connection", "expect")),
        ("x", 1),
        (1, "x"),
    ],
)
async def test_a_header_that_cannot_be_sent_is_a_request_error(header):
    async with Peer(answering(OK)) as peer:
        attempt = await post_once(peer.url, a_request(headers=[header]))
        kind, error = kind_and_error(attempt)
        assert kind == "request"
        assert error.startswith("a header cannot be sent (")
        assert "evil" not in error
        assert peer.connections == 0


async def test_a_closed_sender_says_so_without_raising():
    async with Peer(answering(OK)) as peer, a_sender(peer.url) as sender:
        await sender.close()
        attempt = await sender.post(a_request())
    assert kind_and_error(attempt) == ("request", "not sent, this target's connections are closed")


async def test_a_fault_of_our_own_is_an_attempt_like_any_other():
    class Broken(Names):
        async def resolve(self, host, port):
            raise KeyError("hidden")

    attempt = await post_once("http://shop.test/", lookup=Broken())
    assert kind_and_error(attempt) == ("request", "unexpected KeyError")


def test_error_text_is_escaped_and_bounded():
    text = error_text(FailureKind.CONNECT, os_words(OSError(-5, "\x1b[31m\udcff" + "ü" * 600)))
    assert text.startswith("connect: \\x1b[31m\\udcff")
    assert 500 < len(text.encode()) <= 512
    assert str(AttemptFailed(FailureKind.TLS, "why")) == "why"
