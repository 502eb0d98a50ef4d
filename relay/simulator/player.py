"""Plays orders through their lives at a steady rate."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from relay.clock import Clock
from relay.simulator.lifecycle import DEFAULT_WEIGHTS, Kind, Life, Stage, choose_life, stages
from relay.simulator.orders import Style
from relay.simulator.world import WINDOW_MS, Order, World

_CATCH_UP: Final = 5
_ALIVE_AT_ONCE: Final = 30
_KIND_WEIGHTS: Final[Mapping[Kind, float]] = {Kind.CEX: 5, Kind.PRIVATE: 3, Kind.DEX: 2}
_STYLE_WEIGHTS: Final[Mapping[Style, float]] = {Style.PLAIN: 6, Style.ESCAPED: 2, Style.ODD: 2}


@dataclass(slots=True)
class _Role:
    order: Order
    ahead: deque[Stage]


class Player:
    """Makes a number of orders live; each `run_once` is one update."""

    def __init__(
        self,
        world: World,
        *,
        orders: int,
        rate: float,
        rng: Random,
        clock: Clock,
        weights: Mapping[Life, float] = DEFAULT_WEIGHTS,
    ) -> None:
        """Set the scene.

        Args:
            world: where the orders live.
            orders: how many new ones are made.
            rate: updates per second.
            rng: decides who moves next and how each life goes.
            clock: paces `run`.
            weights: how likely each life is.
        """
        self._world = world
        self._planned = self._unborn = orders
        self._pause = 1 / rate
        self._rng = rng
        self._clock = clock
        self._weights = weights
        self._alive: list[_Role] = []
        self.updates = 0

    @property
    def done(self) -> bool:
        """Whether every order has come to the end of its life."""
        return not self._unborn and not self._alive

    @property
    def progress(self) -> float:
        """How far the play has come, roughly, 0 to 1."""
        ahead = self._unborn + len(self._alive) / 2
        return max(0.0, 1 - ahead / self._planned) if self._planned else float(self.done)

    def populate(self, count: int) -> None:
        """Put orders into the world that are in mid-life already, of any age inside the window, unannounced."""
        for _ in range(count):
            kind, ahead = self._life()
            lived = self._rng.randrange(1, len(ahead))
            for _ in range(lived - 1):
                ahead.popleft()
            age_ms = self._rng.randrange(WINDOW_MS // 2)
            order = self._world.create(kind, ahead.popleft(), age_ms=age_ms, style=self._style(), announce=False)
            self._alive.append(_Role(order, ahead))

    def run_once(self) -> None:
        """One update: an order is made, or one moves on. Does nothing when all are done."""
        if self.done:
            return
        if self._unborn and (not self._alive or self._birth_is_due()):
            self._unborn -= 1
            kind, ahead = self._life()
            role = _Role(self._world.create(kind, ahead.popleft(), style=self._style()), ahead)
            self._alive.append(role)
        else:
            role = self._rng.choice(self._alive)
            self._world.transition(role.order, role.ahead.popleft())
        if not role.ahead:
            self._alive.remove(role)
        self.updates += 1

    async def run(self) -> None:
        """Play until every order is done, at the rate; after a stall it catches up by a few updates, no more."""
        due = self._clock.mono()
        while not self.done:
            self.run_once()
            due = max(due + self._pause, self._clock.mono() - _CATCH_UP * self._pause)
            await self._clock.sleep(max(0.0, due - self._clock.mono()))

    def _birth_is_due(self) -> bool:
        return len(self._alive) < _ALIVE_AT_ONCE and self._rng.random() < 0.3

    def _life(self) -> tuple[Kind, deque[Stage]]:
        kinds = list(_KIND_WEIGHTS)
        kind = self._rng.choices(kinds, weights=list(_KIND_WEIGHTS.values()))[0]
        return kind, deque(stages(kind, choose_life(self._rng, self._weights), self._rng))

    def _style(self) -> Style:
        return self._rng.choices(list(_STYLE_WEIGHTS), weights=list(_STYLE_WEIGHTS.values()))[0]
