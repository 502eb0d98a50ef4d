"""The store-level promise under random trouble: the real planner, ingest and SQLite store, on virtual time.

Hypothesis plays upstream, wire, REST replicas, receivers, clocks and the kill -9; after each step every invariant of
the store is looked up in the database itself; at the end things heal and must converge. `make soak` runs many more.
"""

import os
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_model import GONE, LONGEST_WAIT_MS, NEXT, PARTNER, STEADY, TARGETS, Receivers, Relay, TrueOrder, wanted_by
from store_queries import COUNTS, FAN_OUT, LANES, LOG, SEQUENCES, TWICE, UNFINISHED

from relay.model import Delivery, Outcome
from relay.upstream.diff import SETTLING, webhook_id

Row = tuple[Any, ...]

MOST_ORDERS = 4
RAM = Path("/dev/shm")  # noqa: S108 - a fresh folder is made in it
ANY = st.integers(0, 2**16)
PUSH = st.sampled_from(("arrives", "arrives", "delayed", "lost"))

settings.register_profile("relay-ci", max_examples=600, stateful_step_count=50)
settings.register_profile("relay-soak", max_examples=int(os.environ.get("EXAMPLES", "20000")), stateful_step_count=80)


class StoreMachine(RuleBasedStateMachine):
    make_relay: ClassVar[type[Relay]] = Relay

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="houdini-relay-machine-", dir=RAM if RAM.is_dir() else None))
        self.relay = self.make_relay(self.folder)
        self.orders: list[TrueOrder] = []
        self.wire: list[bytes] = []
        self.answers: list[tuple[float, list[bytes], bool]] = []
        self.receivers = Receivers()

    @initialize(before=st.integers(0, 2))
    def baseline(self, before: int) -> None:
        """Orders from before the first start are learned without an event."""
        for _ in range(before):
            self._appear(0)
        self.relay.rows([order.body() for order in self.orders], self.relay.clock.now, first_sweep=True, silent=True)
        self.relay.ingest_all()

    @precondition(lambda self: len(self.orders) < MOST_ORDERS)
    @rule(first=st.sampled_from((-2, -1, 0)), push=PUSH)
    def order_appears(self, first: int, push: str) -> None:
        self._push(self._appear(first), push)

    @precondition(lambda self: self.orders)
    @rule(which=ANY, way=ANY, push=PUSH)
    def server_transition(self, which: int, way: int, push: str) -> None:
        order = self._order(which)
        _, status, step = order.history[-1]
        ways = [(following, 0) for following in NEXT[status]] + [(status, step + 1)]
        order.history.append((self.relay.clock.now, *ways[way % len(ways)]))
        self._push(order, push)

    @precondition(lambda self: any(order.statuses[-1] == 5 for order in self.orders))
    @rule(push=PUSH)
    def revive(self, push: str) -> None:
        order = next(order for order in self.orders if order.statuses[-1] == 5)
        order.history.append((self.relay.clock.now, 1, 0))
        self._push(order, push)

    @precondition(lambda self: self.wire)
    @rule()
    def push_arrives(self) -> None:
        self.relay.frame(self.wire.pop(0))

    @precondition(lambda self: self.wire)
    @rule(which=ANY)
    def push_reordered(self, which: int) -> None:
        self.relay.frame(self.wire.pop(which % len(self.wire)))

    @precondition(lambda self: self.wire)
    @rule(which=ANY)
    def push_doubled(self, which: int) -> None:
        self.relay.frame(self.wire[which % len(self.wire)])

    @precondition(lambda self: self.wire)
    @rule(which=ANY)
    def push_dropped(self, which: int) -> None:
        self.wire.pop(which % len(self.wire))

    @precondition(lambda self: self.orders)
    @rule(first=st.booleans(), lag=ANY, late=st.booleans())
    def sweep(self, first: bool, lag: int, late: bool) -> None:
        """Each row from a replica of its own, none lagging by more than a settling time; the answer may be late."""
        chance = Random(lag)
        now = self.relay.clock.now
        rows = [order.body(chance.randint(order.oldest_shown(now), len(order.history) - 1)) for order in self.orders]
        self.answers.append((now, rows, first))
        if not late:
            self.rest_answers()

    @precondition(lambda self: self.answers)
    @rule()
    def rest_answers(self) -> None:
        asked_at, rows, first = self.answers.pop(0)
        self.relay.rows(rows, asked_at, first_sweep=first)

    @precondition(lambda self: self.orders)
    @rule()
    def quiet_sweep(self) -> None:
        self.relay.advance(SETTLING + 1)
        self.relay.rows([order.body() for order in self.orders], self.relay.clock.now)
        self.relay.ingest_all()

    @precondition(lambda self: len(self.relay.intake))
    @rule()
    def ingest(self) -> None:
        self.relay.ingest_all()

    @rule(at=st.sampled_from(TARGETS), limit=st.integers(1, 3))
    def claim(self, at: str, limit: int) -> None:
        self.relay.claim(at, limit)

    @rule(at=st.sampled_from(TARGETS), which=ANY)
    def target_succeeds(self, at: str, which: int) -> None:
        if not self.relay.in_flight and not self.relay.claim(at, 1):
            return
        delivery = self._flying(which)
        self._acknowledge(delivery)

    @precondition(lambda self: self.relay.in_flight)
    @rule(which=ANY)
    def target_fails(self, which: int) -> None:
        delivery = self._flying(which)
        gone = delivery.target == GONE and which % 4 == 0
        outcome, code = (Outcome.GONE, 410) if gone else (Outcome.RETRY, 500)
        self.relay.settle(delivery, self.relay.attempt(outcome, code))

    @precondition(lambda self: self.relay.in_flight)
    @rule(which=ANY)
    def attempt_cut_off(self, which: int) -> None:
        delivery = self._flying(which)
        self.relay.in_flight.remove(delivery)
        self.relay.do(self.relay.store.release([delivery]))

    @rule()
    def target_resumed(self) -> None:
        self.relay.resume(GONE)

    @precondition(lambda self: self.receivers.acknowledged)
    @rule(which=ANY)
    def replay(self, which: int) -> None:
        known = sorted(self.receivers.acknowledged)
        target, webhook = known[which % len(known)]
        assert self.relay.replay(target, webhook) == 1

    @precondition(lambda self: self.relay.used)
    @rule(acknowledged=st.booleans())
    def crash_and_restart(self, acknowledged: bool) -> None:
        """kill -9, possibly after receivers said yes and before that was written."""
        if acknowledged:
            for delivery in self.relay.in_flight:
                self.receivers.take(delivery)
        self.relay.crash()

    @precondition(lambda self: len(self.relay.intake))
    @rule()
    def crash_within_ingest(self) -> None:
        before = self._rows(LOG)[0]
        if self.relay.crash_within_ingest():
            assert self._rows(LOG)[0] == before

    @precondition(lambda self: self.relay.used)
    @rule()
    def restart(self) -> None:
        self.relay.restart()

    @rule(seconds=st.sampled_from((0.5, 2.0, 6.0, 61.0, 700.0)))
    def advance(self, seconds: float) -> None:
        self.relay.advance(seconds)

    @rule(seconds=st.sampled_from((-3600, 3600, 30 * 86_400)))
    def step_clock(self, seconds: int) -> None:
        self.relay.step_wall(seconds)

    @invariant()
    def what_the_database_holds_is_in_order(self) -> None:
        if not self.relay.written:
            return
        self.relay.written = False
        fan_out, log, *wrong = self._rows(FAN_OUT, LOG, LANES, TWICE, SEQUENCES, COUNTS)
        assert wrong == [[], [], [], []]
        for kind, targets in fan_out:
            assert sorted((targets or "").split(",")) == sorted(wanted_by(kind)), kind
        told: dict[str, list[int]] = {}
        for lane, status, webhook in log:
            before = told.setdefault(lane, [])
            before.append(status)
            assert webhook == webhook_id(PARTNER, lane, status, before.count(status)), "an id does not follow"
        truth = {order.houdini_id: order.statuses for order in self.orders}
        for lane, statuses in told.items():
            steps = [status for at, status in enumerate(statuses) if at == 0 or statuses[at - 1] != status]
            remaining = iter(truth[lane])
            assert all(status in remaining for status in steps), (lane, statuses, truth[lane])

    def teardown(self) -> None:
        try:
            self._heal()
        finally:
            self.relay.close()
            shutil.rmtree(self.folder)

    def _heal(self) -> None:
        """All that is on the way arrives, the world stands still for a settling time, one sweep: all must agree."""
        while self.wire:
            self.push_arrives()
        while self.answers:
            self.rest_answers()
        self.relay.ingest_all()
        self.relay.advance(6.0)
        self.relay.ingest_all()
        self.quiet_sweep()
        self.relay.advance(6.0)
        self.relay.ingest_all()
        known = self.relay.do(self.relay.store.known_orders([order.houdini_id for order in self.orders]))
        for order in self.orders:
            _, status, step = order.history[-1]
            shown = {"status": status, "displayStatus": f"{status}-{step}"}
            assert order.houdini_id in known, "an order is unknown after healing"
            assert known[order.houdini_id].fields == shown
        self._deliver_all()

    def _deliver_all(self) -> None:
        """Whatever the clocks did, nothing waits longer than its schedule says."""
        self.relay.resume(GONE)
        self.relay.clock.advance(2 * LONGEST_WAIT_MS / 1000)
        for delivery in list(self.relay.in_flight):
            self._acknowledge(delivery)
        for target in TARGETS:
            while claimed := self.relay.claim(target, 50):
                for delivery in claimed:
                    self._acknowledge(delivery)
        self.what_the_database_holds_is_in_order()
        assert self._rows(UNFINISHED) == [[]]
        for lane, status, webhook in self._rows(LOG)[0]:
            assert (STEADY, webhook) in self.receivers.acknowledged, (lane, status)

    def _acknowledge(self, delivery: Delivery) -> None:
        self.receivers.take(delivery)
        self.relay.settle(delivery, self.relay.attempt(Outcome.OK, 200))

    def _appear(self, status: int) -> TrueOrder:
        order = TrueOrder(f"order-{len(self.orders)}", [(self.relay.clock.now, status, 0)])
        self.orders.append(order)
        return order

    def _order(self, which: int) -> TrueOrder:
        return self.orders[which % len(self.orders)]

    def _push(self, order: TrueOrder, push: str) -> None:
        if push == "arrives":
            self.relay.frame(order.body())
        elif push == "delayed":
            self.wire.append(order.body())

    def _flying(self, which: int) -> Delivery:
        return self.relay.in_flight[which % len(self.relay.in_flight)]

    def _rows(self, *queries: str) -> list[list[Row]]:
        return self.relay.query(*queries)


StoreMachine.TestCase.settings = settings(
    settings.get_profile(os.environ.get("RELAY_PROFILE", "relay-ci")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.slow
@pytest.mark.timeout(0 if "RELAY_PROFILE" in os.environ else 600)
class TestStoreUnderTrouble(StoreMachine.TestCase):  # type: ignore[misc] # made at run time
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
