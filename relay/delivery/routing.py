"""Which targets want an event. Pure."""

from collections.abc import Iterable

from relay.config import TargetSettings
from relay.model import Event
from relay.notice import is_about


def routed(targets: Iterable[TargetSettings], event: Event) -> tuple[str, ...]:
    """The names of the targets that are to get this event, in their order; never the one that it is a notice about."""
    return tuple(
        target.name
        for target in targets
        if target.wants(event.type) and _is_enough(target, event) and not is_about(event, target.name)
    )


def _is_enough(target: TargetSettings, event: Event) -> bool:
    """Whether it changes as much as `changes` asks for; notices and an order's first event always do."""
    if target.changes == "all" or event.facts is None:
        return True
    return event.facts.sequence == 1 or "status" in event.facts.changed
