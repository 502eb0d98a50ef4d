"""The facts behind `/healthz` and the watchdog, and when the watchdog pings."""

import asyncio

import pytest
from structlog.testing import capture_logs
from support.clock import FakeClock

from relay.board import Board, UpstreamState
from relay.errors import StoreError
from relay.vitals import LAG_LIMIT, Vitals
from relay.watchdog import Watchdog


class Body:
    """A process whose every organ can be made to fail."""

    def __init__(self) -> None:
        self.clock, self.board = FakeClock(), Board()
        self.lags: list[float] = []
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.error: StoreError | None = None
        self.vitals = Vitals(self._ask_store, self.board, self.clock, self.lags.append)
        self.pings: list[str] = []
        self.watchdog = Watchdog(10.0, self.vitals, self.pings.append, self.clock)

    async def _ask_store(self) -> None:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error

    async def be_late(self, seconds: float) -> None:
        """One measurement that finds the loop so late."""
        measuring = asyncio.create_task(self.vitals.run_once())
        await self.clock.until_asleep()
        self.clock._mono += 1.0 + seconds  # nothing ran meanwhile
        await self.clock.advance(0.0)
        await measuring

    async def look(self) -> float:
        """One turn of the watchdog; returns how long it then waits."""
        turn = asyncio.create_task(self.watchdog.run_once())
        await self.clock.until_asleep()
        wait = self.clock._sleepers[0][0] - self.clock.mono()
        await self.clock.advance(wait)
        await turn
        return wait


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch) -> Body:
    monkeypatch.setattr("relay.vitals.STORE_PATIENCE", 0.05)
    return Body()


async def test_all_is_well_whatever_the_upstream_says(body: Body):
    body.board.upstream.state = UpstreamState.AUTH_FAILED
    assert await body.vitals.reasons() == []


async def test_a_loop_that_is_late_counts_until_it_is_not(body: Body):
    """A process that slept and woke is well again at once, or the watchdog would kill it for having slept."""
    await body.be_late(LAG_LIMIT + 2)
    assert "loop: it was 7.0 s late" in await body.vitals.reasons()
    await body.be_late(0.0)
    assert await body.vitals.reasons() == []
    assert body.lags == [pytest.approx(LAG_LIMIT + 2)] * 2  # the gauge remembers for a minute


async def test_a_store_that_does_not_answer_is_asked_once(body: Body):
    body.answers.clear()
    for _ in range(3):
        assert "store: no answer" in (await body.vitals.reasons())[0]
    assert body.asked == 1
    body.answers.set()
    assert await body.vitals.reasons() == []


async def test_a_store_that_failed_says_why(body: Body):
    body.error = StoreError("the disk is gone")
    assert await body.vitals.reasons() == ["store: the disk is gone"]


async def test_a_room_that_has_ended_counts_unless_it_was_told_to(body: Body):
    gone = asyncio.create_task(asyncio.sleep(0))
    await gone
    body.vitals.rooms = {"ingest": gone}
    assert await body.vitals.reasons() == ["room ingest: it has ended"]
    body.board.stopping = True
    assert await body.vitals.reasons() == []


async def test_pings_are_withheld_while_something_is_wrong_and_that_is_told_once(body: Body):
    assert await body.look() == 10.0
    body.error = StoreError("the disk is gone")
    with capture_logs() as logs:
        assert [await body.look() for _ in range(3)] == [1.0] * 3
        body.error = None
        await body.look()
    assert body.pings == ["WATCHDOG=1"] * 2
    assert [line["event"] for line in logs] == ["watchdog_withheld", "watchdog_resumed"]
    assert logs[0]["reasons"] == ["store: the disk is gone"]
