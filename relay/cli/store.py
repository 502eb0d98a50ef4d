"""`store`: migrate, check, prune and copy the database."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import click

from relay.admin.client import AdminClient
from relay.cli.options import admin_client, config_option, json_option, load_settings
from relay.cli.words import printable
from relay.clock import SystemClock
from relay.config import Settings
from relay.config.leaves import Reading, duration
from relay.config.store_url import StoreUrl
from relay.config.targets import DAY, HOUR
from relay.errors import StoreLocked, UsageError
from relay.store.offline import backup_file
from relay.store.opening import (
    check_store,
    copy_store,
    file_of,
    is_shared,
    migrate_store,
    place,
    prune_store,
    shown_url,
)

BACKUP_PATIENCE: Final = 3600.0
"""Seconds that a running relay may take to copy its store."""
PROGRESS_EVERY: Final = 2.0
"""Seconds between two lines about how far a copy is."""
_AGE: Final = duration(HOUR, 3650 * DAY)
"""As `store.retention`."""


@click.group()
def store() -> None:
    """Look after the store."""


@store.command()
@config_option
@json_option
def migrate(config_path: Path, as_json: bool) -> None:
    """Create the store or bring its schema up to date.

    `run` does the same by itself; this is for doing it beforehand, with a
    database as the user that owns the tables. Exit code 3 if the store is
    damaged, written by a newer version or, a file, in use.
    """
    settings = load_settings(config_path, require_secrets=False)
    where = place(settings.store.url)
    applied = asyncio.run(migrate_store(settings.store.url))
    if as_json:
        click.echo(json.dumps({"store": where, "applied": applied}))
    elif applied:
        click.echo(f"{where}: applied {', '.join(applied)}")
    else:
        click.echo(f"{where}: up to date")


@store.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Prove that the store is sound: a stopped relay's file, or a database.

    Reads everything: pages and indexes of a file, one ready head a lane, one
    delivery per event, target and replay, orders that agree with their events.
    Changes nothing; a database is read in one snapshot beside whatever runs on
    it. Exit code 1 if anything is wrong, 3 if it cannot be used or, a file, is
    in use.
    """
    settings = load_settings(config_path, require_secrets=False)
    where = place(settings.store.url)
    faults = asyncio.run(check_store(settings.store.url))
    if as_json:
        click.echo(json.dumps({"store": where, "ok": not faults, "faults": faults}, indent=2))
    else:
        click.echo("\n".join(f"{where}: {fault}" for fault in faults) or f"{where}: fine")
    ctx.exit(1 if faults else 0)


@store.command()
@config_option
@click.option("--older-than", default=None, help="How long ago it ended, as in 30d. Default: `store.retention`.")
@json_option
def prune(config_path: Path, older_than: str | None, as_json: bool) -> None:
    """Remove what ended long ago: from a stopped relay's file, or a database.

    That is finished deliveries, their attempts, and events and orders nothing
    refers to; a file gets smaller, a database has room for what comes next.
    `run` does the same by itself, bit by bit. An order is remembered for at
    least 7 days. Stopping it half-way is fine. Exit code 3 if the store cannot
    be written or, a file, is in use.
    """
    settings = load_settings(config_path, require_secrets=False)
    where, url = place(settings.store.url), settings.store.url
    now_ms = SystemClock().wall_ms()
    kept = settings.store.retention if older_than is None else _parse_age(older_than)
    size_before = _size(url)
    tell = (lambda _sum: None) if as_json else (lambda _sum: _dot())
    pruned = asyncio.run(prune_store(url, now_ms - round(kept * 1000), now_ms, tell))
    size_after = _size(url)
    if as_json:
        counts = {"deliveries": pruned.deliveries, "events": pruned.events, "orders": pruned.orders}
        click.echo(json.dumps({"store": where, **counts, "bytes_before": size_before, "bytes": size_after}))
        return
    click.echo("", err=True)
    click.echo(f"{where}: removed {pruned.deliveries} deliveries, {pruned.events} events, {pruned.orders} orders")
    if size_after is not None:
        click.echo(f"{where}: {size_before} bytes before, {size_after} now")


def _size(url: StoreUrl) -> int | None:
    """Of the file; a database keeps the room for what comes next."""
    if is_shared(url):
        return None
    return file_of(url).stat().st_size if file_of(url).exists() else 0


def _at_times() -> Callable[[object], None]:
    """Says how far it is, not more often than anybody can read."""
    clock, last = SystemClock(), float("-inf")

    def tell(progress: object) -> None:
        nonlocal last
        if clock.mono() - last >= PROGRESS_EVERY:
            last = clock.mono()
            click.echo(progress, err=True)

    return tell


def _dot() -> None:
    """One more batch: a sign of life, and no more than that."""
    click.echo(".", nl=False, err=True)


def _parse_age(text: str) -> float:
    try:
        return cast(float, _AGE.read(text, Reading()))
    except ValueError as error:
        raise UsageError(f"--older-than {printable(text)}: {error}") from error


@store.command()
@click.argument("file", type=click.Path(path_type=Path))
@config_option
@json_option
def backup(file: Path, config_path: Path, as_json: bool) -> None:
    """Copy the store to FILE, which must not exist yet.

    Works while the relay runs, through its admin API, and while it is stopped.
    The copy is whole or not there at all. A database is backed up by its own
    tools, as pg_dump: then this says so, with exit code 2.
    """
    settings = load_settings(config_path, require_secrets=False)
    if is_shared(settings.store.url):
        tool = f"pg_dump --format=custom --file={file} {shown_url(settings.store.url)}"
        raise UsageError(f"a PostgreSQL store is backed up by its own tools, as with `{tool}`; see docs/scaling.md")
    file = file.absolute()
    try:
        backup_file(file_of(settings.store.url), file)
    except StoreLocked:
        backup_running(settings, config_path, file)
    size = file.stat().st_size if file.exists() else None  # the relay may live where this command cannot look
    if as_json:
        click.echo(json.dumps({"file": str(file), "bytes": size}))
    else:
        click.echo(f"{file}: written" + ("" if size is None else f", {size} bytes"))


@store.command()
@click.option(
    "--to",
    "url",
    required=True,
    help="postgresql://user@host:port/name; the password best from PGPASSWORD or PGPASSFILE.",
)
@config_option
@json_option
def copy(url: str, config_path: Path, as_json: bool) -> None:
    """Move a stopped relay's SQLite store to an empty PostgreSQL database.

    Orders, events, deliveries, attempts, targets and what is remembered; ids do
    not change. One transaction, compared row by row before it is committed:
    the copy is whole or not there at all. Afterwards set `store.url`, and
    start nothing on the old file again: it would deliver everything twice.
    docs/scaling.md has the whole move. Exit code 3 if a relay runs on the
    file, the database is not empty, or either cannot be used.
    """
    settings = load_settings(config_path, require_secrets=False)
    source, to = file_of(settings.store.url), StoreUrl.of(url)
    copied = asyncio.run(copy_store(source, to, (lambda _progress: None) if as_json else _at_times()))
    if as_json:
        click.echo(json.dumps({"store": str(source), "to": shown_url(to), "rows": copied}))
        return
    for table, rows in copied.items():
        click.echo(f"{shown_url(to)}: {table} {rows}")
    click.echo("every row is as it was; set `store.url`, and start nothing on the old file again")


def backup_running(settings: Settings, config_path: Path, path: Path) -> None:
    """Have the relay that holds the store write the copy; `path` is absolute and as that relay sees it.

    Raises:
        DaemonUnavailable: it cannot be asked.
        DaemonRefused: it could not write the copy; says why.
    """

    async def ask(client: AdminClient) -> None:
        async with client:
            await client.post("/api/v1/store/backup", {"path": str(path)}, patience=BACKUP_PATIENCE)

    asyncio.run(ask(admin_client(settings, config_path)))
