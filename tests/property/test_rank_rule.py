"""The rank rule against a hostile network: random lives, a socket that drops, doubles and reorders, REST that lags.

State the promise, let Hypothesis look for a history that breaks it. What runs is the real planner; the
network around it is modelled here, in steps of one second.
"""

from dataclasses import dataclass, field
from json import loads
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from support.factories import snapshot

from relay.model import KnownOrder, Origin, Snapshot
from relay.store.values import Question
from relay.upstream.planner import Entry, Situation, plan_batch

SETTLING = 5.0
PATIENCE = 2.0
NEXT = {
    -2: [-1, 0], -1: [0], 0: [1, 5], 5: [1, 8], 1: [2], 2: [3, 4, 6], 3: [4, 6], 4: [8], 6: [7, 8], 7: [8], 8: [],
}  # fmt: skip


@dataclass
class Network:
    """One order upstream, its socket and its REST replicas, and the relay's side as the planner leaves it."""

    rng: Random
    now: float = 100.0
    history: list[tuple[float, int, int]] = field(default_factory=lambda: [(0.0, 0, 0)])
    wire: list[tuple[int, int]] = field(default_factory=list)
    known: KnownOrder | None = None
    touched: dict[str, float] = field(default_factory=dict)
    hints: list[tuple[float, Snapshot]] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    question: Question | None = None
    next: dict[int, list[int]] = field(default_factory=lambda: NEXT)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.hints and self.hints[0][0] <= end:
            self.now, hint = self.hints.pop(0)
            self.see(hint, hinted=True)
        self.now = end

    def transition(self) -> None:
        status, detail = self.history[-1][1:]
        if not self.next[status] or self.rng.random() < 0.3:
            self.history.append((self.now, status, detail + 1))
        else:
            self.history.append((self.now, self.rng.choice(self.next[status]), 0))

    def push(self, copies: int) -> None:
        self.wire += [self.history[-1][1:]] * copies

    def deliver(self, at: int) -> None:
        if self.wire:
            shown = self.wire.pop(at % len(self.wire))
            self.see(self.picture(*shown, sparse=self.rng.random() < 0.2, origin=Origin.WEBSOCKET))

    def ask_rest(self, first_sweep: bool, sparse: bool) -> None:
        """Any replica: nothing older than what was true one settling time ago, nothing in the future."""
        settled = max(
            index for index, entry in enumerate(self.history) if index == 0 or entry[0] <= self.now - SETTLING
        )
        index = self.rng.randint(settled, len(self.history) - 1)
        shown = self.history[index][1:]
        self.see(self.picture(*shown, sparse=sparse, origin=Origin.BACKFILL, first_sweep=first_sweep))

    def picture(self, status: int, detail: int, *, sparse: bool, **kwargs: object) -> Snapshot:
        """Rows and pushes differ in the fields they have: a sparse one lacks what changes within a status."""
        fields = {} if sparse else {"displayStatus": f"{status}-{detail}"}
        return snapshot("o", status, asked_at=self.now, **fields, **kwargs)  # type: ignore[arg-type] # passed through

    def give_up_on_rest(self) -> None:
        """REST cannot see the order: its question is settled without it, as `Questions` does."""
        if self.question is not None:
            seen, self.question = self.question, None
            if seen.sideways:
                fields = {name: text for name, text in loads(seen.frame).items() if name == "displayStatus"}
                self.see(snapshot("o", seen.status, asked_at=self.now, **fields), confirmed=True)

    def see(self, seen: Snapshot, hinted: bool = False, confirmed: bool = False) -> None:
        known = {"o": self.known} if self.known else {}
        situation = Situation("p", int(self.now * 1000), self.now, SETTLING, 100.0, self.touched)
        plan, judged = plan_batch([Entry(seen, hinted, confirmed)], known, situation, lambda _kind: ())
        self.known = plan.orders.get("o", self.known)
        for asked in plan.questions:
            self.question = asked
        if plan.answered:
            self.question = None
        self.touched |= judged.touched
        self.hints += [(self.now + PATIENCE, hint) for hint in judged.hints]
        self.told += [planned.event.facts.status for planned in plan.events if planned.event.facts]
        self.ids += [planned.event.webhook_id for planned in plan.events]


ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["transition", "transition_unpushed", "deliver", "deliver_any", "rest", "sweep", "drop", "give_up", "wait"]
        ),
        st.integers(0, 7),
    ),
    max_size=60,
)


def play(network: Network, acts: list[tuple[str, int]]) -> None:
    for act, number in acts:
        network.advance(number % 4)
        if act.startswith("transition"):
            network.transition()
            if act == "transition":
                network.push(1 + number % 2)
        elif act == "deliver":
            network.deliver(0)
        elif act == "deliver_any":
            network.deliver(number)
        elif act in ("rest", "sweep"):
            network.ask_rest(first_sweep=act == "sweep", sparse=number % 2 == 1)
        elif act == "give_up":
            network.give_up_on_rest()
        elif act == "drop":
            network.wire.clear()
        else:
            network.advance(number)


@settings(max_examples=2_000, deadline=None)
@given(acts=ACTS, seed=st.integers(0, 2**32))
def test_told_statuses_are_a_subsequence_of_the_truth_and_a_quiet_sweep_converges(
    acts: list[tuple[str, int]], seed: int
):
    network = Network(Random(seed))
    play(network, acts)
    while network.wire:
        network.deliver(0)
    network.advance(3 * SETTLING)
    network.ask_rest(first_sweep=False, sparse=False)
    network.advance(PATIENCE)
    check_subsequence(network)
    assert network.known is not None
    _, status, detail = network.history[-1]
    assert network.known.fields == {"status": status, "displayStatus": f"{status}-{detail}"}
    assert len(set(network.ids)) == len(network.ids)
    assert network.known.sequence == len(network.told)


def check_subsequence(network: Network) -> None:
    truth = [status for _, status, _ in network.history]
    steps = [status for index, status in enumerate(network.told) if index == 0 or network.told[index - 1] != status]
    remaining = iter(truth)
    assert all(status in remaining for status in steps), (network.told, truth)


@settings(max_examples=1_000, deadline=None)
@given(acts=ACTS, seed=st.integers(0, 2**32))
def test_a_correction_that_rest_can_never_show_is_told_all_the_same(acts: list[tuple[str, int]], seed: int):
    """An order past its window, frames in order, a finished order that turns out to have failed (or back)."""
    corrections = NEXT | {4: [6, 8], 6: [4, 7, 8]}
    network = Network(Random(seed), next=corrections)
    in_order = [act for act in acts if act[0] in ("transition", "deliver", "give_up", "wait")]
    for act, number in in_order:
        play(network, [(act, number)])
        while network.wire:
            network.deliver(0)
        network.give_up_on_rest()
    check_subsequence(network)
    truth = [status for _, status, _ in network.history]
    if network.told:
        assert network.told[-1] == truth[-1]
        assert network.question is None
