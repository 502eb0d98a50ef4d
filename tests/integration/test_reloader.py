"""From the wish to reload to its report, with scripted files and rooms."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs
from support.clock import JumpClock
from support.until import until

from relay.board import Board, Reload
from relay.candidate import Candidate, Reader
from relay.config import Settings, parse
from relay.errors import SecretUnreadable, StoreError
from relay.metrics import Metrics
from relay.reload import Changes
from relay.reloader import Refused, Reloader

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def written(timeout: int = 15, **sections: Any) -> Settings:
    shop = {"name": "shop", "url": "https://shop.example.com/", "secrets": [SECRET], "timeout": f"{timeout}s"}
    upstream = {"websocket_url": "wss://u.example.com/", "rest_url": "https://u.example.com/", "partner_id": "p"}
    whole = {"upstream": upstream | {"secret": "s" * 8}, "targets": [shop], **sections}
    return parse(yaml.safe_dump(whole).encode(), "config.yaml", environ={})


class House:
    """A reloader whose file says what `load` returns."""

    def __init__(self) -> None:
        self.load: Callable[[], Settings] = written
        self.board, self.metrics, self.clock = Board(), Metrics("test"), JumpClock()
        self.wanted = asyncio.Event()
        self.applied: list[Changes] = []
        self.refusal: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        reader = Reader(lambda: self.load())
        present = reader.present(written())
        self.reloader = Reloader(self.wanted, reader, present, self, self.board, self.metrics, self.clock)

    async def prepare(self, candidate: Candidate, changes: Changes) -> Mapping[str, Any]:
        if self.refusal is not None:
            raise self.refusal
        return {"timeout": candidate.settings.targets[0].timeout}

    async def apply(self, candidate: Candidate, changes: Changes, prepared: Mapping[str, Any]) -> None:
        await self.gate.wait()
        assert prepared == {"timeout": candidate.settings.targets[0].timeout}
        self.applied.append(changes)

    def counted(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("houdini_relay_config_reloads_total", {"result": result}) or 0.0


@pytest.fixture
def house() -> House:
    return House()


async def test_what_changed_is_applied_and_told_by_path(house: House):
    house.load = lambda: written(3)
    with capture_logs() as logs:
        await house.reloader.run_once()
    (line,) = logs
    assert (line["event"], line["changed"], line["generation"]) == ("config_reloaded", ["targets.shop.timeout"], 2)
    config = house.board.config
    assert (config.generation, config.result, config.refusal) == (2, Reload.APPLIED, ())
    assert config.reloaded_ms == config.since_ms == house.clock.wall_ms()
    assert (house.counted("applied"), len(house.applied)) == (1, 1)


async def test_what_was_applied_is_what_the_next_one_is_compared_with(house: House):
    for timeout in (3, 3, 15):
        house.load = lambda timeout=timeout: written(timeout)
        await house.reloader.run_once()
    assert len(house.applied) == 2
    assert house.board.config.generation == 3


async def test_the_same_file_changes_nothing(house: House):
    await house.reloader.run_once()
    assert not house.applied
    assert (house.board.config.result, house.board.config.generation) == (Reload.UNCHANGED, 1)
    assert house.counted("unchanged") == 1


def fail(error: Exception) -> Callable[[], Settings]:
    def load() -> Settings:
        raise error

    return load


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (lambda: parse(b"targets: [", "config.yaml", environ={}), "config.yaml:1:"),
        (lambda: written(admin={"listen": "127.0.0.1:1"}), "admin.listen: this changes with a restart only"),
        (fail(SecretUnreadable("file /gone cannot be read")), "file /gone cannot be read"),
        (fail(ZeroDivisionError("s3cret")), "an error of our own: ZeroDivisionError"),
    ],
)
async def test_what_cannot_be_used_is_refused_as_a_whole(house: House, load: Callable[[], Settings], words: str):
    house.load = load
    with capture_logs() as logs:
        await house.reloader.run_once()
    line = logs[-1]
    assert (line["event"], line["log_level"]) == ("config_refused", "error")
    assert words in line["problems"][0]
    config = house.board.config
    assert (config.result, config.generation, config.refusal) == (Reload.REFUSED, 1, tuple(line["problems"]))
    assert not house.applied
    assert house.counted("refused") == 1


async def test_what_cannot_be_built_is_refused(house: House):
    house.load, house.refusal = lambda: written(3), Refused(["targets.shop: no such certificate"])
    await house.reloader.run_once()
    assert house.board.config.refusal == ("targets.shop: no such certificate",)


async def test_every_problem_is_told_and_a_flood_of_them_is_bounded(house: House):
    house.refusal = Refused([f"targets.t{number}: x" for number in range(150)])
    await house.reloader.run_once()
    assert len(house.board.config.refusal) == 101
    assert house.board.config.refusal[-1] == "and 50 more"


async def test_a_file_put_back_clears_the_refusal(house: House):
    house.load = fail(SecretUnreadable("gone"))
    await house.reloader.run_once()
    house.load = written
    await house.reloader.run_once()
    assert (house.board.config.result, house.board.config.refusal) == (Reload.UNCHANGED, ())


async def test_after_a_refusal_changes_count_from_what_runs(house: House):
    house.load, house.refusal = lambda: written(3), Refused(["x"])
    await house.reloader.run_once()
    house.refusal = None
    await house.reloader.run_once()
    assert house.applied == [Changes(("targets.shop.timeout",))]


async def test_a_file_that_cannot_be_read_in_time_is_refused(house: House, monkeypatch: pytest.MonkeyPatch):
    async def hang(*_: object) -> Mapping[str, Any]:
        return await asyncio.Event().wait() or {}

    monkeypatch.setattr(house, "prepare", hang)
    monkeypatch.setattr("relay.reloader.DEADLINE", 0.05)
    await house.reloader.run_once()
    assert "could not be read within" in house.board.config.refusal[0]


async def test_wishes_during_a_reload_are_one_more(house: House):
    house.gate.clear()
    house.load = lambda: written(3)
    running = asyncio.create_task(house.reloader.run())
    house.wanted.set()
    await until(lambda: not house.wanted.is_set())
    house.load = lambda: written(5)
    for _ in range(5):
        house.wanted.set()
    house.gate.set()
    await until(lambda: house.board.config.generation == 3)
    await until(lambda: not house.wanted.is_set())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [one.paths for one in house.applied] == [("targets.shop.timeout",)] * 2
    assert house.counted("unchanged") == 0


async def test_a_store_that_fails_meanwhile_ends_the_room(house: House, monkeypatch: pytest.MonkeyPatch):
    """What holds in memory and in the store could differ: the process must start anew."""

    async def broken(*_: object) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(house, "apply", broken)
    house.load = lambda: written(3)
    with pytest.raises(StoreError):
        await house.reloader.run_once()


async def test_without_a_file_it_says_so(house: House):
    house.reloader._reader = Reader(None)
    with capture_logs() as logs:
        await house.reloader.run_once()
    assert [line["event"] for line in logs] == ["reload_not_available"]
