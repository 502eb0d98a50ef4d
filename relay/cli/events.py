"""`events`: list and show."""

import json
from pathlib import Path
from typing import Any

import click

from relay.cli.deliveries import say_next, show_deliveries
from relay.cli.looking import list_options, look_at_list, look_at_one
from relay.cli.options import config_option, json_option
from relay.cli.tables import Column, show_facts, show_table
from relay.cli.words import exactly, printable, when
from relay.clock import SystemClock

COLUMNS = (Column("id, order", whole=True), Column("event, deliveries"), Column("seen", whole=True))


@click.group()
def events() -> None:
    """Look at events: every change that was seen, once."""


@events.command("list")
@config_option
@list_options
@json_option
def list_events(config_path: Path, as_json: bool, **wanted: Any) -> None:
    """List events, newest first, and how their deliveries stand.

    With --target or --status: those whose last delivery (to that target)
    stands so. Asks the running relay; when none runs, its store is read. Exit
    code 3 if neither can be asked.
    """
    document = look_at_list(config_path, "events", wanted)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    now_ms = SystemClock().wall_ms()
    if not document["items"]:
        click.echo("No events.")
        return
    rows = (
        (f"{one['id']}\n{one['order']}", f"{one['type']}\n{counts_of(one)}", when(one["at"], now_ms))
        for one in document["items"]
    )
    show_table(COLUMNS, rows)
    say_next(document)


@events.command()
@click.argument("webhook_id", metavar="ID")
@config_option
@json_option
def show(webhook_id: str, config_path: Path, as_json: bool) -> None:
    """Show one event with its data and its deliveries.

    ID is what receivers get as webhook-id. Exit codes: 0 shown, 2 there is
    none of this id, 3 neither the relay nor its store can be asked.
    """
    document = look_at_one(config_path, "events", webhook_id)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    now_ms = SystemClock().wall_ms()
    click.echo(f"event {printable(document['id'])}: {printable(document['type'])}")
    show_facts(
        {
            "order": document["order"],
            "seen": exactly(document["at"], now_ms) + (f", {document['origin']}" if document["origin"] else ""),
            "sequence": document["sequence"],
            "status": status_change(document),
            "changed": ", ".join(document["changed"]) or None,
        }
    )
    click.echo()
    show_deliveries(document["deliveries"], now_ms)
    click.echo()
    for line in json.dumps(document["data"], indent=2, ensure_ascii=False).splitlines():
        click.echo(printable(line))


def counts_of(event: dict[str, Any]) -> str:
    """`2 delivered, 1 dead`; `no target` for an event that nobody wanted."""
    return ", ".join(f"{number} {status}" for status, number in event["counts"].items()) or "no target"


def status_change(event: dict[str, Any]) -> str | None:
    """`EXCHANGING -> FINISHED`, None for a notice."""
    if event["status"] is None:
        return None
    return " -> ".join(status for status in (event["previous_status"], event["status"]) if status)
