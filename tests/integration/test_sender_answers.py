"""What becomes of an answer: the status decides, as soon as the head is complete."""

import asyncio
import gzip
import tracemalloc

import pytest
from sender_kit import (
    OK,
    SECRET,
    Peer,
    a_delivery,
    a_request,
    a_sender,
    a_target,
    answering,
    answering_once,
    both_loops,
    nothing_left_open,
    post_once,
    run_on,
)

from relay.delivery import answer as answer_module
from relay.delivery import sender as sender_module
from relay.delivery.request import build_request, fixed_part
from relay.delivery.signer import Signer
from relay.model import Outcome


@pytest.fixture
def little_memory():
    """No answer may cost more than this, however large it says it is or becomes."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (204, "ok"), (299, "ok"), (410, "gone"), (400, "refused"), (503, "retry"), (999, "retry")],
)
async def test_the_outcome_is_the_status_lines(status, outcome):
    kept = (
        "date: now\r\nRetry-After: 7\r\nwebhook-delivery: disable\r\nserver: s\r\ncontent-type: t\r\nlocation: /l\r\n"
    )
    answer = f"HTTP/1.1 {status} X\r\n{kept}x-other: 1\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering(answer.encode())) as peer:
        attempt = await post_once(peer.url)
    assert (attempt.outcome, attempt.status_code, attempt.error, attempt.kind) == (Outcome(outcome), status, None, None)
    assert attempt.headers == {
        **{"date": "now", "retry-after": "7", "webhook-delivery": "disable", "server": "s"},
        **{"content-type": "t", "location": "/l"},
    }


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ntrailer: x\r\n\r\n",
    ],
    ids=["no reason phrase", "no content", "chunked with a trailer"],
)
async def test_answers_that_leave_their_connection_usable(answer):
    async with Peer(answering(answer)) as peer, a_sender(peer.url) as sender:
        for _ in range(3):
            assert (await sender.post(a_request())).outcome is Outcome.OK
        assert peer.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokx",
    ],
    ids=["1.0", "1.0 keep-alive", "close", "a second answer at once", "a byte too many"],
)
async def test_answers_that_end_their_connection(answer):
    async with Peer(answering(answer)) as peer, a_sender(peer.url) as sender:
        for _ in range(3):
            attempt = await sender.post(a_request())
            assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"ok")
        assert peer.connections == 3


@pytest.fixture
def no_grace(monkeypatch):
    """The grace for a body would outlast the test: something else has to end it."""
    monkeypatch.setattr(sender_module, "BODY_GRACE_S", 60.0)


async def test_a_body_that_ends_with_its_connection(no_grace):
    async with Peer(answering_once(b"HTTP/1.1 200 OK\r\n\r\nall of it")) as peer, asyncio.timeout(20):
        attempt = await post_once(peer.url, a_request(timeout=30))
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"all of it")


@both_loops
def test_a_stalled_body_is_delivered_within_the_grace(new_loop, monkeypatch):
    assert sender_module.BODY_GRACE_S == 2.0
    monkeypatch.setattr(sender_module, "BODY_GRACE_S", 0.2)

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await reader.read()
        peer.hung_up.set()

    async def scenario():
        async with nothing_left_open(), Peer(script) as peer, asyncio.timeout(8):
            attempt = await post_once(peer.url, a_request(timeout=30))
            await peer.hung_up.wait()
        assert (attempt.outcome, attempt.response_body, attempt.error) == (Outcome.OK, b"abc", None)
        assert 150 < attempt.duration_ms < 5000

    run_on(new_loop, scenario())


async def test_a_trickling_body_is_delivered_within_the_grace(monkeypatch):
    monkeypatch.setattr(sender_module, "BODY_GRACE_S", 0.3)

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with Peer(script) as peer:
        attempt = await post_once(peer.url, a_request(timeout=30))
    assert attempt.outcome is Outcome.OK
    assert attempt.duration_ms < 5000


async def test_a_stalled_body_does_not_outlast_the_whole_timeout(monkeypatch):
    monkeypatch.setattr(sender_module, "BODY_GRACE_S", 30.0)
    async with Peer(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")) as peer:
        async with asyncio.timeout(8):
            attempt = await post_once(peer.url, a_request(timeout=0.5))
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"abc")


ENDLESS = {
    "chunks": (b"transfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "chunks of one byte": (b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 500),
    "no length": (b"\r\n", b"x" * 4096),
    "a gigabyte": (b"content-length: 1073741824\r\n\r\n", b"x" * 65536),
    "trailers": (b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: ", b"x" * 4096),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_a_never_ending_body_is_cut_at_the_cap(kind, little_memory, no_grace):
    rest_of_head, piece = ENDLESS[kind]

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + rest_of_head)
        while True:
            writer.write(piece)
            await writer.drain()

    async with Peer(script) as peer:
        async with asyncio.timeout(20):
            attempt = await post_once(peer.url, a_request(timeout=30))
            await peer.hung_up.wait()
    assert attempt.outcome is Outcome.OK
    assert attempt.response_body == (b"x" if kind == "trailers" else b"x" * 4096)


async def test_compressed_bodies_are_not_inflated(little_memory):
    bomb = gzip.compress(bytes(4_000_000)) * 10
    answer = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb
    async with Peer(answering_once(answer)) as peer:
        attempt = await post_once(peer.url)
    assert (attempt.outcome, attempt.response_body) == (Outcome.OK, bomb[:4096])


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"content-length: 10\r\n\r\nabc", b"abc"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nZZZ\r\n", b"abc"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc"),
        (b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", b""),
    ],
    ids=["shorter than promised", "a broken chunk", "no last chunk", "an absurd chunk"],
)
async def test_whatever_is_wrong_with_the_body_the_status_has_decided(answer, kept):
    async with Peer(answering_once(b"HTTP/1.1 200 OK\r\n" + answer)) as peer:
        attempt = await post_once(peer.url)
    assert (attempt.outcome, attempt.status_code, attempt.error) == (Outcome.OK, 200, None)
    assert attempt.response_body == kept


async def test_a_body_that_is_cut_by_a_reset_is_delivered(no_grace):
    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await peer.go_on.wait()
        writer.transport.abort()

    async with Peer(script) as peer, a_sender(peer.url) as sender:
        under_way = asyncio.create_task(sender.post(a_request(timeout=30)))
        await peer.wait_for_requests(1)
        peer.go_on.set()
        async with asyncio.timeout(20):
            attempt = await under_way
    assert attempt.outcome is Outcome.OK


async def test_informational_answers_come_before_the_real_one():
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nretry-after: 5\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with Peer(answering(hints * 8 + OK)) as peer, a_sender(peer.url) as sender:
        for _ in range(2):
            attempt = await sender.post(a_request())
            assert (attempt.outcome, attempt.status_code, attempt.headers) == (Outcome.OK, 200, {})
        assert peer.connections == 1
    assert answer_module.INTERIM_CAP == 16


async def test_a_head_a_byte_at_a_time_is_read():
    async def script(peer, reader, writer):
        await peer.request(reader)
        for byte in b"HTTP/1.1 200 OK\r\nserver: slow\r\ncontent-length: 2\r\n\r\nok":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with Peer(script) as peer:
        attempt = await post_once(peer.url)
    assert (attempt.status_code, attempt.headers, attempt.response_body) == (200, {"server": "slow"}, b"ok")


async def test_a_reason_phrase_of_garbage_changes_nothing():
    answer = b"HTTP/1.1 500 \xff\xfe" + b"\xe9" * 20_000 + b"\r\nserver: \xff\xe9\xa0x\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering_once(answer)) as peer:
        attempt = await post_once(peer.url)
    assert (attempt.outcome, attempt.status_code) == (Outcome.RETRY, 500)
    assert attempt.headers == {"server": "ÿé\\xa0x"}


async def test_long_headers_are_cut():
    answer = b"HTTP/1.1 500 No\r\nserver: " + b"\xe9" * 20_000 + b"\r\ncontent-length: 0\r\n\r\n"
    async with Peer(answering_once(answer)) as peer:
        attempt = await post_once(peer.url)
    assert attempt.headers == {"server": "é" * 128}


async def test_secrets_that_the_receiver_echoes_are_not_kept():
    async def echo(peer, reader, writer):
        head, body = await peer.request(reader)
        said = head + body
        where = b"location: https://elsewhere.test" + head.split(b" ")[1]
        writer.write(b"HTTP/1.1 500 No\r\n%s\r\ncontent-length: %d\r\n\r\n" % (where, len(said)) + said)
        await reader.read()

    async with Peer(echo) as peer:
        url = peer.url + "/hidden-path?k=hidden-query"
        target = a_target(url, {"x": "hidden-header"})
        request = build_request(a_delivery(), fixed_part(target, {}), Signer([SECRET]), 1_000_000, partner_id="p")
        attempt = await post_once(url, request)
    assert b"[redacted]" in attempt.response_body
    assert b"hidden" not in attempt.response_body
    assert attempt.headers["location"].startswith("https://elsewhere.test/hooks/[redacted]")
    assert "hidden" not in attempt.headers["location"]


async def test_a_secret_across_the_cap_is_not_kept_in_part():
    said = b"." * 4090 + b"hidden-value" + b"." * 100
    answer = b"HTTP/1.1 500 No\r\ncontent-length: %d\r\n\r\n" % len(said) + said
    async with Peer(answering_once(answer)) as peer:
        attempt = await post_once(peer.url, a_request(hidden=("hidden-value",)))
    assert attempt.response_body == b"." * 4090 + b"[redac"
