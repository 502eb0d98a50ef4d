"""`targets`: what a person may do to a target."""

import json
from pathlib import Path

import click

from relay.cli.options import ask_daemon, config_option, json_option


@click.group()
def targets() -> None:
    """Look after targets of the running relay."""


@targets.command()
@click.argument("name")
@config_option
@json_option
def resume(name: str, config_path: Path, as_json: bool) -> None:
    """Send to the target NAME again, which had answered 410 Gone.

    Everything kept for it is delivered in order, from the oldest on. Exit
    codes: 0 done (or there was nothing to resume), 2 there is no such target,
    3 the relay does not run or cannot be asked.
    """
    answer = ask_daemon(config_path, lambda client: client.post(f"/api/v1/targets/{name}/resume", {}))
    if as_json:
        click.echo(json.dumps(answer))
    elif answer["resumed"]:
        click.echo(f"{name}: resumed; `houdini-relay status` shows how it goes.")
    else:
        click.echo(f"{name}: was neither parked nor paused.")
