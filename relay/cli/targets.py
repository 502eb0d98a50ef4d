"""`targets`: how they stand, and what a person may do to one."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from relay.admin.control import FORGET_PATH, LONG_DEADLINES, TEST_PATH
from relay.admin.status import counted
from relay.cli.completion import complete_target
from relay.cli.looking import look_at_targets
from relay.cli.options import ask_daemon, config_option, is_terminal, json_option, yes_option
from relay.cli.tables import Column, show_attempts, show_table
from relay.cli.words import about, when, wrapped
from relay.clock import SystemClock

COLUMNS = (
    Column("target"),
    Column("state", whole=True),
    Column("breaker", whole=True),
    Column("waiting", right=True, whole=True),
    Column("oldest", whole=True),
    Column("last success", whole=True),
)


@click.group()
def targets() -> None:
    """Look at targets and look after them."""


@targets.command("list")
@config_option
@json_option
def list_targets(config_path: Path, as_json: bool) -> None:
    """List all targets, orphans that still hold deliveries included.

    Asks the running relay; when none runs, its store is read. Exit code 3 if
    neither can be asked.
    """
    document = look_at_targets(config_path)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    now_ms = SystemClock().wall_ms()
    show_table(COLUMNS, (_row(one, now_ms) for one in document["items"]))
    for one in document["items"]:
        if one["last_error"] is not None:
            click.echo(wrapped(f"{one['name']}: ", one["last_error"], indent=2))


def _row(target: dict[str, Any], now_ms: int) -> tuple[object, ...]:
    oldest = "-" if target["oldest_age_s"] is None else about(target["oldest_age_s"])
    success = when(target["last_success_at"], now_ms)
    return target["name"], target["state"], target["breaker"], target["pending"], oldest, success


@targets.command()
@click.argument("name", shell_complete=complete_target)
@config_option
@json_option
def pause(name: str, config_path: Path, as_json: bool) -> None:
    """Send nothing to the target NAME until it is resumed.

    Its deliveries are kept; this outlasts restarts. Exit codes: 0 done (or it
    was paused already), 1 it is orphaned, 2 there is no such target, 3 the
    relay does not run or cannot be asked.
    """
    answer = _post(config_path, name, "pause")
    done = "paused" if answer["paused"] else "was paused already"
    click.echo(json.dumps(answer) if as_json else f"{name}: {done}; its deliveries are kept.")


@targets.command()
@click.argument("name", shell_complete=complete_target)
@config_option
@json_option
def resume(name: str, config_path: Path, as_json: bool) -> None:
    """Send to the target NAME again, which was parked or paused.

    Everything kept for it is delivered in order, from the oldest on. If only
    its breaker is open, one delivery is tried at once. Exit codes: 0 done (or
    there was nothing to resume), 1 the configuration pauses it or it is
    orphaned, 2 there is no such target, 3 the relay does not run or cannot be
    asked.
    """
    answer = _post(config_path, name, "resume")
    if as_json:
        click.echo(json.dumps(answer))
        return
    match answer["was"]:
        case None:
            done = "was neither parked nor paused, and its breaker is closed."
        case "breaker_open":
            done = "only its breaker was open: it is probed now; `houdini-relay status` shows how it goes."
        case was:
            done = f"resumed, it was {was}; `houdini-relay status` shows how it goes."
    click.echo(wrapped(f"{name}: ", done, indent=2))


@targets.command()
@click.argument("name", shell_complete=complete_target)
@config_option
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, config_path: Path, as_json: bool) -> None:
    """Send the target NAME one relay.test event now and say what came.

    Goes past pause, park and breaker, and changes none of them. Exit codes: 0
    it answered 2xx, 1 it did not, 2 there is no such target, 3 the relay does
    not run or cannot be asked.
    """
    answer = _post(config_path, name, "test", patience=LONG_DEADLINES[TEST_PATH] + 10)
    attempt = answer["attempt"]
    ok = attempt["outcome"] == "ok"
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(f"{name}: {'it answered' if ok else 'it did not accept the test'}")
        show_attempts([attempt], 1, SystemClock().wall_ms())
    ctx.exit(0 if ok else 1)


@targets.command()
@click.argument("name", shell_complete=complete_target)
@yes_option
@config_option
@json_option
def forget(name: str, yes: bool, config_path: Path, as_json: bool) -> None:
    """Cancel what is kept for NAME, which is configured no longer.

    Its deliveries will never be sent, unless somebody replays them. Exit codes:
    0 done, 1 it is still configured, 2 nothing is kept for such a target, 3 the
    relay does not run or cannot be asked.
    """
    if not yes and is_terminal():
        click.confirm(f"Cancel everything that is kept for {name}?", abort=True, err=True)
    answer = _post(config_path, name, "forget", patience=LONG_DEADLINES[FORGET_PATH] + 10)
    cancelled = counted(answer["cancelled"], "delivery", "deliveries")
    click.echo(json.dumps(answer) if as_json else f"{name}: {cancelled} cancelled.")


def _post(config_path: Path, name: str, what: str, **options: float) -> Any:
    path = f"/api/v1/targets/{quote(name, safe='')}/{what}"
    return ask_daemon(config_path, lambda client: client.post(path, {}, **options))
