"""`tail`: follow deliveries live, a line an attempt."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click

from relay.admin.client import AdminClient
from relay.admin.server_sent import Told
from relay.admin.status import counted
from relay.admin.stream import STREAM_PATH
from relay.cli.completion import complete_target
from relay.cli.options import admin_client, config_option, load_settings
from relay.cli.words import day_and_time, printable
from relay.errors import BrokenOff, NobodyAnswers
from relay.live import MISSED

RETURN: Final = 1.0
"""Seconds between two attempts to reach a relay that has gone."""
_STYLES: Final = {"ok": "green", "retry": "yellow"}


@click.command()
@config_option
@click.option("--target", help="Of this target only.", shell_complete=complete_target)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document a line for machines.")
def tail(config_path: Path, target: str | None, as_json: bool) -> None:
    """Follow deliveries live, one line an attempt, until Ctrl-C.

    Shows the time (UTC), what came of it, target, event type, order, status
    code or why there was none, and how long it took; `dead` is a last attempt
    that failed. When the relay restarts, it is waited for. Exit codes: 0 ended
    by Ctrl-C, 2 the target's name cannot be one, 3 the relay does not run or
    cannot be asked.
    """
    settings = load_settings(config_path, require_secrets=False)
    asked = {"kinds": "attempt"} | ({} if target is None else {"target": target})
    try:
        asyncio.run(follow(admin_client(settings, config_path), f"{STREAM_PATH}?{urlencode(asked)}", as_json=as_json))
    except KeyboardInterrupt:
        click.echo("", err=True)


async def follow(client: AdminClient, path: str, *, as_json: bool) -> None:
    """Show what the stream tells, over restarts of the relay, until cancelled.

    Raises:
        DaemonUnavailable: it cannot be reached at the very beginning, or does not let us in any more.
        DaemonRefused: it does not take the question.
    """
    last_id: str | None = None
    gone = False
    async with client:
        while True:
            try:
                async for told in client.listen(path, last_id):
                    if last_id is None:
                        _note(f"Following deliveries of the relay at {client.address}; Ctrl-C ends it.")
                    elif gone:
                        _note("The relay is back.")
                    last_id, gone = told.id, False
                    _show(told, as_json=as_json)
            except (NobodyAnswers, BrokenOff):
                if last_id is None:
                    raise
                if not gone:
                    _note("The relay has gone; waiting for it to come back.")
                gone = True
            await asyncio.sleep(RETURN)


def _show(told: Told, *, as_json: bool) -> None:
    if not told.kind:
        return
    if as_json:
        click.echo(json.dumps({"kind": told.kind, **told.data}))
    elif told.kind == MISSED:
        count = told.data["count"]
        what = "Some attempts" if count is None else f"Up to {counted(count, 'attempt')}"
        _note(f"{what} went by unseen; `houdini-relay deliveries list` has what came of them.")
    else:
        click.echo(line_of(told.data))


def line_of(attempt: dict[str, Any]) -> str:
    """An attempt as one line of eighty columns, longer only where a name is."""
    outcome = "dead" if attempt["status"] == "dead" else str(attempt["outcome"])
    answer = attempt["status_code"] or attempt["kind"] or "-"
    cells = [f"{printable(attempt[name]):<{width}}" for name, width in (("target", 7), ("type", 18), ("order", 22))]
    styled = click.style(f"{printable(outcome):<7}", fg=_STYLES.get(outcome, "red"))
    took = f"{attempt['duration_ms'] / 1000:.2f}s"
    return " ".join([day_and_time(attempt["at"])[-8:], styled, *cells, f"{printable(answer):<6}", f"{took:>6}"])


def _note(sentence: str) -> None:
    click.echo(sentence, err=True)
