"""`store`: migrate, check, prune and copy the database."""

import asyncio
import json
from pathlib import Path
from typing import Final, cast

import click

from relay.admin.client import AdminClient
from relay.cli.options import config_option, json_option, load_settings
from relay.cli.words import printable
from relay.clock import SystemClock
from relay.config import Settings
from relay.config.leaves import Reading, duration
from relay.config.targets import DAY, HOUR
from relay.errors import StoreLocked, UsageError
from relay.store.offline import backup_file, check_file, migrate_file, prune_file
from relay.store.sqlite import sqlite_path

BACKUP_PATIENCE: Final = 3600.0
"""Seconds that a running relay may take to copy its store."""
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

    `run` does the same by itself; this is for doing it beforehand. Exit code 3
    if the store is in use, damaged, or written by a newer version.
    """
    settings = load_settings(config_path, require_secrets=False)
    path = sqlite_path(settings.store.url)
    applied = asyncio.run(migrate_file(path))
    if as_json:
        click.echo(json.dumps({"store": str(path), "applied": applied}))
    elif applied:
        click.echo(f"{path}: applied {', '.join(applied)}")
    else:
        click.echo(f"{path}: up to date")


@store.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Prove that the store of a stopped relay is sound.

    Reads the whole file: pages and indexes, schema, one ready head a lane, one
    delivery per event, target and replay, orders that agree with their events.
    Changes nothing. Exit code 1 if anything is wrong, 3 if it is in use or
    cannot be opened.
    """
    settings = load_settings(config_path, require_secrets=False)
    path = sqlite_path(settings.store.url)
    faults = check_file(path)
    if as_json:
        click.echo(json.dumps({"store": str(path), "ok": not faults, "faults": faults}, indent=2))
    else:
        click.echo("\n".join(f"{path}: {fault}" for fault in faults) or f"{path}: fine")
    ctx.exit(1 if faults else 0)


@store.command()
@config_option
@click.option("--older-than", default=None, help="How long ago it ended, as in 30d. Default: `store.retention`.")
@json_option
def prune(config_path: Path, older_than: str | None, as_json: bool) -> None:
    """Remove what ended long ago from the store of a stopped relay.

    That is finished deliveries, their attempts, and events and orders nothing
    refers to; the file gets smaller. `run` does the same by itself, bit by
    bit. An order is remembered for at least 7 days. Stopping it half-way is
    fine. Exit code 3 if the store is in use or cannot be written.
    """
    settings = load_settings(config_path, require_secrets=False)
    path = sqlite_path(settings.store.url)
    now_ms = SystemClock().wall_ms()
    kept = settings.store.retention if older_than is None else _parse_age(older_than)
    size_before = path.stat().st_size if path.exists() else 0
    pruned = prune_file(path, now_ms - round(kept * 1000), now_ms, lambda _sum: None if as_json else _dot())
    size_after = path.stat().st_size
    if as_json:
        counts = {"deliveries": pruned.deliveries, "events": pruned.events, "orders": pruned.orders}
        click.echo(json.dumps({"store": str(path), **counts, "bytes_before": size_before, "bytes": size_after}))
        return
    click.echo("", err=True)
    click.echo(f"{path}: removed {pruned.deliveries} deliveries, {pruned.events} events, {pruned.orders} orders")
    click.echo(f"{path}: {size_before} bytes before, {size_after} now")


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
    The copy is whole or not there at all.
    """
    settings = load_settings(config_path, require_secrets=False)
    file = file.absolute()
    try:
        backup_file(sqlite_path(settings.store.url), file)
    except StoreLocked:
        backup_running(settings, file)
    size = file.stat().st_size if file.exists() else None  # the relay may live where this command cannot look
    if as_json:
        click.echo(json.dumps({"file": str(file), "bytes": size}))
    else:
        click.echo(f"{file}: written" + ("" if size is None else f", {size} bytes"))


def backup_running(settings: Settings, path: Path) -> None:
    """Have the relay that holds the store write the copy; `path` is absolute and as that relay sees it.

    Raises:
        DaemonUnavailable: it cannot be asked.
        Refused: it could not write the copy; says why.
    """

    async def ask(client: AdminClient) -> None:
        async with client:
            await client.post("/api/v1/store/backup", {"path": str(path)}, patience=BACKUP_PATIENCE)

    asyncio.run(ask(AdminClient(settings.admin)))
