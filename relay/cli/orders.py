"""`orders`: the life of one order."""

import json
from pathlib import Path
from typing import Any

import click

from relay.cli.deliveries import status_of, waits
from relay.cli.events import status_change
from relay.cli.looking import look_at_one
from relay.cli.options import config_option, json_option
from relay.cli.tables import show_attempts, show_facts
from relay.cli.words import exactly, printable, when, wrapped
from relay.clock import SystemClock


@click.group()
def orders() -> None:
    """Look at orders."""


@orders.command()
@click.argument("houdini_id", metavar="ID")
@config_option
@json_option
def show(houdini_id: str, config_path: Path, as_json: bool) -> None:
    """Show the life of one order: its events, deliveries and attempts.

    ID is its houdiniId. Exit codes: 0 shown, 2 it is not known here, 3
    neither the relay nor its store can be asked.
    """
    document = look_at_one(config_path, "orders", houdini_id)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    now_ms = SystemClock().wall_ms()
    click.echo(wrapped("", f"order {document['id']}: {document['status']}", indent=2))
    show_facts(
        {
            "created": document["created"],
            "learned": exactly(document["learned_at"], now_ms) + (", silently" if document["silent"] else ""),
            "last seen": exactly(document["believed_at"], now_ms),
            "aged out": exactly(document["aged_out_at"], now_ms) if document["aged_out_at"] else None,
            "events": document["events"],
        }
    )
    if not document["life_is_whole"]:
        click.echo(f"\n(its last {len(document['life'])} events; `houdini-relay events list --order` has all)")
    for event in document["life"]:
        _show_event(event, now_ms)


def _show_event(event: dict[str, Any], now_ms: int) -> None:
    click.echo()
    number = "" if event["sequence"] is None else f"{event['sequence']}. "
    changed = ", ".join(event["changed"])
    click.echo(wrapped(number, f"{event['type']} ({status_change(event)}), changed: {changed}", indent=2))
    click.echo(wrapped("  ", f"{event['id']}, {exactly(event['at'], now_ms)}, {event['origin']}"))
    if not event["deliveries"]:
        click.echo("  no target wanted it")
    for one in event["deliveries"]:
        replay = f", replay {one['replay']}" if one["replay"] else ""
        due = f", due {when(one['due_at'], now_ms)}" if one["due_at"] else ""
        why = waits(one, now_ms)
        when_sent = due if why is None else f", waits {why}"
        text = f"{printable(one['target'])}: {status_of(one)}{replay}{when_sent} (delivery {one['id']})"
        click.echo(wrapped("  - ", text, indent=4))
        show_attempts(one["attempts"], one["attempts_made"], now_ms, indent=4)
