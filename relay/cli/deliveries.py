"""`deliveries`: list, show, retry, cancel."""

import json
from pathlib import Path
from typing import Any

import click

from relay.admin.status import counted
from relay.admin.wording import HELD
from relay.cli.looking import list_options, look_at_list, look_at_one
from relay.cli.options import ask_daemon, config_option, json_option
from relay.cli.tables import Column, show_attempts, show_facts, show_table
from relay.cli.words import exactly, printable, when
from relay.clock import SystemClock

COLUMNS = (
    Column("id", right=True, whole=True),
    Column("status, event"),
    Column("target"),
    Column("order, attempts", whole=True),
    Column("made", whole=True),
)


@click.group()
def deliveries() -> None:
    """Look at deliveries, and retry or cancel them."""


@deliveries.command("list")
@config_option
@list_options
@json_option
def list_deliveries(config_path: Path, as_json: bool, **wanted: Any) -> None:
    """List deliveries, newest first.

    Asks the running relay; when none runs, its store is read. Exit code 3 if
    neither can be asked.
    """
    document = look_at_list(config_path, "deliveries", wanted)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    show_deliveries(document["items"], SystemClock().wall_ms())
    say_next(document)


@deliveries.command()
@click.argument("delivery_id", metavar="ID")
@config_option
@json_option
def show(delivery_id: str, config_path: Path, as_json: bool) -> None:
    """Show one delivery with its attempts.

    Exit codes: 0 shown, 2 there is none of this id, 3 neither the relay nor
    its store can be asked.
    """
    document = look_at_one(config_path, "deliveries", delivery_id)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    now_ms = SystemClock().wall_ms()
    click.echo(f"delivery {document['id']}: {status_of(document)}")
    show_facts(
        {
            "event": f"{document['type']}, {document['event_id']}",
            "order": document["order"],
            "target": document["target"],
            "replay": f"number {document['replay']}, asked for by a person" if document["replay"] else None,
            "made": exactly(document["created_at"], now_ms),
            "due": exactly(document["due_at"], now_ms) if document["due_at"] and not document["held_by"] else None,
            "waits": waits(document, now_ms),
            "ended": exactly(document["finished_at"], now_ms) if document["finished_at"] else None,
            "attempts": document["attempts_made"],
        }
    )
    show_attempts(document["attempts"], document["attempts_made"], now_ms)


@deliveries.command()
@click.argument("delivery_id", metavar="ID")
@config_option
@json_option
def retry(delivery_id: str, config_path: Path, as_json: bool) -> None:
    """Attempt a waiting delivery now, or send a finished one again.

    A waiting one goes first, past the breaker; a finished one is
    replayed under its old webhook id. Exit codes: 0 done, 1 it cannot be
    done now (the message says why), 2 there is none of this id, 3 the relay
    does not run or cannot be asked.
    """
    answer = _post(config_path, delivery_id, "retry")
    if as_json:
        click.echo(json.dumps(answer))
    elif "replayed" in answer:
        click.echo(f"It had ended, so its event is sent again, as delivery {answer['replayed']}.")
    else:
        click.echo(f"Delivery {answer['delivery']} is attempted now.")


@deliveries.command()
@click.argument("delivery_id", metavar="ID")
@config_option
@json_option
def cancel(delivery_id: str, config_path: Path, as_json: bool) -> None:
    """End a waiting delivery; the next one of its order follows.

    It will not be sent, and counts as cancelled. Exit codes: 0 done, 1 it
    has ended or is under way, 2 there is none of this id, 3 the relay does
    not run or cannot be asked.
    """
    answer = _post(config_path, delivery_id, "cancel")
    click.echo(json.dumps(answer) if as_json else f"Delivery {answer['delivery']} is cancelled.")


def _post(config_path: Path, delivery_id: str, what: str) -> Any:
    if not (delivery_id.isascii() and delivery_id.isdigit()):
        raise click.BadParameter("a delivery's id is a number", param_hint="ID")
    return ask_daemon(config_path, lambda client: client.post(f"/api/v1/deliveries/{delivery_id}/{what}", {}))


def show_deliveries(items: list[dict[str, Any]], now_ms: int) -> None:
    """Print a table of deliveries."""
    if not items:
        click.echo("No deliveries.")
        return
    rows = (
        (
            one["id"],
            f"{status_of(one)}\n{one['type']}",
            one["target"],
            f"{one['order']}\n{_tried(one)}",
            when(one["created_at"], now_ms),
        )
        for one in items
    )
    show_table(COLUMNS, rows)


def _tried(delivery: dict[str, Any]) -> str:
    """`2 attempts, last 500`; nothing while there was none."""
    made, status = delivery["attempts_made"], delivery["last_status_code"]
    if not made:
        return ""
    return f"{counted(made, 'attempt')}, {'no answer' if status is None else f'last {status}'}"


def status_of(delivery: dict[str, Any]) -> str:
    """`dead (exhausted)`, `delivered`, `dead (expired), sent again`."""
    reason = f" ({delivery['reason']})" if delivery["reason"] else ""
    again = ", sent again" if delivery["replayed"] else ""
    return printable(f"{delivery['status']}{reason}{again}")


def waits(delivery: dict[str, Any], now_ms: int) -> str | None:
    """What else it waits for than its own time."""
    if is_blocked(delivery):
        return "for an older one of the same order"
    if delivery["held_by"] is None:
        return None
    until = delivery["held_until"]
    return HELD[delivery["held_by"]] + (f" {exactly(until, now_ms)}" if until else "")


def is_blocked(delivery: dict[str, Any]) -> bool:
    """Whether an older one of its lane has to end first."""
    return delivery["finished_at"] is None and not delivery["head"]


def say_next(document: dict[str, Any]) -> None:
    """How to see what did not fit."""
    if document["next"] is not None:
        click.echo(f"There may be more: add --cursor {printable(document['next'])}", err=True)
