"""The subscription as a conversation: what the upstream holds for us, what we want, what to say next.

Pure. One request is under way at a time, so an acknowledgement can only belong to that request, and a late
`unsubscribed` cannot undo a newer wish. What the documentation leaves open is never sent: no empty or null
`houdiniIds`, and no ids while in all mode.
"""

from enum import StrEnum
from typing import Final

import msgspec

from relay.upstream.protocol import Message, Subscribed, Unsubscribed, UpstreamErrorMessage, Welcome

CHUNK: Final = 100
"""Ids per message."""

MAX_DROPS: Final = 3
"""Times the upstream may end a subscription by itself before the epoch counts as failed."""

AUTH_FAILED: Final = "AUTH_FAILED"
PING: Final = '{"type":"ping"}'


class Stage(StrEnum):
    """How far the conversation has come."""

    CONNECTED = "connected"
    WELCOMED = "welcomed"
    SUBSCRIBED = "subscribed"


class Effect(StrEnum):
    """What a message meant for the conversation."""

    NOTHING = "nothing"
    PROGRESS = "progress"
    COMPLAINT = "complaint"
    DROPPED = "dropped"
    GIVE_UP = "give_up"
    AUTH_FAILED = "auth_failed"


class _Request:
    """What we said last and still wait for; `ids` is None for all."""

    __slots__ = ("adds", "ids")

    def __init__(self, adds: bool, ids: frozenset[str] | None) -> None:
        self.adds = adds
        self.ids = ids

    def to_text(self) -> str:
        message: dict[str, object] = {"type": "subscribe" if self.adds else "unsubscribe"}
        if self.ids is not None:
            message["houdiniIds"] = sorted(self.ids)
        return msgspec.json.encode(message).decode()


class SubscriptionState:
    """One epoch's conversation about subscriptions.

    Attributes:
        wanted: ids to watch, None for all orders.
        unconfirmed: ids the upstream did not confirm in time; sweeps have to cover them.
    """

    def __init__(self, wanted: frozenset[str] | None) -> None:
        self.wanted = wanted
        self.unconfirmed: frozenset[str] = frozenset()
        self._welcomed = False
        self._all = False
        self._held: frozenset[str] = frozenset()
        self._waiting: _Request | None = None
        self._drops = 0

    @property
    def stage(self) -> Stage:
        """SUBSCRIBED only while what the upstream confirmed is what we want."""
        if not self._welcomed:
            return Stage.CONNECTED
        return Stage.SUBSCRIBED if self._waiting is None and self._next_request() is None else Stage.WELCOMED

    @property
    def waiting(self) -> bool:
        """Whether something we said is not acknowledged yet."""
        return self._waiting is not None

    def want(self, wanted: frozenset[str] | None) -> None:
        """Change what is wanted; `next_message` then says how to get there."""
        self.wanted = wanted
        self.unconfirmed = frozenset()

    def next_message(self) -> str | None:
        """What to send now, as JSON text; None while there is nothing to say or an answer is awaited."""
        if not self._welcomed or self._waiting is not None:
            return None
        self._waiting = self._next_request()
        return None if self._waiting is None else self._waiting.to_text()

    def on_message(self, message: Message) -> Effect:
        """Take note of a message from the upstream."""
        match message:
            case Welcome():
                self._welcomed = True
                return Effect.PROGRESS
            case Subscribed(ids):
                return self._on_subscribed(ids)
            case Unsubscribed(ids):
                return self._on_unsubscribed(ids)
            case UpstreamErrorMessage(code):
                return Effect.AUTH_FAILED if code == AUTH_FAILED else Effect.COMPLAINT
            case _:
                return Effect.NOTHING

    def give_up_waiting(self) -> bool:
        """The deadline of the request under way has passed; False if nothing of it was confirmed.

        A part of a list that stays unconfirmed is not worth the connection: it is left to sweeps.
        """
        request = self._waiting
        if request is None or not request.adds or request.ids is None or not request.ids & self._held:
            return False
        self.unconfirmed |= request.ids - self._held
        self._waiting = None
        return True

    def _next_request(self) -> _Request | None:
        if self.wanted is None:
            return None if self._all else _Request(adds=True, ids=None)
        if self._all:
            return _Request(adds=False, ids=None)
        if surplus := self._held - self.wanted:
            return _Request(adds=False, ids=_chunk(surplus))
        if missing := self.wanted - self._held - self.unconfirmed:
            return _Request(adds=True, ids=_chunk(missing))
        return None

    def _on_subscribed(self, ids: frozenset[str] | None) -> Effect:
        request = self._waiting
        if request is None or not request.adds:
            return Effect.NOTHING
        if request.ids is None:
            self._all, self._held, self._waiting = True, frozenset(), None
            return Effect.PROGRESS
        self._held |= request.ids if ids is None else ids & request.ids
        if request.ids <= self._held:
            self._waiting = None
        return Effect.PROGRESS

    def _on_unsubscribed(self, ids: frozenset[str] | None) -> Effect:
        request = self._waiting
        if request is not None and not request.adds:
            self._forget(request.ids)
            self._waiting = None
            return Effect.PROGRESS
        touched = ids is None or self._all or bool(ids & self._held)
        if not touched:
            return Effect.NOTHING
        self._forget(None if self._all else ids)
        self._drops += 1
        return Effect.GIVE_UP if self._drops > MAX_DROPS else Effect.DROPPED

    def _forget(self, ids: frozenset[str] | None) -> None:
        self._all = False
        self._held = frozenset() if ids is None else self._held - ids


def _chunk(ids: frozenset[str]) -> frozenset[str]:
    return frozenset(sorted(ids)[:CHUNK])
