"""`store`: looking after the database of a relay that is not running."""

import asyncio
import json
from pathlib import Path

import click

from relay.cli.options import config_option, json_option, load_settings
from relay.store.sqlite import migrate_file, sqlite_path


@click.group()
def store() -> None:
    """Look after the store of a relay that is not running."""


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
