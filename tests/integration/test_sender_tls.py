"""TLS: which certificates and versions are accepted, what is said about those that are not, and what is left open."""

import asyncio
import gc
import ssl

import pytest
from sender_kit import (
    OK,
    Peer,
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
from sender_tls_kit import LOOPBACK, blocking_server, certificate_for, serving, trusting
from support.until import until

from relay.delivery.route import route_of
from relay.errors import RelayError
from relay.model import Outcome

pytestmark = pytest.mark.usefixtures("openssl")
SHOP = "shop.test"


@both_loops
def test_a_trusted_certificate_is_accepted_and_its_connection_kept(new_loop):
    async def scenario():
        async with (
            nothing_left_open(),
            Peer(answering(OK), serving(SHOP)) as peer,
            a_sender(f"https://shop.test:{peer.port}/", **trusting(SHOP)) as sender,
        ):
            for _ in range(3):
                attempt = await sender.post(a_request())
                assert (attempt.outcome, attempt.error) == (Outcome.OK, None)
                if attempt.timings.tls_ms is not None:
                    first = attempt
            assert peer.connections == 1
        assert first.timings.tls_ms > 0
        assert first.timings.dns_ms is not None

    run_on(new_loop, scenario())


async def test_the_systems_authorities_count_without_a_ca_file(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate_for(SHOP)[0])
    async with Peer(answering(OK), serving(SHOP)) as peer:
        attempt = await post_once(f"https://shop.test:{peer.port}/", allow_networks=LOOPBACK)
    assert attempt.outcome is Outcome.OK


async def test_a_self_signed_certificate_is_a_tls_error():
    async with nothing_left_open(), Peer(answering(OK), serving(SHOP)) as peer:
        attempt = await post_once(f"https://shop.test:{peer.port}/", allow_networks=LOOPBACK)
    assert (attempt.outcome, attempt.kind) == (Outcome.RETRY, "tls")
    said = "tls: certificate refused, self-signed certificate; name its authority in tls.ca_file"
    assert attempt.error.replace("self signed", "self-signed") == said
    assert peer.requests == []


@both_loops
def test_a_certificate_for_another_name_is_a_tls_error(new_loop):
    async def scenario():
        async with nothing_left_open(), Peer(answering(OK), serving(SHOP)) as peer:
            attempt = await post_once(f"https://other.test:{peer.port}/", **trusting(SHOP))
        assert attempt.error.startswith("tls: certificate refused, Hostname mismatch")
        assert peer.requests == []

    run_on(new_loop, scenario())


async def test_two_names_on_one_address_are_told_apart():
    contexts = {host: serving(host) for host in (SHOP, "other.test")}
    context = serving(SHOP)
    context.sni_callback = lambda tls, name, _: setattr(tls, "context", contexts[name])
    async with Peer(answering(OK), context) as peer:
        for host in contexts:
            assert (await post_once(f"https://{host}:{peer.port}/", **trusting(host))).outcome is Outcome.OK


async def test_an_expired_certificate_is_a_tls_error():
    # Days below zero, so that it ended before it began to be used.
    expired = certificate_for(SHOP, days=-1)[0]
    async with Peer(answering(OK), serving(SHOP, days=-1)) as peer:
        attempt = await post_once(f"https://shop.test:{peer.port}/", **trusting(SHOP, ca_file=expired))
    assert attempt.error == "tls: certificate refused, certificate has expired"


@both_loops
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_before_1_2_are_refused(new_loop, version):
    context = serving(SHOP)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version

    async def scenario(port):
        async with nothing_left_open():
            attempt = await post_once(f"https://shop.test:{port}/", **trusting(SHOP))
        assert attempt.error == "tls: only TLS older than 1.2 is offered there"

    with blocking_server(context) as (port, requests):
        run_on(new_loop, scenario(port))
    assert requests == []


async def test_version_1_2_is_accepted():
    async with Peer(answering(OK), serving(SHOP, maximum_version=ssl.TLSVersion.TLSv1_2)) as peer:
        assert (await post_once(f"https://shop.test:{peer.port}/", **trusting(SHOP))).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 400 No\r\n\r\n", "that port does not speak TLS"),
        (b"220 mail.example.com ESMTP\r\n", "that port does not speak TLS"),
        (b"", "connection closed during the handshake"),
    ],
)
@both_loops
def test_tls_towards_a_plain_port_is_a_tls_error(new_loop, said, error):
    async def plain(peer, reader, writer):
        await reader.read(10)
        writer.write(said)
        await writer.drain()

    async def scenario():
        async with nothing_left_open(), Peer(plain) as peer:
            attempt = await post_once(f"https://shop.test:{peer.port}/", **trusting(SHOP))
        assert (attempt.kind, attempt.error) == ("tls", f"tls: {error}")

    run_on(new_loop, scenario())


async def test_plain_http_towards_a_tls_port_fails_without_an_answer():
    async with Peer(answering(OK), serving(SHOP)) as peer:
        attempt = await post_once(f"http://127.0.0.1:{peer.port}/")
    assert attempt.outcome is Outcome.RETRY
    assert attempt.kind in ("protocol", "reset")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@both_loops
def test_a_client_certificate_is_asked_for(new_loop, version):
    own = certificate_for("relay.test")
    context = serving(SHOP, verify_mode=ssl.CERT_REQUIRED, minimum_version=version, maximum_version=version)
    context.load_verify_locations(own[0])

    async def scenario(port):
        url = f"https://shop.test:{port}/"
        async with nothing_left_open():
            without = await post_once(url, **trusting(SHOP))
            given = await post_once(url, **trusting(SHOP, cert_file=own[0], key_file=own[1]))
        assert (without.outcome, without.kind) == (Outcome.RETRY, "tls")
        assert "client certificate" in without.error
        assert given.outcome is Outcome.OK

    with blocking_server(context) as (port, requests):
        run_on(new_loop, scenario(port))
    assert len(requests) == 1


@both_loops
def test_a_handshake_that_stalls_ends_at_the_timeout(new_loop):
    async def stalling(peer, reader, writer):
        await reader.read(10)
        await peer.go_on.wait()

    async def scenario():
        async with nothing_left_open(), Peer(stalling) as peer:
            attempt = await post_once(f"https://shop.test:{peer.port}/", a_request(timeout=0.3), **trusting(SHOP))
        assert attempt.error == "timeout: no answer within 0.3 s: agreeing on TLS"
        assert attempt.duration_ms < 3000

    run_on(new_loop, scenario())


@both_loops
def test_cancelling_a_handshake_leaves_nothing(new_loop):
    async def stalling(peer, reader, writer):
        await reader.read(10)
        peer.hung_up.set()
        await peer.go_on.wait()

    async def scenario():
        async with (
            nothing_left_open(),
            Peer(stalling) as peer,
            a_sender(f"https://shop.test:{peer.port}/", **trusting(SHOP)) as sender,
        ):
            under_way = asyncio.create_task(sender.post(a_request()))
            await peer.hung_up.wait()
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way

    run_on(new_loop, scenario())


@both_loops
def test_an_answer_that_tls_cuts_short_has_decided(new_loop):
    async def script(peer, reader, writer):
        await peer.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await writer.drain()

    async def scenario():
        async with nothing_left_open(), Peer(script, serving(SHOP)) as peer:
            attempt = await post_once(f"https://shop.test:{peer.port}/", **trusting(SHOP))
        assert (attempt.outcome, attempt.response_body) == (Outcome.OK, b"abc")

    run_on(new_loop, scenario())


@both_loops
def test_a_second_answer_over_tls_is_not_taken_for_the_next_ones(new_loop):
    async def twice(peer, reader, writer):
        while True:
            await peer.request(reader)
            writer.write(OK)
            await writer.drain()
            writer.write(b"HTTP/1.1 299 Unasked\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            await peer.go_on.wait()

    async def scenario():
        async with (
            nothing_left_open(),
            Peer(twice, serving(SHOP)) as peer,
            a_sender(f"https://shop.test:{peer.port}/", **trusting(SHOP)) as sender,
        ):
            for _ in range(3):
                assert (await sender.post(a_request())).status_code == 200
                await until(lambda: not sender._pool._open)
            assert peer.connections == 3

    run_on(new_loop, scenario())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"ca_file": "missing"}, "tls.ca_file of target shop cannot be used: No such file or directory"),
        ({"ca_file": "junk"}, "tls.ca_file of target shop cannot be used: "),
        ({"cert_file": "missing"}, "tls.cert_file of target shop cannot be used: No such file or directory"),
        ({"cert_file": "cert", "key_file": "other"}, "tls.cert_file with tls.key_file of target shop cannot be used: "),
        ({"cert_file": "cert", "key_file": "locked"}, "the key is encrypted; write it without a passphrase"),
    ],
)
def test_certificate_files_that_cannot_be_used_are_named(tmp_path, files, said):
    (tmp_path / "junk").write_text("no certificate")
    paths = {
        "missing": tmp_path / "no",
        "junk": tmp_path / "junk",
        "cert": certificate_for(SHOP)[0],
        "other": certificate_for("other.test")[1],
        "locked": certificate_for(SHOP, passphrase="hidden")[1],
    }
    target = a_target("https://shop.test/", tls={key: str(paths[value]) for key, value in files.items()})
    with pytest.raises(RelayError) as caught:
        route_of(target)
    assert said in str(caught.value)


@both_loops
@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_connects_and_drops_leave_nothing(new_loop, count):
    """Some Pythons and some loops keep dropped TLS connections open."""

    async def scenario():
        async with (
            nothing_left_open(),
            Peer(answering_once(OK), serving(SHOP)) as peer,
            a_sender(f"https://shop.test:{peer.port}/", **trusting(SHOP)) as sender,
        ):
            slots = asyncio.Semaphore(8)

            async def one(number):
                async with slots:
                    # Some are cut off somewhere in their handshake.
                    await sender.post(a_request(timeout=10.0 if number % 3 else 0.002))

            await asyncio.gather(*(one(number) for number in range(count)))
        gc.collect()

    def of_tls():
        return sum(isinstance(thing, ssl.SSLObject) for thing in gc.get_objects())

    before = of_tls()
    run_on(new_loop, scenario())
    assert of_tls() <= before
