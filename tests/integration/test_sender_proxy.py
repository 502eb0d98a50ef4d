"""Through a proxy: a tunnel for https targets, the request itself for http ones."""

import asyncio
import base64
import contextlib
import pathlib

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
    header_values,
    nothing_left_open,
    post_once,
    run_on,
)
from sender_tls_kit import certificate_for, serving, trusting

from relay.delivery.guard import rules_for
from relay.model import Outcome

pytestmark = pytest.mark.usefixtures("openssl")
SHOP = "shop.test"
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def tunnelling(peer, reader, writer):
    """A proxy that grants every tunnel, and leads it to 127.0.0.1 whatever name was asked for."""
    head, _ = await peer.request(reader)
    port = int(head.split()[1].rpartition(b":")[2])
    there, back = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GRANTED)
    try:
        await asyncio.gather(pump(reader, back), pump(there, writer))
    finally:
        back.transport.abort()


async def pump(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    with contextlib.suppress(OSError):
        sink.close()


def through(peer, scheme="http", userinfo="", host="127.0.0.1", **files):
    return {"proxy": f"{scheme}://{userinfo}{host}:{peer.port}", **trusting(SHOP, **files)}


@both_loops
def test_a_tunnel_carries_tls_with_the_receiver(new_loop):
    async def scenario():
        async with (
            nothing_left_open(),
            Peer(answering(OK), serving(SHOP)) as peer,
            Peer(tunnelling) as proxy,
            a_sender(f"https://shop.test:{peer.port}/a/b?c", **through(proxy, userinfo="us%40er:p%3Ass@")) as sender,
        ):
            for _ in range(3):
                attempt = await sender.post(a_request(headers=[("x-key", "hidden")]))
                assert attempt.outcome is Outcome.OK
        assert (proxy.connections, peer.connections, len(peer.requests)) == (1, 1, 3)
        [(head, _)] = proxy.requests
        assert head.startswith(b"CONNECT shop.test:%d HTTP/1.1\r\n" % peer.port)
        assert header_values(head, "host") == [f"shop.test:{peer.port}"]
        [basic] = header_values(head, "proxy-authorization")
        assert base64.b64decode(basic.removeprefix("Basic ")) == b"us@er:p:ss"
        assert b"hidden" not in head
        assert peer.requests[0][0].startswith(b"POST /a/b?c HTTP/1.1\r\n")
        assert header_values(peer.requests[0][0], "proxy-authorization") == []

    run_on(new_loop, scenario())


@both_loops
def test_a_tunnel_through_a_proxy_that_speaks_tls(new_loop, tmp_path):
    both = tmp_path / "both.pem"
    both.write_text("".join(pathlib.Path(certificate_for(host)[0]).read_text() for host in (SHOP, "proxy.test")))

    async def scenario():
        lookup = Names()
        async with (
            nothing_left_open(),
            Peer(answering(OK), serving(SHOP)) as peer,
            Peer(tunnelling, serving("proxy.test")) as proxy,
            a_sender(
                f"https://shop.test:{peer.port}/",
                lookup,
                **through(proxy, scheme="https", host="proxy.test", ca_file=str(both)),
            ) as sender,
        ):
            for _ in range(3):
                attempt = await sender.post(a_request(body=bytes(200_000)))
                assert (attempt.outcome, attempt.error) == (Outcome.OK, None)
        assert lookup.asked == ["proxy.test"], "the receiver's name is the proxy's to look up"
        assert (proxy.connections, len(peer.requests)) == (1, 3)

    run_on(new_loop, scenario())


async def test_a_plain_request_goes_to_the_proxy_itself():
    async with (
        Peer(answering(OK)) as proxy,
        a_sender("http://shop.test/a?b", proxy=f"http://u:p@127.0.0.1:{proxy.port}/") as sender,
    ):
        for _ in range(2):
            assert (await sender.post(a_request())).outcome is Outcome.OK
    assert proxy.connections == 1
    head = proxy.requests[0][0]
    assert head.startswith(b"POST http://shop.test/a?b HTTP/1.1\r\n")
    assert header_values(head, "host") == ["shop.test"]
    assert header_values(head, "proxy-authorization") == ["Basic dTpw"]


async def test_the_proxys_credentials_are_not_kept_when_echoed():
    async def echo(peer, reader, writer):
        head, _ = await peer.request(reader)
        writer.write(b"HTTP/1.1 500 No\r\ncontent-length: %d\r\n\r\n" % len(head) + head)

    async with Peer(echo) as proxy:
        attempt = await post_once("http://shop.test/", proxy=f"http://user:hidden-word@127.0.0.1:{proxy.port}/")
    assert b"Basic [redacted]" in attempt.response_body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", "it wants other credentials than those in proxy (407)"),
        (b"HTTP/1.1 403 No\r\ncontent-length: 3\r\n\r\nno!", "it refused the tunnel to the receiver (403)"),
        (b"HTTP/1.1 502 Bad\r\n\r\n<html>", "it refused the tunnel to the receiver (502)"),
        (b"HTTP/1.1 302 Go\r\nlocation: /\r\n\r\n", "it refused the tunnel to the receiver (302)"),
        (b"220 mail ready\r\n", "it cannot be used (protocol: the answer is not usable HTTP (Expected HTTP/"),
        (b"", "it cannot be used (reset: connection closed before an answer)"),
        (
            GRANTED + b"HTTP/1.1 200 OK\r\n\r\n",
            "it cannot be used (protocol: the answer is not usable HTTP (it go",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" + OK, "it cannot be used (protocol: the answer is not usable"),
    ],
)
@both_loops
def test_a_proxy_that_grants_no_tunnel(new_loop, answer, error):
    async def scenario():
        async with nothing_left_open(), Peer(answering_once(answer)) as proxy:
            attempt = await post_once("https://shop.test/", **through(proxy))
        assert (attempt.outcome, attempt.kind, attempt.status_code) == (Outcome.RETRY, "proxy", None)
        assert attempt.error.startswith(f"proxy: {error}")

    run_on(new_loop, scenario())


@both_loops
def test_what_follows_a_granted_tunnel_later_is_not_taken_for_an_answer(new_loop):
    async def forging(peer, reader, writer):
        await peer.request(reader)
        writer.write(GRANTED)
        await reader.read(10)
        writer.write(OK)
        await reader.read()

    async def scenario():
        async with nothing_left_open(), Peer(forging) as proxy:
            attempt = await post_once("https://shop.test/", **through(proxy))
        assert (attempt.outcome, attempt.kind) == (Outcome.RETRY, "tls")

    run_on(new_loop, scenario())


@both_loops
def test_a_proxy_that_stalls_ends_at_the_timeout(new_loop):
    async def stalling(peer, reader, writer):
        await peer.request(reader)
        await reader.read()
        peer.hung_up.set()

    async def scenario():
        async with nothing_left_open(), Peer(stalling) as proxy, asyncio.timeout(8):
            attempt = await post_once("https://shop.test/", a_request(timeout=0.3), **through(proxy))
            await proxy.hung_up.wait()
        assert attempt.error == "timeout: no answer within 0.3 s: waiting for the proxy's answer"

    run_on(new_loop, scenario())


async def test_a_proxy_that_nobody_runs_or_whose_certificate_is_unknown():
    async with Peer(answering(OK), serving(SHOP)) as proxy:
        settings = through(proxy, scheme="https", host="localhost")
        unknown = await post_once("https://shop.test/", **settings)
    nobody = await post_once("https://shop.test/", **through(proxy))
    assert nobody.error == "proxy: it cannot be used (connect: Connection refused)"
    assert unknown.error.startswith("proxy: it cannot be used (tls: certificate refused, Hostname mismatch")


async def test_the_proxys_own_address_is_judged():
    async with Peer(tunnelling) as proxy:
        settings = {"proxy": f"http://proxy.test:{proxy.port}"}
        attempt = await post_once("https://shop.test/", lookup=Names("127.0.0.1"), **settings)
        assert (attempt.outcome, attempt.kind) == (Outcome.FORBIDDEN, "forbidden")
        assert proxy.connections == 0


async def test_a_literal_receiver_is_judged_although_the_proxy_would_dial_it():
    async with Peer(tunnelling) as proxy:
        settings = {"proxy": f"http://127.0.0.1:{proxy.port}", "allow_networks": ["10.0.0.0/8"]}
        async with a_sender("https://10.0.0.1/", **settings) as sender:
            # As after a change of the configuration's rules: the sender does not rely on them.
            route = sender._pool._dial.__self__._route
            object.__setattr__(route.receiver, "rules", rules_for("10.0.0.1", ()))
            attempt = await sender.post(a_request())
        assert (attempt.outcome, attempt.kind) == (Outcome.FORBIDDEN, "forbidden")
        assert proxy.connections == 0
