"""Notices about dead deliveries, disk and configuration, and what becomes of notices themselves."""

import json
from pathlib import Path
from typing import Any

import pytest
from notices_kit import ALL, HOUR, MINUTE, SWIFT, TOLD, Relay
from structlog.testing import capture_logs
from support.engine import target
from support.factories import event

from relay.board import Reload
from relay.delivery import notices as notices_module
from relay.delivery.notices import OPEN
from relay.errors import StoreError
from relay.model import DeliveryStatus
from relay.notice import NOTICE_LIFE
from relay.store import disk
from relay.store.disk import MIB
from relay.store.reads import Filter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


class TestDeaths:
    async def test_exhausted_and_refused_are_told_with_reasons_and_ids_at_most_once_a_minute(self, path: Path):
        never = {"failures": 1000}
        alpha = target("alpha", events=ALL, retry=SWIFT, breaker=never)
        async with Relay(path, alpha, target("beta", events=TOLD)) as relay:
            relay.client.script = lambda _delivery: 500
            await relay.add(event("o1"), to=["alpha"])
            await relay.live(5)
            assert await relay.look() == ["delivery.dead alpha"]
            said = await relay.data("delivery.dead")
            assert (said["count"], said["reasons"], said["first"]) == (1, {"exhausted": 1}, ["evt_o1_1"])
            await relay.add(*(event(f"p{number}") for number in range(9)), to=["alpha"])
            await relay.live(5)
            assert await relay.look() == []  # not twice a minute
            relay.clock.move(MINUTE)
            assert await relay.look() == ["delivery.dead alpha"]
            last = (await relay.rows())[-1].event.webhook_id
            whole = await relay.bench.store.event(last)
            assert whole is not None
            said = json.loads(whole.event.body)
            assert (said["count"], len(said["first"])) == (9, 5)
            assert await relay.minutes(10) == []
            assert await relay.told("beta") == ["delivery.dead"] * 2

    @pytest.mark.parametrize(("changes", "reason"), [({"max_pending": 1}, "overflow"), ({}, "expired")])
    async def test_what_ends_without_an_attempt_is_told_too(self, path: Path, changes: dict[str, Any], reason: str):
        often = {"schedule": ["10s"] * 50}
        async with Relay(
            path, target("alpha", expire_after="1h", retry=often, **changes), target("beta", events=TOLD)
        ) as relay:
            relay.client.script = lambda _delivery: 500
            await relay.add(event("o1"), event("o2"), to=["alpha"])
            await relay.live(80)
            if reason == "expired":
                relay.clock.move(HOUR)
            await relay.janitor.overflow_once()
            await relay.janitor.expiry_once()
            assert "delivery.dead alpha" in await relay.look()
            assert (await relay.data("delivery.dead"))["reasons"] == {reason: 1 if reason == "overflow" else 2}

    async def test_notices_never_breed_notices(self, path: Path):
        async with Relay(
            path, target("alpha", retry=SWIFT), target("beta", events=TOLD, retry=SWIFT), target("gamma", events=TOLD)
        ) as relay:
            relay.client.script = relay.clients["beta"].script = lambda _delivery: 500
            await relay.add(event("o1"), to=["alpha"])
            await relay.live(5)
            assert await relay.look() == ["delivery.dead alpha"]
            await relay.live(5, "beta")  # where it dies
            assert (await relay.waiting("beta")).pending == 0
            assert await relay.minutes(90) == []
            assert (await relay.bench.store.dead_letters(100))["beta"].count == 0

    async def test_what_has_not_been_told_is_written_at_the_end(self, path: Path):
        async with Relay(path, target("alpha", retry=SWIFT), target("beta", events=TOLD)) as relay:
            relay.client.script = lambda _delivery: 500
            for order in ("o1", "o2"):
                await relay.add(event(order), to=["alpha"])
                await relay.live(5)
                await relay.look()
            assert len(await relay.rows()) == 1
            relay.board.stopping = True
            await relay.notices.leave()
            await relay.notices.leave()
            assert len(await relay.rows()) == 2
            await relay.restart()
            assert await relay.told("beta") == ["delivery.dead"] * 2

    async def test_what_a_cut_off_write_was_telling_is_told_at_the_end(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        async with Relay(path, target("alpha", retry=SWIFT), target("beta", events=TOLD)) as relay:
            relay.client.script = lambda _delivery: 500
            await relay.add(event("o1"), to=["alpha"])
            await relay.live(5)

            async def cut_off(*_: Any) -> None:
                raise KeyError

            with monkeypatch.context() as patch:
                patch.setattr(relay.notices._writer, "write", cut_off)
                with pytest.raises(KeyError):
                    await relay.notices.run_once()
            await relay.notices.leave()
            assert len(await relay.rows()) == 1

    async def test_a_broken_store_at_the_end_is_said_and_no_more(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        async with Relay(path, target("alpha", retry=SWIFT)) as relay:
            relay.client.script = lambda _delivery: 500
            await relay.add(event("o1"), to=["alpha"])
            await relay.live(5)

            async def broken(*_: Any) -> None:
                raise StoreError("the disk is gone")

            monkeypatch.setattr(relay.notices._writer, "write", broken)
            with capture_logs() as logs:
                await relay.notices.leave()
            assert [(line["event"], line["deliveries"]) for line in logs] == [("notices_not_written", 1)]


class TestTheRest:
    async def test_a_disk_that_fills_up(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        async with Relay(path, target("alpha", events=TOLD)) as relay:
            monkeypatch.setattr(disk, "_free_bytes", lambda _folder: relay.free)
            told = []
            for free in (4096, 1000, 900, 200, 250, 500, 1000, 4096):
                relay.free = free * MIB
                await relay.disk.run_once()
                told += await relay.minutes(1)
            assert told == ["store.disk_low store"] * 2
            relay.free = 900 * MIB
            await relay.disk.run_once()
            assert await relay.look() == ["store.disk_low store"]
            await relay.restart()
            assert await relay.look() == []
            assert await relay.told("alpha") == ["store.disk_low"] * 3

    async def test_a_refused_configuration(self, path: Path):
        async with Relay(path, target("alpha", events=TOLD)) as relay:
            config = relay.board.config
            config.result, config.reloaded_ms = Reload.REFUSED, relay.clock.wall_ms()
            config.refusal = ("config.yaml:3:1: no such key",)
            assert await relay.look() == ["config.refused config"]
            assert (await relay.data("config.refused"))["problems"] == ["config.yaml:3:1: no such key"]
            assert await relay.minutes(10) == []
            config.result, config.refusal = Reload.APPLIED, ()
            assert await relay.look() == []
            assert await relay.told("alpha") == ["config.refused"]

    async def test_an_hour_ends_a_notice_even_at_a_target_that_is_paused_but_no_order(self, path: Path):
        async with Relay(path, target("alpha"), target("beta", events=ALL, paused=True)) as relay:
            await relay.add(event("o1"), to=["beta"])
            await self._park(relay)
            relay.clock.move(NOTICE_LIFE)
            assert await relay.janitor.expiry_once() == 0
            relay.clock.move(1)
            with capture_logs() as logs:
                assert await relay.janitor.expiry_once() == 1
            assert [line["event"] for line in logs] == ["notices_expired"]
            assert (await relay.waiting("beta")).pending == 1
            assert relay.metric("deliveries_total", target="beta", status="dead") == 1
            assert await relay.minutes(2) == []
            assert await relay.bench.store.check() == []

    @pytest.mark.parametrize("ordering", ["per_order", "latest_only", "none"])
    async def test_lanes_go_by_subject(self, path: Path, ordering: str):
        slow = {"schedule": ["10m"] * 5}
        async with Relay(
            path,
            target("alpha", retry=SWIFT),
            target("beta", events=TOLD, ordering=ordering, retry=slow),
        ) as relay:
            relay.client.script = relay.clients["beta"].script = lambda _delivery: 500
            for number in range(4):
                await relay.add(event(f"o{number}"), to=["alpha"])
                await relay.live(5)
                assert await relay.look() == ["delivery.dead alpha"]
                await relay.turn("beta")
                relay.clock.move(MINUTE)
            waiting = {"per_order": 4, "latest_only": 2, "none": 4}[ordering]
            assert (await relay.waiting("beta")).pending == waiting
            ends = [
                row.status for row in (await relay.bench.store.list_deliveries(Filter(target="beta"), None, 9)).items
            ]
            assert ends.count(DeliveryStatus.SUPERSEDED) == (2 if ordering == "latest_only" else 0)
            relay.clock.move(NOTICE_LIFE)
            assert await relay.janitor.expiry_once() == waiting

    async def test_what_is_told_is_counted_logged_and_seen_live_after_its_commit(self, path: Path):
        async with Relay(path, target("alpha"), target("beta", events=TOLD)) as relay:
            with relay.listen() as listener, capture_logs() as logs:
                await self._park(relay)
                happening = await listener.next()
            assert happening is not None
            assert happening.data.items() >= {"type": "relay.target.parked", "subject": "alpha"}.items()
            (line,) = [line for line in logs if line["event"] == "notice_written"]
            assert (line["type"], line["subject"], line["targets"]) == ("relay.target.parked", "alpha", 1)
            assert relay.metric("events_total", type="relay.target.parked", origin="relay") == 1

    async def test_what_is_open_and_cannot_be_read_is_forgotten_and_repeats_nothing(self, path: Path):
        async with Relay(path, target("alpha"), target("beta", events=TOLD)) as relay:
            await self._park(relay)
            await relay.bench.store.meta_set(OPEN, "no json")
            await relay.restart()
            with capture_logs() as logs:
                await relay.notices.run_once()
            assert "open_notices_forgotten" in [line["event"] for line in logs]
            assert len(await relay.rows()) == 1

    async def test_nothing_new_writes_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        async with Relay(path, target("alpha"), target("beta", events=TOLD)) as relay:
            await self._park(relay)

            async def never(*_: Any) -> None:
                raise AssertionError("nothing has changed")

            monkeypatch.setattr(relay.notices._writer, "write", never)
            assert await relay.minutes(100) == []

    async def test_it_looks_every_few_seconds(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        async with Relay(path, target("alpha"), target("beta", events=TOLD)) as relay:
            looks = 0

            async def look() -> int:
                nonlocal looks
                looks += 1
                if looks == 3:
                    raise KeyError
                return 0

            monkeypatch.setattr(relay.notices, "run_once", look)
            with pytest.raises(KeyError):
                await relay.notices.run()
            assert relay.clock.slept[-2:] == [notices_module.EVERY] * 2

    async def _park(self, relay: Relay) -> None:
        relay.client.script = lambda _delivery: 410
        await relay.add(event("o9"), to=["alpha"])
        await relay.turn()
        assert await relay.look() == ["target.parked alpha"]
