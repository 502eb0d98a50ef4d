"""The queue's promises under everything that engine, janitor, people and kill -9 do to it, in any order.

After each step the store proves itself (`check`: lanes, counters, steps, standings), nothing that was routed is lost,
and nothing that is in flight was touched; at the end every target is set free and all must drain.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from queue_model import EVERY, LOOSE, OPEN, STRICT, TARGETS, WAITING, QueueBench, wrongly_superseded

from relay.model import Delivery
from relay.standing import Breaker, Ordering
from relay.store.values import Change

RAM = Path("/dev/shm")  # noqa: S108 - a fresh folder is made in it
ANY = st.integers(0, 2**16)
AT = st.sampled_from(TARGETS)
HOW = st.sampled_from(("ok", "ok", "again", "again", "gone", "dead"))

SOAK = os.environ.get("RELAY_PROFILE") == "relay-soak"
EXAMPLES = int(os.environ.get("EXAMPLES", "20000")) if SOAK else 75


class QueueMachine(RuleBasedStateMachine):
    make_bench: ClassVar[type[QueueBench]] = QueueBench

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="houdini-relay-queue-", dir=RAM if RAM.is_dir() else None))
        self.bench = self.make_bench(self.folder)

    @initialize()
    def begin(self) -> None:
        for order in ("o1", "o2", "o3"):
            self.event(order, 0)

    @rule(order=st.sampled_from(("o1", "o2", "o3")), status=st.sampled_from((0, 1, 4, 5)))
    def event(self, order: str, status: int) -> None:
        before, told = self._superseded(), sum(self.bench.told.values())
        self.bench.add(order, status, TARGETS)
        assert sum(self.bench.told.values()) - told == self._superseded() - before

    @rule(at=AT, limit=st.integers(1, 3))
    def claim(self, at: str, limit: int) -> None:
        for delivery in self.bench.claim(at, limit):
            self._is_first(delivery)

    @rule(at=AT, hows=st.lists(HOW, min_size=1, max_size=4))
    def attempts_one_after_the_other(self, at: str, hows: list[str]) -> None:
        """What a target's loop does: take, try, write; else few runs would get as far as a breaker's second probe."""
        for how in hows:
            claimed = self.bench.claim(at, 2)
            self.bench.settle([(one, how) for one in claimed])

    @precondition(lambda self: self.bench.in_flight)
    @rule(which=ANY, how=HOW)
    def attempt_ends(self, which: int, how: str) -> None:
        self.bench.settle([(self._flying(which), how)])

    @precondition(lambda self: self.bench.in_flight)
    @rule(hows=st.lists(HOW, min_size=1, max_size=5))
    def attempts_end_together(self, hows: list[str]) -> None:
        self.bench.settle(list(zip(list(self.bench.in_flight), hows, strict=False)))

    @precondition(lambda self: self.bench.in_flight)
    @rule(which=ANY)
    def attempt_cut_off(self, which: int) -> None:
        self.bench.release(self._flying(which))

    @precondition(lambda self: self.bench.stale)
    @rule(which=ANY)
    def success_comes_late(self, which: int) -> None:
        """Its claim was lost, and whatever became of it: the receiver has it."""
        delivery = self.bench.stale.pop(which % len(self.bench.stale))
        known = self.bench.state_of(delivery.id)
        self.bench.settle([(delivery, "ok")])
        assert self.bench.state_of(delivery.id) == (None if known is None else 2)

    @precondition(lambda self: self.bench.stale)
    @rule(which=ANY)
    def failure_comes_late(self, which: int) -> None:
        delivery = self.bench.stale.pop(which % len(self.bench.stale))
        known = self.bench.state_of(delivery.id)
        self.bench.settle([(delivery, "again")])
        assert self.bench.state_of(delivery.id) == known

    @rule(at=AT)
    def pause(self, at: str) -> None:
        self.bench.do(self.bench.store.pause(at, self.bench.now))

    @rule(at=AT)
    def resume(self, at: str) -> None:
        self.bench.do(self.bench.store.resume(at, self.bench.now))

    @rule(which=ANY)
    def person_retries(self, which: int) -> None:
        delivery_id, state, target = self._any_open(which)
        answer = self.bench.do(self.bench.store.retry_now(delivery_id, self.bench.now))
        if delivery_id in self._flying_ids():
            assert answer is Change.IN_FLIGHT
        elif answer is Change.DONE:
            assert state == 0
            first = self.bench.claim(target, 1)
            assert not first or first[0].manual
        else:
            assert answer in ((Change.UNKNOWN,) if state is None else (Change.BLOCKED, Change.STOPPED))

    @rule(which=ANY)
    def person_cancels(self, which: int) -> None:
        delivery_id, state, _ = self._any_open(which)
        answer = self.bench.do(self.bench.store.cancel(delivery_id, self.bench.now))
        if delivery_id in self._flying_ids():
            assert answer is Change.IN_FLIGHT
        else:
            assert answer is (Change.UNKNOWN if state is None else Change.DONE)

    @precondition(lambda self: self.bench.expected)
    @rule(which=ANY)
    def person_replays(self, which: int) -> None:
        webhook_id, target, _ = sorted(self.bench.expected)[which % len(self.bench.expected)]
        before, told = self._superseded(), sum(self.bench.told.values())
        self.bench.replay(target, webhook_id)
        assert sum(self.bench.told.values()) - told == self._superseded() - before

    @rule(at=AT, age=st.sampled_from((1_000, 60_000, 600_000)), limit=st.integers(1, 4))
    def expire(self, at: str, age: int, limit: int) -> None:
        after = 0
        for _ in range(1_000):
            found = self.bench.do(self.bench.store.expire(at, self.bench.now - age, after, limit, self.bench.now))
            after = found.next_after
            if not after:
                return
        raise AssertionError("a look for expired deliveries never ends")

    @rule(at=AT, keep=st.integers(1, 6), limit=st.integers(1, 4))
    def overflow(self, at: str, keep: int, limit: int) -> None:
        before = self._open_at(at)
        ended = self.bench.do(self.bench.store.trim(at, keep, limit, self.bench.now))
        assert ended <= limit
        assert self._open_at(at) == before - ended
        assert ended == 0 or before - ended >= keep

    @rule(names=st.sets(AT))
    def configure(self, names: set[str]) -> None:
        self.bench.configure(sorted(names))

    @rule(ordering=st.sampled_from(Ordering), reach=st.sampled_from(("here", "there")), paused=st.booleans())
    def reconfigure(self, ordering: Ordering, reach: str, paused: bool) -> None:
        """Only of `loose`, which promises nothing; the others promise what they do all along."""
        for name in TARGETS:
            self.bench.entry[name] = replace(self.bench.entry[name], reach=reach)
        self.bench.entry[LOOSE] = replace(self.bench.entry[LOOSE], ordering=ordering)
        self.bench.entry[STRICT] = replace(self.bench.entry[STRICT], paused=paused)
        self.bench.configure(list(self.bench.configured))

    @rule(at=AT, limit=st.integers(1, 3))
    def forget(self, at: str, limit: int) -> None:
        count = self.bench.do(self.bench.store.forget(at, limit, self.bench.now))
        assert count <= (0 if at in self.bench.configured else limit)

    @rule(age=st.sampled_from((0, 30_000)), limit=st.integers(1, 4))
    def prune(self, age: int, limit: int) -> None:
        self.bench.prune(age, limit)

    @rule()
    def restart(self) -> None:
        self.bench.restart()

    @rule()
    def crash(self) -> None:
        self.bench.crash()

    @rule(seconds=st.sampled_from((1, 12, 60, 3_600)))
    def advance(self, seconds: int) -> None:
        self.bench.now += seconds * 1_000

    @rule()
    def clock_set_back(self) -> None:
        self.bench.now -= 500_000
        for name in TARGETS:
            self.bench.do(self.bench.store.shift_due(name, -500_000, self.bench.now))

    @invariant()
    def all_is_in_order(self) -> None:
        assert self.bench.do(self.bench.store.check()) == []
        rows = self.bench.rows(EVERY)
        there = {row[:3] for row in rows}
        assert self.bench.expected <= there | self.bench.pruned, "a delivery is lost"
        assert there <= self.bench.expected, "a delivery came from nowhere"
        states = {row[4]: row[3] for row in rows}
        assert all(states[one.id] == 0 for one in self.bench.in_flight), "what was in flight was touched"
        assert self.bench.store.in_flight() == self._flying_ids()
        if not self.bench.pruned:
            assert wrongly_superseded(rows) == []
        assert not any(row[3] == 4 and row[1] == STRICT for row in rows)
        for name, backlog in self.bench.do(self.bench.store.backlog()).items():
            if backlog.standing.breaker is Breaker.OPEN:
                waiting = self.bench.rows(WAITING, name, self.bench.now)
                assert waiting == [], "a head waits for its schedule though the breaker is open"

    def teardown(self) -> None:
        try:
            self._drain()
        finally:
            self.bench.close()
            shutil.rmtree(self.folder)

    def _drain(self) -> None:
        """Everything is set free and every attempt succeeds: each round must get something done."""
        self.bench.entry[STRICT] = replace(self.bench.entry[STRICT], paused=False)
        self.bench.configure(TARGETS)
        for name in TARGETS:
            self.bench.do(self.bench.store.resume(name, self.bench.now))
        self.bench.now += 10_000_000
        for _ in range(len(self.bench.rows(OPEN)) + 1):
            for name in TARGETS:
                self.bench.claim(name, 100)
            if not self.bench.in_flight:
                break
            self.bench.settle([(one, "ok") for one in self.bench.in_flight])
        self.all_is_in_order()
        assert self.bench.rows(OPEN) == [], "a lane is stuck"

    def _is_first(self, delivery: Delivery) -> None:
        """Under `per_order` and `latest_only` nothing overtakes."""
        if delivery.target == LOOSE:
            return
        older = [
            row
            for row in self.bench.rows(EVERY)
            if row[1] == delivery.target and row[6] == delivery.event.lane and row[3] < 2 and row[4] < delivery.id
        ]
        assert older == []

    def _any_open(self, which: int) -> tuple[int, int | None, str]:
        found = self.bench.rows(OPEN)
        return found[which % len(found)] if found else (10**6, None, "")

    def _open_at(self, target: str) -> int:
        return sum(name == target for _, _, name in self.bench.rows(OPEN))

    def _superseded(self) -> int:
        return sum(row[3] == 4 for row in self.bench.rows(EVERY))

    def _flying(self, which: int) -> Delivery:
        return self.bench.in_flight[which % len(self.bench.in_flight)]

    def _flying_ids(self) -> frozenset[int]:
        return frozenset(one.id for one in self.bench.in_flight)


QueueMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=80 if SOAK else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow
@pytest.mark.timeout(0 if "RELAY_PROFILE" in os.environ else 600)
class TestQueueUnderTrouble(QueueMachine.TestCase):  # type: ignore[misc] # made at run time
    """Loop and writer thread take turns; on one core they do so in half the time."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.cores = os.sched_getaffinity(0)
        # Not the same one for two workers of xdist.
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        os.sched_setaffinity(0, {sorted(cls.cores)[worker % len(cls.cores)]})

    @classmethod
    def tearDownClass(cls) -> None:
        os.sched_setaffinity(0, cls.cores)
