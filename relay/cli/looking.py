"""Reading what the relay knows: over its API while it runs, out of its store when nobody answers."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import click

from relay.admin.answers import ApiError, encoded
from relay.admin.client import AdminClient
from relay.admin.instances import instance_shapes
from relay.admin.paging import MOST
from relay.admin.views import Views
from relay.board import Board, TargetBoard
from relay.cli.completion import complete_target
from relay.cli.options import admin_client, load_settings
from relay.clock import SystemClock
from relay.config import Settings
from relay.errors import DaemonRefused, DaemonUnavailable, NobodyAnswers, StoreError
from relay.model import DeliveryStatus
from relay.store.opening import Looked, looked_at, place

Command = TypeVar("Command", bound=Callable[..., Any])
Document = dict[str, Any]
Ask = Callable[[str, str | None, Mapping[str, str]], Awaitable[Document]]
"""From a kind, an id (None: the list) and parameters to the document."""

_FILTERS: Final = ("target", "status", "type", "order", "since", "until")


def list_options(command: Command) -> Command:
    """Filters, how many, and where to go on."""
    options = [
        click.option("--target", help="Of this target only.", shell_complete=complete_target),
        click.option("--status", type=click.Choice([word.value for word in DeliveryStatus]), help="In this status."),
        click.option("--type", help="Of this event type, as in order.finished."),
        click.option("--order", help="Of this order (houdiniId), or relay:SUBJECT."),
        click.option("--since", help="Since: how long ago, as in 24h, or ISO 8601."),
        click.option("--until", help="Until, as --since."),
        click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many."),
        click.option("--cursor", help="Go on from here: the `next` of a list before."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def look_at_one(config_path: Path, kind: str, key: str) -> Document:
    """One event, delivery or order with all that belongs to it.

    Raises:
        DaemonRefused: there is none of this id.
        DaemonUnavailable, StoreError: neither the relay nor its store can be asked.
    """
    return _look(config_path, lambda ask: ask(kind, key, {}))


def look_at_list(config_path: Path, kind: str, wanted: Mapping[str, Any]) -> Document:
    """A list with up to `limit` items, newest first, from as many pages as that takes.

    Raises:
        DaemonRefused: the relay cannot make sense of a filter.
        DaemonUnavailable, StoreError: neither the relay nor its store can be asked.
    """
    only = {name: str(wanted[name]) for name in _FILTERS if wanted.get(name) is not None}

    async def collect(ask: Ask) -> Document:
        items: list[Document] = []
        cursor: str | None = wanted["cursor"]
        while True:
            asked = only | {"limit": str(min(MOST, wanted["limit"] - len(items)))}
            page = await ask(kind, None, asked if cursor is None else asked | {"cursor": cursor})
            items += page["items"]
            cursor = page["next"]
            if cursor is None or len(items) >= wanted["limit"]:
                return {"items": items, "next": cursor}

    return _look(config_path, collect)


def look_at_targets(config_path: Path) -> Document:
    """Every target.

    Raises:
        DaemonUnavailable, StoreError: neither the relay nor its store can be asked.
    """
    return _look(config_path, lambda ask: ask("targets", None, {}))


def look_into_store(config_path: Path) -> Document:
    """Every target, as `targets`, and whoever runs on the store, as `instances`, without asking the relay.

    Raises:
        StoreError: the store cannot be asked.
    """

    async def question(store: Looked, ask: Ask) -> Document:
        live = instance_shapes(await store.instances(), Board())
        return {"targets": (await ask("targets", None, {}))["items"], "instances": live}

    return _out_of_store(load_settings(config_path, require_secrets=False), question)


def _look(config_path: Path, question: Callable[[Ask], Awaitable[Document]]) -> Document:
    settings = load_settings(config_path, require_secrets=False)
    try:
        return asyncio.run(_over_api(admin_client(settings, config_path), question))
    except NobodyAnswers as nobody:
        try:
            return _out_of_store(settings, lambda _store, ask: question(ask))
        except StoreError as error:
            raise neither(nobody, error) from None


def neither(nobody: NobodyAnswers, error: StoreError) -> DaemonUnavailable:
    """What is wrong when nobody answers and the store cannot be read, either."""
    return DaemonUnavailable(f"{nobody}; and its store cannot be read instead: {error}")


async def _over_api(client: AdminClient, question: Callable[[Ask], Awaitable[Document]]) -> Document:
    async def ask(kind: str, key: str | None, asked: Mapping[str, str]) -> Document:
        path = f"/api/v1/{kind}" if key is None else f"/api/v1/{kind}/{quote(key, safe='')}"
        document: Document = await client.get(f"{path}?{urlencode(asked)}" if asked else path)
        return document

    async with client:
        return await question(ask)


def _out_of_store(settings: Settings, question: Callable[[Looked, Ask], Awaitable[Document]]) -> Document:
    async def run() -> Document:
        async with looked_at(settings.store.url) as store:
            where = place(settings.store.url)
            click.echo(f"Nobody answers at admin.listen; this is read from the store {where}.", err=True)
            now_ms = await store.shared_ms()
            views = Views(store, lambda: settings.targets, await _board(store), _frozen(now_ms))

            async def ask(kind: str, key: str | None, asked: Mapping[str, str]) -> Document:
                found = await (views.page(kind, asked) if key is None else views.single(kind, key))
                document: Document = json.loads(encoded(found))
                return document

            return await question(store, ask)

    try:
        return asyncio.run(run())
    except ApiError as refused:
        raise DaemonRefused(refused.status, refused.code, refused.message) from None


async def _board(store: Looked) -> Board:
    """What those that run on it have under way."""
    board = Board()
    for one in await store.instances():
        for name, count in one.in_flight.items():
            board.targets.setdefault(name, TargetBoard()).in_flight += count
    return board


def _frozen(now_ms: int | None) -> Callable[[], int]:
    """The moment of the look, for those that run on a store go by its time; else this machine's time."""
    return SystemClock().wall_ms if now_ms is None else lambda: now_ms
