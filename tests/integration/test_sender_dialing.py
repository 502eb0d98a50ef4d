"""Which addresses are dialled, in which order, for how long, and which never are."""

import asyncio
import errno
import socket

import pytest
from sender_kit import (
    OK,
    Names,
    Peer,
    a_request,
    a_sender,
    answering,
    both_loops,
    nothing_left_open,
    post_once,
    run_on,
)

from relay.delivery import dialing
from relay.model import Outcome

LOOPBACK = ["127.0.0.0/8"]
DEAD = "192.0.2.1"


@pytest.fixture
def dialled(monkeypatch):
    """Every address that a connect was tried to; those that are not this machine's never answer."""
    tried = []
    connect = dialing._connected

    async def noted(address, port):
        tried.append(str(address))
        if str(address).startswith("127."):
            return await connect(address, port)
        return await asyncio.Event().wait()

    monkeypatch.setattr(dialing, "_connected", noted)
    return tried


@both_loops
@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1"])
def test_a_name_that_leads_to_a_forbidden_address_is_not_dialled(new_loop, dialled, address):
    async def scenario():
        async with nothing_left_open():
            attempt = await post_once("https://shop.test/", lookup=Names(address))
        assert (attempt.outcome, attempt.kind, attempt.status_code) == (Outcome.FORBIDDEN, "forbidden", None)
        assert attempt.error.startswith("forbidden: ")
        assert dialled == []

    run_on(new_loop, scenario())


async def test_of_mixed_addresses_only_the_allowed_are_dialled(dialled):
    async with Peer(answering(OK)) as peer:
        settings = {"allow_networks": ["127.0.0.2/32"]}
        url = f"http://shop.test:{peer.port}/"
        attempt = await post_once(url, lookup=Names("127.0.0.1", "127.0.0.2", "10.0.0.1"), **settings)
    assert (attempt.kind, dialled, peer.connections) == ("connect", ["127.0.0.2"], 0)


async def test_a_name_that_says_loopback_may_lead_nowhere_else(dialled):
    attempt = await post_once("http://localhost:9/", lookup=Names("93.184.216.34"))
    assert (attempt.outcome, dialled) == (Outcome.FORBIDDEN, [])


async def test_every_connection_is_judged_anew(dialled):
    """Rebinding: a public address first, this machine the next time."""
    lookup = Names("127.0.0.1")
    async with Peer(answering(OK)) as peer:
        url = f"http://shop.test:{peer.port}/"
        async with a_sender(url, lookup, allow_networks=["127.0.0.1/32"]) as sender:
            assert (await sender.post(a_request())).outcome is Outcome.OK
            for _, connection in sender._pool._idle:
                connection.abort()
            await asyncio.sleep(0)
            lookup._addresses = Names("127.0.0.2")._addresses
            assert (await sender.post(a_request())).outcome is Outcome.FORBIDDEN
    assert dialled == ["127.0.0.1"]


async def test_a_dead_address_does_not_eat_the_whole_time(dialled, monkeypatch):
    monkeypatch.setattr(dialing, "ADDRESS_SHARE_S", 0.1)
    async with Peer(answering(OK)) as peer:
        lookup, url = Names("8.8.8.8", "2606:4700::1111", "127.0.0.1"), f"http://shop.test:{peer.port}/"
        async with nothing_left_open(), a_sender(url, lookup, allow_networks=LOOPBACK) as sender:
            attempts = await asyncio.gather(*(sender.post(a_request(timeout=20)) for _ in range(2)))
            first = list(dialled)
            del dialled[:]
            attempts += await asyncio.gather(*(sender.post(a_request()) for _ in range(3)))
    assert {attempt.outcome for attempt in attempts} == {Outcome.OK}
    assert sorted(first) == sorted(["8.8.8.8", "2606:4700::1111", "127.0.0.1"] * 2)
    assert dialled == ["127.0.0.1"], "the one that worked last comes first"
    assert attempts[0].duration_ms < 5000


async def test_the_share_of_an_address_is_bounded_by_the_time_that_is_left(dialled):
    attempt = await post_once("http://shop.test/", a_request(timeout=0.4), Names("8.8.8.8", "8.8.4.4"))
    assert attempt.error == "timeout: no answer within 0.4 s: connecting to the address"
    assert dialled == ["8.8.8.8", "8.8.4.4"]


async def test_families_take_turns_and_only_so_many_are_tried(monkeypatch):
    tried = []

    async def refused(address, port):
        tried.append(str(address))
        raise OSError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(dialing, "_connected", refused)
    six = [f"2606:4700::{number}" for number in range(1, 7)]
    attempt = await post_once("http://shop.test/", lookup=Names(*six, "8.8.8.8", "8.8.4.4"))
    assert tried == ["2606:4700::1", "8.8.8.8", "2606:4700::2", "8.8.4.4", "2606:4700::3", "2606:4700::4"]
    assert attempt.error == "connect: Connection refused (the last of 6 addresses)"


async def test_a_timeout_of_the_kernel_is_a_connect_error(monkeypatch):
    async def timed_out(address, port):
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(dialing, "_connected", timed_out)
    attempt = await post_once("http://shop.test/", lookup=Names("8.8.8.8"))
    assert attempt.error == "connect: Connection timed out"


@both_loops
def test_cancelling_a_connect_leaves_nothing(new_loop):
    """A listening socket whose queue is full: the kernel answers no further connect."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listening.getsockname()
    fill = []

    async def scenario():
        loop = asyncio.get_running_loop()
        stuck = False
        while not stuck and len(fill) < 64:
            fill.append(socket.socket())
            fill[-1].setblocking(False)
            try:
                async with asyncio.timeout(0.2):
                    await loop.sock_connect(fill[-1], address)
            except TimeoutError:
                stuck = True
        assert stuck
        async with nothing_left_open(), a_sender(f"http://127.0.0.1:{address[1]}/") as sender:
            late = await sender.post(a_request(timeout=0.2))
            assert late.error == "timeout: no answer within 0.2 s: connecting to the address"
            under_way = asyncio.create_task(sender.post(a_request()))
            for _ in range(5):
                await asyncio.sleep(0)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way

    try:
        run_on(new_loop, scenario())
    finally:
        for sock in (listening, *fill):
            sock.close()


async def test_sockets_notice_dead_peers_and_do_not_wait_to_fill_packets():
    async with Peer(answering(OK)) as peer, a_sender(peer.url) as sender:
        await sender.post(a_request())
        [(_, connection)] = sender._pool._idle
        assert connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@both_loops
def test_ipv6_literals(new_loop):
    async def scenario():
        async with Peer(answering(OK), host="::1") as peer:
            attempt = await post_once(f"http://[::1]:{peer.port}/")
        assert attempt.outcome is Outcome.OK
        assert peer.requests[0][0].split(b"\r\n")[1] == f"host: [::1]:{peer.port}".encode()

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    run_on(new_loop, scenario())
