"""`run`."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import structlog

from relay import __version__, log
from relay.cli.options import config_option, load_settings
from relay.config import Settings
from relay.daemon import Daemon, Exit
from relay.log_names import Log
from relay.shutdown import end_now, hold_reloads


@click.command()
@config_option
def run(config_path: Path) -> None:
    """Run the relay until SIGTERM or SIGINT.

    The first signal lets attempts under way finish (up to 20 s), a second one
    ends at once. Nothing is lost either way. SIGHUP applies a changed
    configuration file; one with a mistake is refused, and the old goes on.

    Exit codes: 0 asked to stop, 2 the configuration is wrong, 3 the store
    cannot be used, 1 anything else (restarting may help).
    """
    hold_reloads()
    load = partial(load_settings, config_path, require_secrets=True)
    settings = load()
    log.configure(settings.log.level, settings.log.format)
    end_now(asyncio.run(_run(settings, load, config_path.absolute())))


async def _run(settings: Settings, load: Callable[[], Settings], config_path: Path) -> int:
    try:
        return await Daemon(settings, __version__, load=load, config_path=config_path).run()
    except Exception:
        structlog.get_logger().exception(Log.CRASHED)
        return Exit.CRASHED
