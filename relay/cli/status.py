"""`status`: one screen that says *fine*, or what is wrong and what to do next."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from relay.admin.status import counted
from relay.board import UpstreamState
from relay.cli.looking import look_into_store, neither
from relay.cli.options import ask_daemon, config_option, json_option
from relay.cli.words import ago, day_and_time, printable, size, span, wrapped
from relay.clock import SystemClock
from relay.errors import NobodyAnswers, StoreError
from relay.model import iso_utc

_GAPS_SHOWN: Final = 5
_MARGIN: Final = 10

Document = dict[str, Any]


@click.command()
@config_option
@json_option
@click.pass_context
def status(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Say whether all is fine, or what is wrong and what to do.

    Asks the running relay. Shows the upstream, gaps, every target and the
    store. When the relay does not run, says what waits in its store, and who
    else runs on it. Exit codes: 0 fine, 1 something is wrong, 3 the relay does
    not run or cannot be asked.
    """
    try:
        document = ask_daemon(config_path, lambda client: client.get("/api/v1/status"))
    except NobodyAnswers as nobody:
        try:
            found = look_into_store(config_path)
        except StoreError as error:
            raise neither(nobody, error) from None
        _say_stopped(str(nobody), found, as_json=as_json)
        ctx.exit(3)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(_screen(document)))
    ctx.exit(0 if document["fine"] else 1)


def _say_stopped(why: str, found: Document, *, as_json: bool) -> None:
    """What the store can tell of a relay that does not run: what waits, who is stopped, and who else runs on it."""
    others = found["instances"]
    advice = "start it; until then nothing is received or sent, and what waits is kept"
    if others:
        advice = "start it; until then the other instances receive and send without it"
    if as_json:
        problem = {"subject": "relay", "message": why, "advice": advice}
        click.echo(json.dumps({"fine": False, "problems": [problem], **found}, indent=2))
        return
    what = "this instance does not run" if others else "does not run"
    click.echo("houdini-relay: " + click.style(what, fg="red", bold=True) + "\n")
    click.echo(wrapped("1. ", why))
    click.echo(wrapped("   -> ", advice) + "\n")
    now = iso_utc(SystemClock().wall_ms())
    for line in _instance_lines(others, now):
        click.echo(line)
    for target in found["targets"]:
        click.echo("\n".join(_target(target, now)))


def _screen(document: Document) -> Iterator[str]:
    count = len(document["problems"])
    wrong = f"{counted(count, 'thing')} {'is' if count == 1 else 'are'} wrong"
    verdict = "fine" if document["fine"] else wrong
    colour = "green" if document["fine"] else "red"
    yield f"houdini-relay {printable(document['version'])}: " + click.style(verdict, fg=colour, bold=True)
    yield ""
    for number, problem in enumerate(document["problems"], 1):
        yield wrapped(f"{number}. ", f"{problem['subject']}: {problem['message']}")
        yield wrapped("   -> ", problem["advice"])
        yield ""
    yield from _upstream(document["upstream"], document["now"])
    yield from _instances(document["instances"], document["now"])
    yield from _gaps(document["gaps"])
    for target in document["targets"]:
        yield from _target(target, document["now"])
    yield f"store     {size(document['store']['size_bytes'])}"
    if document["notes"]:
        yield ""
    for note in document["notes"]:
        yield wrapped("note      ", f"{note['subject']}: {note['message']}")
        yield wrapped(" " * _MARGIN + "-> ", note["advice"])


def _upstream(upstream: Document, now: str) -> Iterator[str]:
    since = ago(upstream["since"], now)
    state = str(upstream["state"]) + (f" for {since}" if since else "")
    if upstream["state"] == UpstreamState.FOLLOWING:
        yield wrapped("upstream  ", f"{state}: {upstream['why_not_in_sync']}", indent=_MARGIN)
        return
    in_sync = "in sync" if upstream["in_sync"] else f"not in sync yet: {upstream['why_not_in_sync']}"
    yield wrapped("upstream  ", f"{state} (connection {upstream['epoch']}), {in_sync}", indent=_MARGIN)
    last = ago(upstream["last_message_at"], now)
    yield " " * _MARGIN + (f"last message {last} ago" if last else "no message yet")


def _instances(instances: list[Document], now: str) -> Iterator[str]:
    """Who shares the store; nothing to say where nobody else does."""
    if len(instances) > 1:
        yield from _instance_lines(instances, now)


def _instance_lines(instances: list[Document], now: str) -> Iterator[str]:
    for number, one in enumerate(instances):
        heading = "instances " if number == 0 else " " * _MARGIN
        role = f"leads (epoch {one['epoch']})" if one["leads"] else "follows"
        here = ", this one" if one["this"] else ""
        under_way = sum(one["in_flight"].values())
        line = f"{printable(one['host'])} {one['id'][:8]}{here}: {role}, up for {ago(one['started_at'], now) or '0 s'}"
        yield wrapped(heading, f"{line}, {under_way} in flight", indent=_MARGIN + 2)


def _gaps(gaps: list[Document]) -> Iterator[str]:
    if not gaps:
        yield "gaps      none"
    for number, gap in enumerate(gaps[:_GAPS_SHOWN]):
        heading = "gaps      " if number == 0 else " " * _MARGIN
        length = f"open for {span(gap['seconds'])}" if gap["open"] else span(gap["seconds"])
        if gap["swept_at"] is not None:
            fate = f"covered by a sweep ({gap['closed_by']})"
        else:
            fate = "a sweep will cover it" if not gap["open"] else "a sweep follows the next subscription"
        if gap["exceeds_window"]:
            fate += "; longer than what REST remembers (48 h)"
        line = f"{day_and_time(gap['from'])} UTC, {length}: {gap['cause']}; {fate}"
        yield wrapped(heading, line, indent=_MARGIN + 2)
    if len(gaps) > _GAPS_SHOWN:
        yield " " * _MARGIN + f"and {len(gaps) - _GAPS_SHOWN} older; --json shows them"


def _target(target: Document, now: str) -> Iterator[str]:
    waiting = f"{target['pending']} waiting"
    if target["oldest_age_s"] is not None:
        waiting += f", the oldest for {span(target['oldest_age_s'])}"
    if target["in_flight"]:
        waiting += f", {target['in_flight']} in flight"
    last = ago(target["last_success_at"], now)
    success = f"last success {last} ago" if last else "no success yet"
    state = str(target["state"]) + ("" if target["breaker"] == "closed" else f", breaker {target['breaker']}")
    yield wrapped("target    ", f"{target['name']} ({state}): {waiting}; {success}", indent=_MARGIN)
    if target["url"] is not None:  # that of a target that is no longer configured is not known
        yield wrapped(" " * _MARGIN, target["url"])
