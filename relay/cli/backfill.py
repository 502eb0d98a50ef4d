"""`backfill`: ask for a sweep now."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import click

from relay.admin.client import AdminClient
from relay.board import UpstreamState
from relay.cli.options import ask_daemon, config_option, json_option
from relay.errors import UsageError

LONGEST_WAIT: Final = 1800.0
"""Seconds after which `--wait` gives up: a sweep may have to wait for REST's request limit."""
_POLL: Final = 1.0


@click.command()
@config_option
@click.option("--wait", "waits", is_flag=True, help="Return when a sweep that began after this has ended.")
@json_option
@click.pass_context
def backfill(ctx: click.Context, config_path: Path, waits: bool, as_json: bool) -> None:
    """Ask the running relay for a sweep over REST now.

    Sweeps come by themselves after every reconnect and every
    `backfill.interval`; this asks for one more. While there is no
    subscription, the next one begins with it. Exit codes: 0 asked for (with
    --wait: done), 1 the sweep did not see everything or did not end in time,
    3 the relay does not run or cannot be asked.
    """
    if not waits:
        ask_daemon(config_path, lambda client: client.post("/api/v1/backfill", {}))
        click.echo(json.dumps({"requested": True}) if as_json else "A sweep is requested; it begins within seconds.")
        return
    ended = ask_daemon(config_path, _sweep_and_wait)
    answer = {"requested": True, "ended": ended}
    sentence = {
        "ok": "The sweep has ended: everything that REST shows is known.",
        "incomplete": "The sweep has ended, but could not see everything; the log says why.",
    }.get(ended, "No sweep has ended in time; `houdini-relay status` says what is going on.")
    click.echo(json.dumps(answer) if as_json else sentence)
    ctx.exit(0 if ended == "ok" else 1)


async def _sweep_and_wait(client: AdminClient) -> str:
    """The sweep under way may have begun too early, so the second one to end is the first that surely counts."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            await _one_more(client)
            return await _one_more(client)
    except TimeoutError:
        return "timeout"


async def _one_more(client: AdminClient) -> str:
    before = await _sweeps(client)
    await client.post("/api/v1/backfill", {})
    while True:
        await asyncio.sleep(_POLL)
        now = await _sweeps(client)
        if any(now.get(result, 0) < count for result, count in before.items()):
            before = {}  # the relay was started anew, and its counters with it
        for result in ("ok", "incomplete"):
            if now.get(result, 0) > before.get(result, 0):
                return result


async def _sweeps(client: AdminClient) -> dict[str, int]:
    status: dict[str, Any] = await client.get("/api/v1/status")
    if status["upstream"]["state"] == UpstreamState.FOLLOWING:
        leader = next((f" (on host {one['host']})" for one in status["instances"] if one["leads"]), "")
        raise UsageError(
            f"--wait: this instance does not hold the upstream connection, so it sees no sweep end; ask the one that "
            f"does{leader}, or leave --wait out"
        )
    return dict(status["upstream"]["sweeps"])
