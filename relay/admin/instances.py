"""Those that share the store, and who of them holds the upstream's connection, for people. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from relay.board import Board
from relay.model import iso_utc
from relay.store.values import LiveInstance

NOBODY_LEADS: Final = "no instance holds the connection"
NOBODY_ADVICE: Final = "wait 20 s: an instance that runs takes over; if it stays, see why none can use the store"


def nobody_leads(board: Board) -> bool:
    """Whether this instance follows, and, as far as it knows, follows nobody."""
    return board.lead.follows and board.lead.leader is None


def instance_shapes(instances: Sequence[LiveInstance], board: Board) -> list[dict[str, Any]]:
    """Every instance that was heard of lately, as the API shows it."""
    return [
        {
            "id": one.instance.id,
            "host": one.instance.host,
            "this": one.instance.id == board.lead.instance,
            "leads": one.epoch is not None,
            "epoch": one.epoch,
            "started_at": iso_utc(one.instance.started_ms),
            "seen_at": iso_utc(one.seen_ms),
            "in_flight": dict(one.in_flight),
        }
        for one in instances
    ]
