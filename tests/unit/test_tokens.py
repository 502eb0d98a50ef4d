"""One token, fetched once for all who need it."""

import asyncio

import pytest
from support.clock import JumpClock

from relay.delivery.token_answer import Token
from relay.delivery.token_request import AuthFailed
from relay.delivery.tokens import FAILURE_MEMORY, REPLACE_PAUSE, TokenSource


class Server:
    """Gives out numbered tokens; `trouble` is raised instead; `gate` holds every answer back."""

    def __init__(self, clock, life=100.0):
        self.clock = clock
        self.life = life
        self.fetches = 0
        self.trouble = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self):
        self.fetches += 1
        number = self.fetches
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        return Token(f"t{number}", self.clock.mono() + self.life)


@pytest.fixture
def clock():
    return JumpClock()


@pytest.fixture
def server(clock):
    return Server(clock)


@pytest.fixture
def source(server, clock):
    return TokenSource("shop", server.fetch, clock)


async def test_a_token_is_fetched_once_and_again_when_its_time_is_up(source, server, clock):
    assert [await source.token() for _ in range(3)] == ["t1"] * 3
    clock.move(99.9)
    assert await source.token() == "t1"
    clock.move(0.2)
    assert await source.token() == "t2"
    assert server.fetches == 2


async def test_who_asks_meanwhile_waits_for_the_same_fetch(source, server):
    server.gate.clear()
    asking = [asyncio.create_task(source.token()) for _ in range(16)]
    await asyncio.sleep(0)
    server.gate.set()
    assert await asyncio.gather(*asking) == ["t1"] * 16
    assert server.fetches == 1


async def test_who_gives_up_takes_it_from_nobody(source, server):
    server.gate.clear()
    first, second = asyncio.create_task(source.token()), asyncio.create_task(source.token())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    server.gate.set()
    assert await second == "t1"
    assert first.cancelled()


async def test_a_failure_answers_everybody_for_a_while(source, server, clock):
    server.trouble = AuthFailed("down")
    results = await asyncio.gather(*(source.token() for _ in range(16)), return_exceptions=True)
    assert [str(result) for result in results] == ["down"] * 16
    assert server.fetches == 1
    clock.move(FAILURE_MEMORY - 0.1)
    with pytest.raises(AuthFailed, match="down"):
        await source.token()
    assert server.fetches == 1
    clock.move(0.2)
    server.trouble = None
    assert await source.token() == "t2"


async def test_the_memory_of_a_forbidden_server_says_so(source, server):
    server.trouble = AuthFailed("no", forbidden=True)
    for _ in range(2):
        with pytest.raises(AuthFailed) as caught:
            await source.token()
        assert caught.value.forbidden


async def test_a_refused_token_is_replaced_once_for_all(source, server):
    old = await source.token()
    assert await asyncio.gather(*(source.replace(old) for _ in range(16))) == ["t2"] * 16
    assert await source.replace(old) == "t2"  # a straggler that was refused with the old one
    assert server.fetches == 2


async def test_a_target_that_refuses_every_token_makes_no_storm_of_fetches(source, server, clock):
    assert await source.replace(await source.token()) == "t2"
    assert await source.replace("t2") is None
    assert await source.token() == "t2"
    clock.move(REPLACE_PAUSE)
    assert await source.replace("t2") == "t3"
    assert server.fetches == 3


async def test_the_same_token_again_is_no_replacement(clock):
    async def fetch():
        return Token("same", clock.mono() + 100)

    source = TokenSource("shop", fetch, clock)
    assert await source.replace(await source.token()) is None


async def test_closing_gives_a_fetch_up(source, server):
    server.gate.clear()
    asking = asyncio.create_task(source.token())
    await asyncio.sleep(0)
    await source.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await source.close()


async def test_nobody_left_to_hear_of_a_failure_is_no_complaint(source, server):
    server.gate.clear()
    asking = asyncio.create_task(source.token())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    server.trouble = AuthFailed("down")
    server.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    with pytest.raises(AuthFailed):
        await source.token()
    assert server.fetches == 1
