"""The dashboard's verdict and the few words and colours that its pages share. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from relay.admin.figures import span
from relay.admin.status import counted
from relay.board import UpstreamState

TONES: Final[Mapping[str, str]] = {
    "active": "good",
    "delivered": "good",
    "ok": "good",
    "subscribed": "good",
    "closed": "good",
    "pending": "busy",
    "in_flight": "busy",
    "half_open": "busy",
    "connecting": "busy",
    "connected": "busy",
    "welcomed": "busy",
    "retry": "warn",
    "paused": "warn",
    "waiting": "warn",
    "dead": "bad",
    "parked": "bad",
    "open": "bad",
    "refused": "bad",
    "gone": "bad",
    "forbidden": "bad",
    "auth_failed": "bad",
    "stopped": "bad",
}
"""Word of a state -> how it is coloured; whatever is not here is neutral."""

DONE: Final[Mapping[str, str]] = {
    "retried": "It is attempted now.",
    "replayed": "It is sent again, as this new delivery.",
    "cancelled": "It is cancelled.",
    "paused": "Paused. What comes is kept and waits.",
    "was_paused": "It was paused already.",
    "resumed": "Resumed. What has waited is being sent.",
    "probed": "Only its breaker was open: it is probed now.",
    "was_resumed": "It was neither parked nor paused, and its breaker is closed.",
    "forgotten": "What was kept for it is cancelled.",
    "replay": "A replay has begun to deliver.",
    "backfill": "A sweep is asked for; it compares every recent order with REST.",
}
"""What a form has done -> the sentence on the page after it."""


HELD: Final[Mapping[str, str]] = {
    "paused": "for its target, which is paused",
    "parked": "for its target, which is parked",
    "orphaned": "for its target, which is not configured any more",
    "breaker_open": "for its target's breaker, next probe",
    "throttled": "for its target, which asked to be left alone until",
}
"""What of its target holds a delivery back -> what it waits for; the last two go on with a moment."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One look at everything: a tone (`good`, `busy`, `bad`), a title, and a sentence."""

    tone: str
    title: str
    sentence: str


def verdict(status: Mapping[str, Any]) -> Verdict:
    """What the whole of `status` comes to."""
    kept = [target for target in status["targets"] if target["state"] != "orphaned"]
    waiting, dead = sum(target["pending"] for target in kept), sum(target["dead"] for target in kept)
    queue = f"{counted(waiting, 'delivery', 'deliveries')} waiting"
    if status["problems"]:
        count = len(status["problems"])
        title = "One thing needs attention" if count == 1 else f"{count} things need attention"
        return Verdict("bad", title, f"{queue}: kept, and not lost." if waiting else "Nothing is waiting.")
    upstream = status["upstream"]
    if not kept:
        return Verdict("busy", "There is no target", "Name one in the configuration.")
    if not upstream["in_sync"] and upstream["state"] != UpstreamState.FOLLOWING:
        return Verdict(
            "busy", "All is well, and still being compared", f"Not in sync yet: {upstream['why_not_in_sync']}."
        )
    if waiting:
        return Verdict("busy", "All is well", f"{queue}, and on the way.")
    held = sum(target["pending"] for target in status["targets"]) - waiting
    if held:
        kept_words = counted(held, "delivery", "deliveries")
        return Verdict("busy", "Nothing waits at a configured target", f"But {kept_words} for targets that are gone.")
    if dead:
        ended = f"{counted(dead, 'delivery', 'deliveries')} ended dead and not sent again"
        return Verdict("busy", "Nothing is waiting", f"But {ended}: see what is worth knowing below.")
    return Verdict("good", "Everything is delivered", "Nothing is waiting at any target.")


def duration(ms: float | None) -> str:
    """How long something took, as in `0.4 ms`, `23 ms`, `1.2 s`, `2 min 5 s`."""
    if ms is None:
        return "\u2013"
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 60_000 else span(ms / 1000)


def tone(word: str | None) -> str:
    """How this state is coloured."""
    return TONES.get(word or "", "neutral")


def word(text: str | None) -> str:
    """A state as people read it."""
    return text.replace("_", " ") if text else "\u2013"


def problems_of(status: Mapping[str, Any], subject: str) -> Sequence[Mapping[str, str]]:
    """Problems and notes about one subject."""
    return [one for one in (*status["problems"], *status["notes"]) if one["subject"] == subject]
