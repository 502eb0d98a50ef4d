"""Which orders are followed, and which of them are still worth a subscription or a read by id."""

from typing import Final, Literal

from relay.clock import Clock
from relay.store.base import Store

Orders = Literal["all"] | tuple[str, ...]

KEPT: Final = 48 * 3600.0
"""Seconds after its end for which a followed order is still subscribed to and read."""


class Followed:
    """The orders of the configuration.

    Attributes:
        orders: all, or these ids; may be changed at any time.
    """

    def __init__(self, orders: Orders, store: Store, clock: Clock) -> None:
        self.orders: Orders = orders
        self._store = store
        self._clock = clock

    async def watched(self) -> frozenset[str] | None:
        """Those that have not been terminal for 48 h; None for all orders.

        One that has aged out is still among them: only its frames can show how it ends.
        """
        while (orders := self.orders) != "all":
            long_ago = self._clock.wall_ms() - int(KEPT * 1000)
            ended = await self._store.ended_orders(orders, long_ago)
            if orders is self.orders:  # else they were changed meanwhile
                return frozenset(orders) - ended
        return None

    async def visible(self) -> list[str] | None:
        """Those of the watched that REST may still show, in the configuration's order; None for all orders."""
        watched, orders = await self.watched(), self.orders
        if watched is None or orders == "all":
            return None
        hidden = await self._store.aged_out_orders(orders)
        return [one for one in orders if one in watched and one not in hidden]
