"""The documented lives of an order, as the stages that the upstream would show one after another.

Pure: chance comes as an argument. The tables are written down anew here, on purpose: sharing them
with the code under test would hide a mistake in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

LABELS: Final[Mapping[int, str]] = {
    -2: "INITIALIZING",
    -1: "NEW",
    0: "WAITING",
    1: "CONFIRMING",
    2: "EXCHANGING",
    3: "ANONYMIZING",
    4: "FINISHED",
    5: "EXPIRED",
    6: "FAILED",
    7: "REFUNDED",
    8: "DELETED",
}


class Kind(StrEnum):
    """How an order is routed; private ones have a second hop, which is censored."""

    CEX = "cex"
    PRIVATE = "private"
    DEX = "dex"


class Life(StrEnum):
    """How an order's life goes."""

    FINISHED = "finished"
    EXPIRED = "expired"
    REVIVED = "revived"
    FAILED = "failed"
    REFUNDED = "refunded"
    DELETED = "deleted"


DEFAULT_WEIGHTS: Final[Mapping[Life, float]] = {
    Life.FINISHED: 70,
    Life.EXPIRED: 12,
    Life.REVIVED: 5,
    Life.FAILED: 5,
    Life.REFUNDED: 5,
    Life.DELETED: 3,
}


@dataclass(frozen=True, slots=True)
class Stage:
    """What the status fields say at one point of a life; None leaves the field out of the order.

    Attributes:
        status: order status code.
        display: `displayStatus`, finer than `status`.
        in_status: hop code of the first hop (another numbering than the order's).
        out_status: hop code of the second hop, private orders only.
        action_required: whether the customer has to do something.
    """

    status: int
    display: str | None
    in_status: int | None
    out_status: int | None = None
    action_required: bool = False


_INITIALIZING = Stage(-2, None, None)
_NEW = Stage(-1, None, 0)
_WAITING = Stage(0, "WAITING_FOR_DEPOSIT", 1)
_DETECTED = Stage(1, "DEPOSIT_DETECTED", 2)
_VERIFYING = Stage(1, "DEPOSIT_DETECTED", 8, action_required=True)
_EXPIRED = Stage(5, "EXPIRED", 9)
_FAILED = Stage(6, "FAILED", 6)
_REFUNDED = Stage(7, "REFUNDED", 7)
_DELETED = Stage(8, "DELETED", 7)

_EXCHANGE: Final[Mapping[Kind, tuple[Stage, ...]]] = {
    Kind.CEX: (
        Stage(2, "EXCHANGE_IN_PROGRESS", 3),
        Stage(2, "SENDING_TO_RECEIVER", 4),
    ),
    Kind.DEX: (Stage(2, "EXCHANGE_IN_PROGRESS", 3),),
    Kind.PRIVATE: (
        Stage(2, "EXCHANGE_IN_PROGRESS", 3, 0),
        Stage(2, "SENDING_TO_INTERMEDIARY", 4, 1),
        Stage(3, "REACHED_INTERMEDIARY", 5, 2),
        Stage(3, "INITIATING_SECOND_EXCHANGE", 5, 2),
        Stage(3, "SECOND_EXCHANGE_IN_PROGRESS", 5, 3),
        Stage(3, "SENDING_TO_RECEIVER", 5, 4),
    ),
}
_COMPLETED: Final[Mapping[Kind, Stage]] = {
    Kind.CEX: Stage(4, "SWAP_COMPLETED", 5),
    Kind.DEX: Stage(4, "SWAP_COMPLETED", 5),
    Kind.PRIVATE: Stage(4, "SWAP_COMPLETED", 5, 5),
}


def _birth(rng: Random) -> tuple[Stage, ...]:
    first = rng.choice(((_INITIALIZING, _NEW), (_NEW,), ()))
    return (*first, _WAITING)


def _deposit(rng: Random) -> tuple[Stage, ...]:
    return (_DETECTED, _VERIFYING) if rng.random() < 0.1 else (_DETECTED,)


def stages(kind: Kind, life: Life, rng: Random) -> tuple[Stage, ...]:
    """All stages of one life, first to last; `rng` decides about the optional ones."""
    birth, deposit = _birth(rng), _deposit(rng)
    exchange, broken_off = _EXCHANGE[kind], _EXCHANGE[kind][:1]
    match life:
        case Life.FINISHED:
            return (*birth, *deposit, *exchange, _COMPLETED[kind])
        case Life.EXPIRED:
            return (*birth, _EXPIRED)
        case Life.REVIVED:
            return (*birth, _EXPIRED, *deposit, *exchange, _COMPLETED[kind])
        case Life.FAILED:
            return (*birth, *deposit, *broken_off, _FAILED)
        case Life.REFUNDED:
            return (*birth, *deposit, *broken_off, _FAILED, _REFUNDED)
        case Life.DELETED:
            return (*birth, *deposit, *broken_off, _FAILED, _DELETED)


def choose_life(rng: Random, weights: Mapping[Life, float] = DEFAULT_WEIGHTS) -> Life:
    """One life, as likely as its weight says."""
    lives = sorted(weights)
    return rng.choices(lives, weights=[weights[life] for life in lives])[0]
