"""`run` and `check`."""

import asyncio
import json
from pathlib import Path

import click
import structlog

from relay import __version__, log
from relay.cli.options import config_option, json_option, load_settings
from relay.config import InvalidConfig, Settings
from relay.daemon import Daemon, Exit
from relay.shutdown import end_now


@click.command()
@config_option
def run(config_path: Path) -> None:
    """Run the relay until SIGTERM or SIGINT.

    The first signal lets attempts under way finish (up to 20 s), a second one
    ends at once. Nothing is lost either way.

    Exit codes: 0 asked to stop, 2 the configuration is wrong, 3 the store
    cannot be used, 1 anything else (restarting may help).
    """
    settings = load_settings(config_path, require_secrets=True)
    log.configure(settings.log.level, settings.log.format)
    end_now(asyncio.run(_run(settings)))


async def _run(settings: Settings) -> int:
    try:
        return await Daemon(settings, __version__).run()
    except Exception:
        structlog.get_logger().exception("crashed")
        return Exit.CRASHED


@click.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Check the configuration and report every problem at once.

    Nothing is started and nothing is dialled. Exit code 2 if anything is wrong.
    """
    try:
        settings = load_settings(config_path, require_secrets=True)
    except InvalidConfig as error:
        if not as_json:
            raise
        problems = [
            {"file": one.file, "line": one.line, "column": one.column, "path": one.path, "message": one.message}
            for one in error.problems
        ]
        click.echo(json.dumps({"ok": False, "problems": problems}, indent=2))
        ctx.exit(Exit.CONFIG)
    targets = [{"name": target.name, "url": target.url_redacted} for target in settings.targets]
    if as_json:
        click.echo(json.dumps({"ok": True, "problems": [], "targets": targets}, indent=2))
        return
    click.echo(f"{config_path}: fine")
    click.echo(f"  upstream  {settings.upstream.websocket_url}")
    click.echo(f"  store     {settings.store.url}")
    for target in targets:
        click.echo(f"  target    {target['name']} -> {target['url']}")
