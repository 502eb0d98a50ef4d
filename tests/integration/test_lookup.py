"""Looking names up: in threads that nobody waits for, once per name at a time."""

import asyncio
import socket
import threading

import pytest
from support.clock import FakeClock
from support.until import until

from relay.delivery import lookup as lookup_module
from relay.delivery.failures import AttemptFailed
from relay.delivery.lookup import Lookup


class System:
    """In place of the operating system's look-up: names hang until they are let go."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.answers = {}
        self.let_go = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host, port, *, type):
        self.asked.append(host)
        if host.startswith("hanging"):
            self.let_go.wait(10)
        found = self.answers.get(host, ["192.0.2.7"])
        if isinstance(found, Exception):
            raise found
        return [(None, type, 6, "", (text, 0)) for text in found]


@pytest.fixture
def system(monkeypatch):
    system = System(monkeypatch)
    yield system
    system.let_go.set()


@pytest.fixture
async def lookup():
    found = Lookup(FakeClock())
    yield found
    found.close()


def texts(addresses):
    return [str(address) for address in addresses]


async def test_the_real_system_knows_this_machine(lookup):
    assert "127.0.0.1" in texts(await lookup.resolve("localhost", 443))


async def test_order_is_kept_and_repeats_are_dropped(system, lookup):
    system.answers["shop.test"] = ["2001:db8::1", "192.0.2.1", "2001:db8::1", "fe80::1%eth0"]
    assert texts(await lookup.resolve("shop.test", 1)) == ["2001:db8::1", "192.0.2.1", "fe80::1"]


async def test_a_name_with_very_many_addresses_is_cut(system, lookup):
    system.answers["shop.test"] = [f"10.0.{n // 256}.{n % 256}" for n in range(1000)]
    assert len(await lookup.resolve("shop.test", 1)) == lookup_module.ADDRESS_CAP


async def test_an_answer_is_used_again_for_ten_seconds(system):
    clock = FakeClock()
    lookup = Lookup(clock)
    for seconds, asked in ((0, 1), (9.9, 1), (0.2, 2), (9, 2)):
        await clock.advance(seconds)
        await lookup.resolve("shop.test", 1)
        assert len(system.asked) == asked


async def test_one_name_is_looked_up_once_at_a_time_and_a_cancelled_wait_harms_nobody(system, lookup):
    waits = [asyncio.create_task(lookup.resolve("hanging.test", 1)) for _ in range(5)]
    await until(lambda: system.asked)
    waits[0].cancel()
    system.let_go.set()
    first, *others = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert [texts(addresses) for addresses in others] == [["192.0.2.7"]] * 4
    assert system.asked == ["hanging.test"]


async def test_a_name_that_hangs_holds_up_no_other(system, lookup):
    stuck = asyncio.create_task(lookup.resolve("hanging.test", 1))
    await until(lambda: system.asked)
    assert texts(await lookup.resolve("shop.test", 1)) == ["192.0.2.7"]
    stuck.cancel()


async def test_only_so_many_threads(system, lookup, monkeypatch):
    monkeypatch.setattr(lookup_module, "THREADS", 3)
    waits = [asyncio.create_task(lookup.resolve(f"hanging{n}.test", 1)) for n in range(8)]
    await until(lambda: len(system.asked) == 3)
    names = [thread for thread in threading.enumerate() if thread.name == "lookup"]
    assert len(names) == 3
    assert all(thread.daemon for thread in names), "nobody waits for them at the end"
    system.let_go.set()
    await asyncio.gather(*waits)
    assert len(system.asked) == 8


async def test_only_so_many_wait(system, lookup, monkeypatch):
    monkeypatch.setattr(lookup_module, "THREADS", 1)
    monkeypatch.setattr(lookup_module, "WAITING_CAP", 2)
    waits = [asyncio.create_task(lookup.resolve(f"hanging{n}.test", 1)) for n in range(3)]
    await until(lambda: system.asked)
    with pytest.raises(AttemptFailed, match="too many names wait"):
        await lookup.resolve("one.more.test", 1)
    system.let_go.set()
    await asyncio.gather(*waits)
    assert len(lookup._answers) == 2, "kept answers are bounded, too"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label too long: hidden"), "the name cannot be looked up"),
        ([], "the name has no address"),
        (["hidden"], "the name cannot be looked up"),
    ],
)
async def test_failures_have_a_sentence_and_are_not_kept(system, lookup, answer, said):
    system.answers["shop.test"] = answer
    for asked in (1, 2):
        with pytest.raises(AttemptFailed) as caught:
            await lookup.resolve("shop.test", 1)
        assert (caught.value.kind, caught.value.detail) == ("dns", said)
        assert len(system.asked) == asked


async def test_no_thread_to_be_had(lookup, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(AttemptFailed, match="no thread can be started"):
        await lookup.resolve("shop.test", 1)
    assert lookup._threads == 0


async def test_closing_ends_waits_but_waits_for_no_thread(system, lookup):
    waiting = asyncio.create_task(lookup.resolve("hanging.test", 1))
    await until(lambda: system.asked)
    lookup.close()
    with pytest.raises(AttemptFailed, match="the relay stops"):
        await waiting
    with pytest.raises(AttemptFailed, match="the relay stops"):
        await lookup.resolve("shop.test", 1)


def test_a_thread_that_outlives_its_loop_ends_quietly(system):
    async def begin():
        lookup = Lookup(FakeClock())
        task = asyncio.create_task(lookup.resolve("hanging.test", 1))
        await until(lambda: system.asked)
        task.cancel()

    asyncio.run(begin())
    system.let_go.set()
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join(5)
