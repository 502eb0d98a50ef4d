"""End to end: the real relay against the simulator on real sockets, a random script of faults, then calm, then judged.

`make soak` plays many more scripts than CI does.
"""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.until import until
from whole import SETTLING, Whole

from relay.simulator.faults import Action, Faults, RestFault
from relay.simulator.player import Player
from relay.simulator.verdict import History, Verdict, judge

EXAMPLES = int(os.environ.get("WHOLE_EXAMPLES", "50"))
ORDERS = 3
MOST_DESCRIPTORS = 8

SWITCHES: dict[str, dict[str, object]] = {
    "calm": {},
    "refused": {"refuse_count": 3},
    "frames dropped": {"drop_every": 2},
    "frames doubled": {"double_pushes": True},
    "frames reordered": {"reorder": True},
    "mute": {"mute": True},
    "no pong": {"no_pong": True},
    "REST lags": {"rest_lag_seconds": SETTLING * 0.7},
    "REST 500": {"rest_fault": RestFault.STATUS, "rest_fault_count": 2},
    "REST 429": {"rest_fault": RestFault.THROTTLED, "rest_fault_count": 2, "retry_after": 2},
    "REST HTML": {"rest_fault": RestFault.HTML, "rest_fault_count": 2},
    "REST empty": {"rest_fault": RestFault.EMPTY, "rest_fault_count": 2},
    "REST ignores sorting": {"ignore_sort": True},
}
RECEIVER: dict[str, dict[str, float]] = {
    "receiver fails": {"fail_rate": 0.5},
    "receiver down": {"fail_rate": 1.0},
    "receiver slow": {"delay": 0.03},
}
CRASH = "kill"
KINDS = (*SWITCHES, *RECEIVER, *(action.value for action in Action), CRASH)
SCRIPTS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 6), st.booleans()), min_size=2, max_size=8)


Script = list[tuple[str, int, bool]]
"""Kinds of trouble, each with how many updates follow it and whether it is healed then."""


class Play:
    """One script on one stage."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self.player = Player(whole.world, orders=ORDERS, rate=100, rng=whole.rng, clock=whole.clock)
        self.player.populate(1)

    async def run(self, script: Script, ends: bool) -> None:
        await until(lambda: self.whole.relay.board.upstream.first_sweep_done)
        for kind, updates, heals in script:
            await self.begin(kind)
            for _ in range(updates):
                self.player.run_once()
                await asyncio.sleep(0.01)
            if heals:
                self.heal()
        self.heal()
        while ends and not self.player.done:
            self.player.run_once()
            await asyncio.sleep(0.005)

    async def begin(self, kind: str) -> None:
        if kind in SWITCHES:
            self.whole.upstream.faults.update(SWITCHES[kind])
            if kind == "refused":
                await self.whole.upstream.act(Action.DROP)
        elif kind in RECEIVER:
            for name, value in RECEIVER[kind].items():
                setattr(self.whole.receiver.misbehaviour, name, value)
        elif kind == CRASH:
            await self.whole.relay.crash()
        else:
            await self.whole.upstream.act(Action(kind))

    def heal(self) -> None:
        calm = Faults()
        self.whole.upstream.faults.update({name: getattr(calm, name) for name in Faults.__slots__})
        self.whole.receiver.misbehaviour.fail_rate = self.whole.receiver.misbehaviour.delay = 0.0

    def verdict(self) -> Verdict:
        return judge(History.of(self.whole.world), self.whole.receiver.arrivals, ["shop"])

    async def settled(self) -> bool:
        self.whole.relay.assert_alive()
        if self.verdict().lost or not await self.whole.statuses_agree():
            return False
        backlog = await self.whole.relay.store.backlog()
        return backlog["shop"].pending == 0 and len(self.whole.relay.intake) == 0


async def play(script: Script, ends: bool, seed: int, folder: Path) -> None:
    async with Whole(folder, seed) as whole:
        one = Play(whole)
        await one.run(script, ends)
        await until(one.settled, 20.0, pause=0.02)
        verdict = one.verdict()
    reordered = any(kind == "frames reordered" for kind, _, _ in script)
    if reordered:
        # Two steps of one status swapped on the wire: a quiet sweep corrects the projection by an event of its own.
        verdict.doubled.clear()
    assert verdict.ok, "\n".join(verdict.lines())
    assert_ids_and_sequences(whole)


def assert_ids_and_sequences(whole: Whole) -> None:
    bodies: dict[str, bytes] = {}
    sequences: dict[str | None, set[int]] = {}
    for arrival in whole.receiver.arrivals:
        if arrival.sequence is None:
            continue
        assert bodies.setdefault(arrival.webhook_id, arrival.body) == arrival.body
        sequences.setdefault(arrival.houdini_id, set()).add(arrival.sequence)
    for found in sequences.values():
        assert found == set(range(1, len(found) + 1))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
@pytest.mark.timeout(0 if "WHOLE_EXAMPLES" in os.environ else 240)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    # Real sockets do not repeat themselves exactly: shrinking would take minutes and mislead.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(script=SCRIPTS, ends=st.booleans(), seed=st.integers(0, 2**32))
def test_after_any_script_of_faults_nothing_is_lost_doubled_or_out_of_order(script: Script, ends: bool, seed: int):
    before = descriptors()
    folder = Path(tempfile.mkdtemp(prefix="houdini-relay-whole-"))
    try:
        asyncio.run(play(script, ends, seed, folder))
    finally:
        shutil.rmtree(folder)
    assert descriptors() <= before + MOST_DESCRIPTORS
