"""Ways to make the relay knock where it must not: every spelling ends in the configuration or at the guard.

Whatever gets through would arrive at a listener on this machine's loopback addresses, which none of these URLs
names as such; a tripwire keeps the tests from dialling anywhere else, and tells what was tried.
"""

import asyncio
import functools
import json
from pathlib import Path

import pytest
from reach_kit import Forbidden, Names, a_client, a_delivery, a_target, attempted

from relay.model import FailureKind, Outcome
from relay.secret import Secret

CLOUD = "169.254.169.254"

CORPUS = Path(__file__).parent / "data" / "forbidden_urls.txt"


def spellings(section):
    """A section of the corpus, unescaped."""
    text = CORPUS.read_text(encoding="ascii").split(f"\n[{section}]")[1].split("\n\n")[0]
    return [json.loads(f'"{item}"') for item in text.partition("\n")[2].split()]


ANSWERS = [
    "127.0.0.1",
    "::1",
    "127.0.0.1 ::1",
    "::ffff:127.0.0.1",
    "0.0.0.0",
    "::",
    "10.0.0.1",
    "192.168.1.1 10.0.0.1 fd00::1",
    CLOUD,
    "fd00:ec2::254",
    "168.63.129.16",
    "100.100.100.200",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "::127.0.0.1",
    "fe80::1",
    "fec0::1",
    "2606:4700::5efe:7f00:1",
]
PUBLIC = "93.184.216.34"


HOSTS = [host for section in ("numbers", "addresses", "zones", "mangled") for host in spellings(section)]
ADDRESSES, TRICKS, NAMES = spellings("addresses"), spellings("tricks"), spellings("names")
USES = ["url", "token server", "proxy"]


@pytest.fixture
def dialled(monkeypatch):
    """Every address that anything tries to connect to; only loopback ones are really dialled."""
    found = []
    real = asyncio.SelectorEventLoop.sock_connect

    @functools.wraps(real)
    async def sock_connect(loop, sock, address):
        found.append(address[0])
        if address[0] not in ("127.0.0.1", "::1"):
            raise ConnectionRefusedError(111, "kept from being dialled")
        return await real(loop, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    return found


class Anything(Names):
    """Whatever is asked for is this machine."""

    async def resolve(self, host, port):
        self.add(host, "127.0.0.1")
        return await super().resolve(host, port)


def target_using(use, url):
    """A target that reaches `url` as itself, as its token server or as its proxy; ValueError from the configuration."""
    if use == "url":
        return a_target(url, allow_http=True)
    if use == "proxy":
        return a_target("https://shop.example.com/", proxy=url)
    oauth2 = {"token_url": url, "client_id": "a", "client_secret": "b"}
    return a_target("https://shop.example.com/", auth={"oauth2": oauth2})


async def refused(use, url, names):
    """How it was refused: by the configuration, or by the guard."""
    try:
        target = target_using(use, url)
    except ValueError:
        return "configuration"
    attempt = await attempted(target, names)
    assert (attempt.outcome, attempt.kind) == (Outcome.FORBIDDEN, FailureKind.FORBIDDEN), attempt
    assert "allow_networks" in attempt.error or "if this machine is meant" in attempt.error
    return "guard"


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("host", HOSTS, ids=ascii)
async def test_an_address_in_any_spelling_is_refused_before_anything_starts(use, host, dialled):
    async with Forbidden() as listener:
        for url in (f"http://{host}:{listener.port}/", f"https://{host}:{listener.port}/x", f"https://{host}"):
            assert await refused(use, url, Anything()) == "configuration", url
    assert (listener.accepted, dialled) == (0, [])


@pytest.mark.parametrize("host", HOSTS, ids=ascii)
async def test_an_address_that_the_configuration_never_saw_ends_at_the_guard(host, dialled):
    """A URL may lie in a file, and the file may change while the relay runs."""
    async with Forbidden() as listener:
        target = a_target("https://shop.example.com/")
        changed = target.model_copy(update={"url": Secret.of(f"http://{host}:{listener.port}/")})
        attempt = await attempted(changed, Anything())
    assert attempt.kind is (FailureKind.FORBIDDEN if host in ADDRESSES else FailureKind.REQUEST)
    assert (listener.accepted, dialled) == (0, [])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("url", TRICKS, ids=ascii)
async def test_no_trick_of_notation_leads_anywhere(use, url, dialled):
    async with Forbidden() as listener:
        await refused(use, url, Anything())
    assert (listener.accepted, dialled) == (0, [])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_judged_by_what_it_means_when_it_is_dialled(use, name, dialled):
    async with Forbidden() as listener:
        assert await refused(use, f"https://{name}:{listener.port}/", Anything()) == "guard"
    assert (listener.accepted, dialled) == (0, [])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_answer_of_a_resolver_opens_a_closed_address(use, answer, dialled):
    names = Names(shop_example_com=[answer], other_example_com=[answer])
    async with Forbidden() as listener:
        assert await refused(use, f"https://other.example.com:{listener.port}/", names) == "guard" or use == "url"
        assert await refused("url", f"https://shop.example.com:{listener.port}/", names) == "guard"
    assert (listener.accepted, dialled) == (0, [])


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("answer", [f"127.0.0.1 {PUBLIC}", f"{PUBLIC} 127.0.0.1 ::1", f"::1 10.0.0.1 {PUBLIC}"])
async def test_of_mixed_answers_only_the_open_one_is_dialled(use, answer, dialled):
    names = Names(other_example_com=[answer], shop_example_com=[PUBLIC])
    async with Forbidden() as listener:
        attempt = await attempted(target_using(use, f"https://other.example.com:{listener.port}/"), names)
    assert attempt.outcome is not Outcome.OK
    assert listener.accepted == 0
    assert set(dialled) == {PUBLIC}


@pytest.mark.parametrize("use", USES)
async def test_a_name_that_rebinds_is_judged_by_the_answer_that_is_dialled(use, dialled):
    """Public when first asked, this machine ever after: there is no second look-up to be fooled by."""
    names = Names(other_example_com=[PUBLIC, "127.0.0.1"], shop_example_com=[PUBLIC])
    async with Forbidden() as listener:
        client = a_client(target_using(use, f"https://other.example.com:{listener.port}/"), names)
        first = await client.attempt(a_delivery())
        await client.close()
        client = a_client(target_using(use, f"https://other.example.com:{listener.port}/"), names)
        second = await client.attempt(a_delivery())
        await client.close()
    assert first.outcome is Outcome.RETRY
    assert second.outcome is Outcome.FORBIDDEN
    assert listener.accepted == 0
    assert set(dialled) == {PUBLIC}
    assert names.asked.count("other.example.com") == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:{}/", "http://[::1]:{}/", "//127.0.0.1:{}/", "http://localhost:{}/"]
)
async def test_no_redirect_is_followed(status, where, dialled):
    async with Forbidden() as listener:
        head = f"HTTP/1.1 {status} x\r\nlocation: {where.format(listener.port)}\r\ncontent-length: 0\r\n\r\n"

        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head.encode())
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        attempt = await attempted(a_target(f"http://127.0.0.1:{port}/"))
        oauth2 = {"token_url": f"http://127.0.0.1:{port}/", "client_id": "a", "client_secret": "b"}
        unauthorized = await attempted(a_target(f"http://127.0.0.1:{listener.port}/", auth={"oauth2": oauth2}))
        server.close()
        await server.wait_closed()
    assert (attempt.outcome, attempt.status_code) == (Outcome.RETRY, status)
    assert unauthorized.kind is FailureKind.AUTH
    assert listener.accepted == 0
    assert len(dialled) == 2


async def test_a_url_that_names_this_machine_reaches_no_other(dialled):
    names = Names(localhost=["10.0.0.1"])
    attempt = await attempted(a_target("http://localhost:9/"), names)
    assert attempt.outcome is Outcome.FORBIDDEN
    assert "is not this machine" in attempt.error
    assert dialled == []


async def test_where_the_listener_is_meant_it_is_reached(dialled):
    """The other tests would show nothing if the listener could not be reached at all."""
    async with Forbidden() as listener:
        for host in ("127.0.0.1", "[::1]"):
            await attempted(a_target(f"http://{host}:{listener.port}/"))
        names = Names(shop_example_com=["127.0.0.1"])
        url = f"http://shop.example.com:{listener.port}/"
        await attempted(a_target(url, allow_http=True, allow_networks=["127.0.0.0/8"]), names)
    assert listener.accepted == 3
    assert dialled == ["127.0.0.1", "::1", "127.0.0.1"]


def test_the_corpus_is_large_enough():
    assert len(set(HOSTS)) + len(set(TRICKS)) + len(set(NAMES)) >= 150
