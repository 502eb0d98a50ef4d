"""Options that several commands share."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from relay import log
from relay.admin.client import AdminClient
from relay.cli.words import printable, wrapped
from relay.config import Settings, load
from relay.config.secrets import secret_values

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """`-c/--config`, from the environment when it is not given."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=Path("config.yaml"),
        envvar="HOUDINI_RELAY_CONFIG",
        show_default=True,
        show_envvar=True,
        help="The configuration file.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`: one JSON document on standard output, nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document for machines.")(command)


def yes_option(command: Command) -> Command:
    """`--yes`: on a terminal, do it without asking."""
    return click.option("--yes", is_flag=True, help="On a terminal: do not ask whether to go on.")(command)


def is_terminal() -> bool:
    """Whether a person may be asked."""
    return sys.stdin.isatty()


def load_settings(path: Path, *, require_secrets: bool) -> Settings:
    """Read the configuration and see to it that its secrets never reach a log line.

    Raises:
        ConfigError: with a report of every problem.
    """
    settings = load(path, environ=os.environ, require_secrets=require_secrets)
    log.register_secrets(secret_values(settings))
    return settings


def admin_client(settings: Settings, config_path: Path) -> AdminClient:
    """What asks the relay that runs by this file; says on standard error if the one that answers runs by another.

    Raises:
        DaemonUnavailable: the configuration names no address to ask, or its token cannot be read.
    """
    told: set[str] = set()

    def tell(path: str) -> None:
        if path not in told:
            told.add(path)
            text = f"the relay that answers runs by another configuration, {printable(path)}, not by {config_path}"
            click.echo(wrapped("", text, indent=0), err=True)

    return AdminClient(settings.admin, config_path, tell)


def ask_daemon(config_path: Path, ask: Callable[[AdminClient], Awaitable[Any]]) -> Any:
    """Put a question to the running relay that this configuration describes; returns its answer.

    Raises:
        ConfigError: the configuration cannot be used.
        DaemonUnavailable: the relay does not run or cannot be asked.
        DaemonRefused: it answered with an error.
    """
    client = admin_client(load_settings(config_path, require_secrets=False), config_path)

    async def run() -> Any:
        async with client:
            return await ask(client)

    return asyncio.run(run())
