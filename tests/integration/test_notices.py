"""Notices about the upstream and about targets, each by its real cause, on a clock that the test moves."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from notices_kit import ALL, DAY, HOUR, MINUTE, OPEN_DOWN, TOLD, Relay
from support.engine import answer, target
from support.factories import event
from support.upstream_kit import House, PatientClock
from support.upstream_script import GREET, ScriptedUpstream, close, http

from relay import log
from relay.board import UpstreamState
from relay.delivery.notices import OPEN
from relay.model import Attempt, Delivery, iso_utc


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


class TestUpstream:
    async def test_refused_credentials_and_the_recovery(self, path: Path):
        async with (
            Relay(path, target("alpha", events=ALL), clock=PatientClock()) as relay,
            ScriptedUpstream([http(401)], [http(401)], [http(401)], [*GREET, close(1000)]) as upstream,
        ):
            house = House(upstream, relay.clock, store=relay.bench.store)
            relay.board.upstream = house.board.upstream
            told = []
            for _ in range(3):
                await house.epochs(1)
                told += await relay.look()
            assert told == ["upstream.auth_failed upstream", "upstream.down upstream"]
            assert "401" in (await relay.data("upstream.auth_failed"))["error"]
            await house.supervisor.close()
            await relay.restart()
            house = House(upstream, relay.clock, store=relay.bench.store)
            relay.board.upstream = house.board.upstream
            assert await relay.look() == []
            await house.epochs(1)
            house.board.upstream.state = UpstreamState.SUBSCRIBED  # as it was for a moment
            assert await relay.look() == ["upstream.recovered upstream"]
            assert await relay.told("alpha") == ["upstream.auth_failed", "upstream.down", "upstream.recovered"]
            await house.supervisor.close()

    async def test_down_counts_from_the_gap_and_is_told_once_over_restarts(self, path: Path):
        async with (
            Relay(path, target("alpha", events=ALL), clock=PatientClock()) as relay,
            ScriptedUpstream([*GREET, close(1011)], [http(503)]) as upstream,
        ):
            house = House(upstream, relay.clock, store=relay.bench.store)
            relay.board.upstream = house.board.upstream
            await house.epochs(1)
            (gap,) = await relay.bench.store.gaps(1)
            assert await relay.look() == []
            began = relay.clock.mono()
            told: list[str] = []
            while not told:
                await house.epochs(1)
                told = await relay.look()
            assert told == ["upstream.down upstream"]
            assert 5 * MINUTE <= relay.clock.mono() - began < 7 * MINUTE
            (row,) = await relay.rows()
            assert (await relay.data("upstream.down"))["since"].endswith("Z")
            assert row.event.at_ms - gap.from_ms >= 300_000
            for _ in range(3):
                await relay.restart()
                relay.board.upstream = house.board.upstream
                assert await relay.minutes(5) == []
            await relay.bench.store.meta_set(OPEN, "{}")  # even if it had forgotten: the id is the same
            await relay.restart()
            relay.board.upstream = house.board.upstream
            for _ in range(7):
                await relay.notices.run_once()
                relay.clock.move(MINUTE)
            assert OPEN_DOWN in (await relay.bench.store.meta_get(OPEN) or "")
            assert len(await relay.rows()) == 1
            await house.supervisor.close()

    async def test_a_relay_that_was_stopped_for_days_and_connects_says_nothing(self, path: Path):
        async with Relay(path, target("alpha", events=ALL)) as relay:
            await relay.bench.store.begin_gap(relay.clock.wall_ms(), "the relay was not running")
            relay.clock.move(3 * DAY)
            await relay.restart()
            relay.board.upstream.state = UpstreamState.CONNECTING
            assert await relay.look() == []
            relay.clock.move(30)
            assert await relay.look() == []
            relay.board.upstream.state = UpstreamState.SUBSCRIBED
            assert await relay.look() == []

    async def test_one_that_does_not_connect_says_so_after_a_minute_and_since_when(self, path: Path):
        async with Relay(path, target("alpha", events=ALL)) as relay:
            began_ms = relay.clock.wall_ms()
            await relay.bench.store.begin_gap(began_ms, "the relay was not running")
            relay.clock.move(3 * DAY)
            await relay.restart()
            relay.board.upstream.state = UpstreamState.CONNECTING
            assert await relay.look() == []
            assert await relay.minutes(1) == ["upstream.down upstream"]
            assert (await relay.data("upstream.down"))["since"] == iso_utc(began_ms)

    async def test_its_own_stop_is_no_outage(self, path: Path):
        async with Relay(path, target("alpha", events=ALL)) as relay:
            relay.board.stopping = True
            relay.board.upstream.state = UpstreamState.STOPPED
            assert await relay.minutes(10) == []


class TestTargets:
    async def test_failing_reaches_the_others_and_so_does_the_recovery(self, path: Path):
        breaker = {"failures": 3}
        async with Relay(path, target("alpha", events=ALL, breaker=breaker), target("beta", events=TOLD)) as relay:
            relay.client.script = lambda _delivery: 500
            await relay.add(*(event(f"o{number}") for number in range(5)), to=["alpha"])
            await relay.turn()
            assert await relay.minutes(4, "alpha") == []
            assert await relay.minutes(3, "alpha") == ["target.failing alpha"]
            said = await relay.data("target.failing")
            assert (said["target"], said["pending"], said["error"]) == ("alpha", 5, "status 500")
            await relay.restart()
            assert await relay.minutes(1, "alpha") == []
            relay.client.script = lambda _delivery: 200
            assert await relay.minutes(5, "alpha") == ["target.recovered alpha"]
            assert await relay.minutes(20, "alpha") == []
            assert await relay.told("beta") == ["target.failing", "target.recovered"]
            assert await relay.told("alpha") == []

    async def test_a_secret_that_a_receiver_names_is_not_told_to_the_others(self, path: Path):
        log.register_secrets(["another-target's-secret"])

        async def naming(_delivery: Delivery) -> Attempt:
            return replace(answer(500, relay.clock.wall_ms()), response_body=b"compared with another-target's-secret")

        async with Relay(path, target("alpha", breaker={"failures": 2}), target("beta", events=TOLD)) as relay:
            relay.client.script = naming
            await relay.add(*(event(f"o{number}") for number in range(5)), to=["alpha"])
            await relay.turn()
            assert await relay.minutes(7, "alpha") == ["target.failing alpha"]
            assert (await relay.data("target.failing"))["error"] == "status 500: compared with [redacted]"
        log.forget_secrets()

    async def test_lagging_is_an_orders_wait_and_never_a_notices(self, path: Path):
        slow = {"schedule": ["2h"] * 5}
        async with Relay(
            path, target("alpha", events=ALL, retry=slow), target("beta", events=TOLD, retry=slow)
        ) as relay:
            relay.clients["beta"].script = lambda _delivery: 500
            relay.client.script = lambda _delivery: 500
            await relay.add(event("o1"), to=["alpha"])
            await relay.turn()
            assert await relay.minutes(14) == []
            assert await relay.minutes(2) == ["target.lagging alpha"]
            await relay.turn("beta")
            assert await relay.minutes(40) == []  # beta's notice waits as long as that
            relay.client.script = lambda _delivery: 200
            relay.clock.move(3 * HOUR)
            await relay.turn()
            assert await relay.look() == ["target.recovered alpha"]

    async def test_a_paused_one_does_not_lag_and_the_pause_does_not_count(self, path: Path):
        async with Relay(path, target("alpha"), target("beta", events=TOLD)) as relay:
            await relay.bench.store.pause("alpha", relay.clock.wall_ms())
            await relay.add(event("o1"), to=["alpha"])
            assert await relay.minutes(60) == []
            await relay.bench.store.resume("alpha", relay.clock.wall_ms())
            assert await relay.minutes(14) == []
            assert await relay.minutes(1) == ["target.lagging alpha"]

    async def test_an_orphan_says_nothing(self, path: Path):
        beta = target("beta", events=TOLD)
        async with Relay(path, target("alpha"), beta) as relay:
            await relay.add(event("o1"), to=["alpha"])
            await relay.restart(beta)
            assert await relay.minutes(60) == []

    async def test_parked_is_told_at_once_and_again_when_it_parks_again(self, path: Path):
        async with Relay(path, target("alpha"), target("beta", events=["relay.target.parked"])) as relay:
            relay.client.script = lambda _delivery: 410
            await relay.add(event("o1"), to=["alpha"])
            await relay.turn()
            assert await relay.look() == ["target.parked alpha"]
            await relay.restart()
            assert await relay.minutes(30) == []
            await relay.bench.store.resume("alpha", relay.clock.wall_ms())
            await relay.turn()
            assert await relay.look() == ["target.parked alpha"]
            assert await relay.told("beta") == ["target.parked"] * 2

    async def test_a_hundred_at_once_are_told_once_each_in_small_transactions(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        names = [f"t{number}" for number in range(100)]
        targets = [target(name, breaker={"failures": 2}) for name in names]
        async with Relay(path, *targets, target("ops", events=TOLD)) as relay:
            for name in names:
                relay.clients[name].script = lambda _delivery: 500
            await relay.add(event("o1"), event("o2"), to=names)
            for name in names:
                await relay.turn(name)
            sizes = []
            write = relay.notices._writer.write

            async def counted(notices: Any, *rest: Any) -> None:
                sizes.append(len(notices))
                await write(notices, *rest)

            monkeypatch.setattr(relay.notices._writer, "write", counted)
            told = await relay.minutes(14)
            assert sorted(told) == sorted(f"target.failing {name}" for name in names)
            assert max(sizes) <= 20
            assert (await relay.waiting("ops")).pending == 100
            await relay.restart()
            assert await relay.minutes(2) == [f"target.lagging {name}" for name in names]
