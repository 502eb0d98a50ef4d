"""Connections that are kept, spoilt, cut off and closed: no answer is ever taken for that to another request."""

import asyncio
import gc
import socket
import weakref

import pytest
from sender_kit import (
    EMPTY,
    OK,
    Peer,
    a_request,
    a_sender,
    answering,
    answering_once,
    both_loops,
    nothing_left_open,
    run_on,
    silent,
)
from support.until import until

from relay.delivery import pool as pool_module
from relay.model import Outcome

UNASKED = b"HTTP/1.1 299 Unasked\r\ncontent-length: 0\r\n\r\n"


@both_loops
def test_a_second_answer_to_one_request_is_not_taken_for_the_next_ones(new_loop):
    """A false 2xx here would lose an event for ever."""

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(OK)
        await writer.drain()
        await peer.go_on.wait()
        peer.go_on.clear()
        writer.write(UNASKED)
        await reader.read()

    async def scenario():
        async with nothing_left_open(), Peer(script) as peer, a_sender(peer.url) as sender:
            for _ in range(3):
                assert (await sender.post(a_request())).status_code == 200
                peer.go_on.set()
                await until(lambda: not sender._pool._open)
            assert peer.connections == 3

    run_on(new_loop, scenario())


@both_loops
def test_a_second_answer_that_the_loop_has_not_read_yet_is_noticed(new_loop):
    """It lies in the kernel when the next request is about to be written."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(5)

    def serve(status):
        connection, _ = listening.accept()
        connection.settimeout(5)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
        return connection

    async def scenario():
        async with nothing_left_open():
            async with a_sender(f"http://127.0.0.1:{listening.getsockname()[1]}/") as sender:
                first, theirs = await asyncio.gather(sender.post(a_request()), asyncio.to_thread(serve, 200))
                # Without giving the loop a turn: sent, arrived, not read.
                theirs.sendall(UNASKED)
                second, other = await asyncio.gather(sender.post(a_request()), asyncio.to_thread(serve, 500))
            theirs.close()
            other.close()
        assert (first.status_code, second.status_code) == (200, 500)

    with listening:
        run_on(new_loop, scenario())


@pytest.mark.parametrize("said", [OK, b"220 mail.example.com ESMTP\r\n", b"\r\n"])
async def test_an_answer_before_anything_was_asked_is_none(said):
    listening = socket.create_server(("127.0.0.1", 0))

    with listening:
        port = listening.getsockname()[1]
        async with a_sender(f"http://127.0.0.1:{port}/") as sender:
            dial, accepted = sender._pool._dial, []

            async def dial_then_hear(progress):
                connection = await dial(progress)
                accepted.append((await asyncio.to_thread(listening.accept))[0])
                accepted[0].setblocking(False)
                accepted[0].sendall(said)
                return connection

            sender._pool._dial = dial_then_hear
            attempt = await sender.post(a_request(timeout=3))
        accepted[0].close()
    assert (attempt.outcome, attempt.kind) == (Outcome.RETRY, "reset")
    assert attempt.error == "reset: the receiver spoke, or hung up, before anything was sent"


async def test_idle_connections_end_after_their_time(monkeypatch):
    assert pool_module.IDLE_LIMIT_S == 4.0
    monkeypatch.setattr(pool_module, "IDLE_LIMIT_S", 0.2)

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(EMPTY)
        await reader.read()
        peer.hung_up.set()

    async with nothing_left_open(), Peer(script) as peer, a_sender(peer.url) as sender:
        await sender.post(a_request())
        async with asyncio.timeout(5):
            await peer.hung_up.wait()
        await until(lambda: not sender._pool._idle)


async def test_one_that_has_waited_too_long_is_not_used(monkeypatch):
    async with Peer(answering(OK)) as peer, a_sender(peer.url) as sender:
        await sender.post(a_request())
        monkeypatch.setattr(pool_module, "IDLE_LIMIT_S", -1.0)
        await sender.post(a_request())
        assert peer.connections == 2
        await until(lambda: len(sender._pool._open) == 1, seconds=2)


async def test_the_most_recently_used_one_is_used_first():
    ports = []

    async def script(peer, reader, writer):
        while True:
            await peer.request(reader)
            ports.append(writer.get_extra_info("peername")[1])
            await peer.go_on.wait()
            writer.write(OK)

    async with Peer(script) as peer, a_sender(peer.url) as sender:
        together = [asyncio.create_task(sender.post(a_request())) for _ in range(3)]
        await peer.wait_for_requests(3)
        peer.go_on.set()
        await asyncio.gather(*together)
        del ports[:]
        for _ in range(5):
            await sender.post(a_request())
        assert len(set(ports)) == 1
        assert peer.connections == 3


@both_loops
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"], ids=["head", "body"])
def test_cancelling_passes_through_and_hangs_up(new_loop, answer):
    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(answer)
        await reader.read()
        peer.hung_up.set()

    async def scenario():
        async with nothing_left_open(), Peer(script) as peer, a_sender(peer.url) as sender:
            under_way = asyncio.create_task(sender.post(a_request()))
            await peer.wait_for_requests(1)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            async with asyncio.timeout(1):
                await peer.hung_up.wait()

    run_on(new_loop, scenario())


async def test_closing_ends_attempts_that_are_under_way():
    async with nothing_left_open(), Peer(silent) as peer, a_sender(peer.url) as sender:
        under_way = asyncio.create_task(sender.post(a_request(timeout=30)))
        await peer.wait_for_requests(1)
        await sender.close()
        attempt = await under_way
    assert (attempt.outcome, attempt.kind) == (Outcome.RETRY, "reset")


@both_loops
def test_a_kept_connection_that_dies_under_a_request_is_not_tried_again(new_loop):
    """The receiver may have processed it: a repeat is for the scheduler, under the same id."""

    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(OK)
        await peer.request(reader)

    async def scenario():
        async with nothing_left_open(), Peer(script) as peer, a_sender(peer.url) as sender:
            assert (await sender.post(a_request())).outcome is Outcome.OK
            second = await sender.post(a_request())
            assert second.outcome is Outcome.RETRY
            assert second.error == "reset: connection closed before an answer; the request may have been processed"
            assert (peer.connections, len(peer.requests)) == (1, 2)

    run_on(new_loop, scenario())


@both_loops
def test_an_idle_connection_that_was_closed_is_not_used(new_loop):
    async def scenario():
        async with nothing_left_open(), Peer(answering_once(OK)) as peer, a_sender(peer.url) as sender:
            for count in (1, 2, 3):
                assert (await sender.post(a_request())).outcome is Outcome.OK
                assert peer.connections == count
                await until(lambda: not sender._pool._open)

    run_on(new_loop, scenario())


async def test_a_dropped_connection_is_freed_without_the_garbage_collector():
    async with Peer(answering(OK)) as peer, a_sender(peer.url) as sender:
        await sender.post(a_request())
        [connection] = sender._pool._open
        gone = [weakref.ref(connection), weakref.ref(connection._reader)]
        gc.disable()
        try:
            sender._pool._idle.clear()
            connection.abort()
            del connection
            await until(lambda: [reference() for reference in gone] == [None, None])
        finally:
            gc.enable()
