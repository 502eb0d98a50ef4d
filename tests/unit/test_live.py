"""What happens is told to whoever listens: bounded, honest about what was dropped, at nobody's cost."""

import asyncio
from functools import partial

import pytest

from relay.live import MISSED, WAITING, Happening, Live


async def taken(listener, count):
    return [await listener.next() for _ in range(count)]


async def test_a_listener_hears_what_comes_after_it_began_in_order() -> None:
    live = Live()
    live.publish("attempt", lambda: {"n": 0})
    with live.subscribe() as listener:
        live.publish("attempt", lambda: {"n": 1})
        live.publish("upstream", lambda: {"n": 2})
        heard = await taken(listener, 2)
    assert heard == [Happening(2, "attempt", {"n": 1}), Happening(3, "upstream", {"n": 2})]


async def test_only_what_is_wanted_takes_room() -> None:
    live = Live()
    with live.subscribe(lambda one: one.kind == "target") as listener:
        for number in range(2 * WAITING):
            live.publish("attempt", partial(dict, n=number))
        live.publish("target", lambda: {"name": "a"})
        assert (await listener.next()).kind == "target"


async def test_the_oldest_are_dropped_and_that_is_said_before_what_is_left() -> None:
    live = Live()
    with live.subscribe() as listener:
        for number in range(WAITING + 7):
            live.publish("attempt", partial(dict, n=number))
        missed, first = await taken(listener, 2)
        assert (missed.kind, missed.data, missed.number) == (MISSED, {"count": 7}, first.number - 1)
        assert first.data == {"n": 7}
        rest = await taken(listener, WAITING - 1)
        assert rest[-1].data == {"n": WAITING + 6}
        live.publish("attempt", lambda: {"n": "after"})
        assert (await listener.next()).data == {"n": "after"}


async def test_what_is_dropped_while_some_are_taken_is_counted_once() -> None:
    live = Live()
    with live.subscribe() as listener:
        counted = told = 0
        for number in range(5 * WAITING):
            live.publish("attempt", partial(dict, n=number))
            if number % 3 == 0:
                one = await listener.next()
                counted, told = (counted + one.data["count"], told) if one.kind == MISSED else (counted, told + 1)
        live.end()
        while (one := await listener.next()) is not None:
            counted, told = (counted + one.data["count"], told) if one.kind == MISSED else (counted, told + 1)
    assert counted > 0
    assert counted + told == 5 * WAITING


async def test_a_slow_listener_hurts_nobody() -> None:
    live = Live()
    with live.subscribe(), live.subscribe() as quick:
        for number in range(3 * WAITING):
            live.publish("attempt", partial(dict, n=number))
            assert (await quick.next()).data == {"n": number}


def test_nothing_is_made_when_nobody_listens() -> None:
    live = Live()
    for number in range(3):
        live.publish("attempt", partial(dict, n=number))
    assert (live.number, live.listeners) == (3, 0)


async def test_whoever_leaves_is_forgotten_even_by_an_error() -> None:
    live = Live()
    with pytest.raises(ZeroDivisionError), live.subscribe():
        raise ZeroDivisionError
    assert live.listeners == 0


async def test_the_end_wakes_who_waits_and_keeps_what_was_said() -> None:
    live = Live()
    with live.subscribe() as idle, live.subscribe(lambda one: one.kind == "attempt") as busy:
        waiting = asyncio.create_task(idle.next())
        await asyncio.sleep(0)
        live.publish("attempt", lambda: {})
        live.end()
        live.publish("attempt", lambda: {"too": "late"})
        assert (await waiting).data == {}
        assert [one and one.data for one in await taken(busy, 3)] == [{}, None, None]
        assert await idle.next() is None


async def test_who_comes_after_the_end_is_told_at_once() -> None:
    live = Live()
    live.end()
    with live.subscribe() as late:
        assert await late.next() is None
