"""What becomes of an answer: the status line decides."""

import asyncio
import gzip

import aiohttp
import pytest
from sender_kit import OK, SECRET, Peer, a_delivery, a_request, a_sender, a_target, answering, answering_once

from relay.delivery import sender as sender_module
from relay.delivery.sender import build_request
from relay.delivery.signer import Signer
from relay.model import Outcome


@pytest.fixture
async def sender():
    async with a_sender() as opened:
        yield opened


@pytest.mark.parametrize(("status", "outcome"), [(204, "ok"), (410, "gone"), (400, "retry"), (503, "retry")])
async def test_the_outcome_is_the_status_lines(sender, status, outcome):
    answer = f"HTTP/1.1 {status} X\r\ndate: now\r\nretry-after: 7\r\nx-other: 1\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering(answer.encode())) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.status_code, attempt.error) == (Outcome(outcome), status, None)
    assert attempt.headers == {"retry-after": "7", "date": "now"}


async def test_a_stalled_body_is_delivered_within_the_grace(sender):
    assert sender_module.BODY_GRACE_S == 2.0

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await reader.read()
        peer.hung_up.set()

    async with Peer(script) as peer:
        async with asyncio.timeout(8):
            attempt = await sender.post(a_request(peer.url, timeout=30))
            await peer.hung_up.wait()
    assert (attempt.outcome, attempt.response_body, attempt.error) == (Outcome.OK, b"abc", None)
    assert 1500 < attempt.duration_ms < 5000


async def test_a_stalled_body_does_not_outlast_the_whole_timeout(sender, monkeypatch):
    monkeypatch.setattr(sender_module, "BODY_GRACE_S", 30.0)
    async with Peer(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")) as peer:
        async with asyncio.timeout(8):
            attempt = await sender.post(a_request(peer.url, timeout=0.5))
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"abc")


async def test_a_never_ending_body_is_cut_at_the_cap(sender):
    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    async with Peer(script) as peer:
        async with asyncio.timeout(8):
            attempt = await sender.post(a_request(peer.url, timeout=30))
            await peer.hung_up.wait()
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"x" * 4096)
    assert attempt.duration_ms < 1500, "the cap ends it, not the grace"


async def test_compressed_bodies_are_not_inflated(sender):
    bomb = gzip.compress(bytes(50_000_000))
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb
    async with Peer(answering_once(answer)) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, bomb[:4096])


async def test_whatever_goes_wrong_with_the_body_the_status_has_decided(sender, monkeypatch):
    async def broken(stream, n=-1):
        raise RuntimeError("a fault of the library")

    monkeypatch.setattr(aiohttp.StreamReader, "read", broken)
    async with Peer(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"")


async def test_a_body_shorter_than_promised_is_delivered(sender):
    async with Peer(answering_once(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"abc")


async def test_chunks_that_break_after_the_head_was_read_are_delivered(sender, monkeypatch):
    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await peer.go_on.wait()
        writer.write(b"ZZZ\r\n")
        await reader.read()

    async with Peer(script) as peer:
        read_body = sender_module._read_body

        async def break_then_read(response, seconds):
            peer.go_on.set()
            return await read_body(response, seconds)

        monkeypatch.setattr(sender_module, "_read_body", break_then_read)
        monkeypatch.setattr(sender_module, "BODY_GRACE_S", 0.3)
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.status_code, attempt.error) == (Outcome.OK, 200, None)


async def test_an_answer_broken_in_the_same_read_as_its_head_is_attempted_again(sender):
    """A limit of aiohttp's parser, which throws the head away; a repeat is the safe side to err on."""
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nZZZ\r\n"
    async with Peer(answering_once(answer)) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert attempt.outcome is Outcome.RETRY
    assert attempt.error.startswith("protocol: ")


async def test_informational_answers_come_before_the_real_one(sender):
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with Peer(answering(hints + OK)) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert (attempt.outcome, attempt.status_code) == (Outcome.OK, 200)


async def test_a_reason_phrase_of_garbage_changes_nothing(sender):
    answer = b"HTTP/1.1 500 \xff\xfe\x1b[31mboom\x1b[0m\r\nretry-after: \xff\x1b[2J\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering_once(answer)) as peer:
        attempt = await sender.post(a_request(peer.url))
    assert attempt.outcome is Outcome.RETRY
    assert "\x1b" not in f"{attempt.error}{dict(attempt.headers)}"
    "".join([attempt.error or "", *attempt.headers.values()]).encode()


async def test_a_second_answer_to_one_request_is_not_taken_for_the_next_ones(sender):
    """A false 200 here would lose an event for ever."""
    late, sent = asyncio.Event(), asyncio.Event()

    async def script(peer, reader, writer):
        await peer.request(reader)
        if peer.connections > 1:
            writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
            await reader.read()
            return
        writer.write(OK)
        await writer.drain()
        await late.wait()
        writer.write(OK)
        await writer.drain()
        sent.set()
        await reader.read()

    async with Peer(script) as peer:
        assert (await sender.post(a_request(peer.url))).outcome is Outcome.OK
        late.set()
        await sent.wait()
        for _ in range(20):  # let the sender's own transport read what lies in the kernel
            await asyncio.sleep(0)
        second = await sender.post(a_request(peer.url))
    assert (second.status_code, peer.connections) == (500, 2)


async def test_bytes_after_the_promised_body_spoil_the_connection_only(sender):
    async with Peer(answering_once(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n")) as peer:
        first = await sender.post(a_request(peer.url))
        second = await sender.post(a_request(peer.url))
    assert (first.outcome, second.outcome, peer.connections) == (Outcome.OK, Outcome.OK, 2)


async def test_secrets_that_the_receiver_echoes_are_not_kept(sender):
    async def echo(peer, reader, writer):
        head, body = await peer.request(reader)
        said = head + body
        writer.write(b"HTTP/1.1 500 No\r\ncontent-length: %d\r\n\r\n" % len(said) + said)
        await reader.read()

    async with Peer(echo) as peer:
        target = a_target(peer.url + "/hidden-path?k=hidden-query", x="hidden-header")
        attempt = await sender.post(build_request(a_delivery(), target, Signer([SECRET]), 1_000_000))
    assert b"[redacted]" in attempt.response_body
    assert b"hidden" not in attempt.response_body
