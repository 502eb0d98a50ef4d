"""`replay`: send events again."""

import json
from pathlib import Path
from typing import Any

import click

from relay.admin.control import LONG_DEADLINES, REPLAY_PATH
from relay.admin.status import counted
from relay.cli.completion import complete_target
from relay.cli.options import ask_daemon, config_option, is_terminal, json_option, yes_option

_PATIENCE = LONG_DEADLINES[REPLAY_PATH] + 10


@click.command()
@config_option
@click.option("--target", required=True, help="Send to this target.", shell_complete=complete_target)
@click.option("--since", help="Events seen since: how long ago, as in 24h, or ISO 8601.")
@click.option("--until", help="Events seen until, as --since.")
@click.option(
    "--status",
    type=click.Choice(["dead", "delivered", "superseded", "cancelled", "any"]),
    default="dead",
    show_default=True,
    help="Events whose last delivery has ended so.",
)
@click.option("--order", help="Events of this order only (houdiniId).")
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option
@json_option
def replay(config_path: Path, dry_run: bool, yes: bool, as_json: bool, **wanted: str | None) -> None:
    """Send events again to a target, oldest first.

    Chooses events whose last delivery to the target has ended as --status
    says, and makes a new delivery of each, under its old webhook id. What is
    still waiting is left alone, so repeating the command doubles nothing.

    Exit codes: 0 done, 1 it cannot be done now, 2 there is no such target, 3
    the relay does not run or cannot be asked.
    """
    question = {name: value for name, value in wanted.items() if value is not None}
    target = wanted["target"]
    if not dry_run and not yes and is_terminal():
        count = _ask(config_path, question | {"dry_run": True})["count"]
        if not count or not click.confirm(f"Send {counted(count, 'event')} to {target} again?", err=True):
            click.echo(json.dumps({"count": 0}) if as_json else "Nothing is sent again.")
            return
    answer = _ask(config_path, question | {"dry_run": dry_run})
    if as_json:
        click.echo(json.dumps(answer))
    elif dry_run:
        click.echo(f"{counted(answer['count'], 'event')} would be sent to {target} again.")
    else:
        click.echo(f"{counted(answer['count'], 'event')} will be sent to {target} again.")


def _ask(config_path: Path, question: dict[str, Any]) -> Any:
    return ask_daemon(config_path, lambda client: client.post(REPLAY_PATH, question, patience=_PATIENCE))
