"""`/api/v1`: what people and the command line ask. What changes deliveries and targets is in `control`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from relay.admin import control
from relay.admin.actions import Actions
from relay.admin.answers import ApiError, json_answer
from relay.admin.audit import Auditor
from relay.admin.context import Context
from relay.admin.overview import read_overview
from relay.admin.questions import AuditQuestion, BackupQuestion, NoQuestion, read_question
from relay.admin.views import Views
from relay.errors import SecretUnreadable, StoreBroken, StoreError
from relay.log_names import Log

AUDIT_PATH: Final = "/api/v1/audit"
BACKUP_PATH: Final = "/api/v1/store/backup"
LONG_DEADLINES: Final[Mapping[str, float]] = {AUDIT_PATH: 1800.0, BACKUP_PATH: 3600.0, **control.LONG_DEADLINES}
"""Seconds for what has to wait for REST's request limit, or for the disk."""

_log = structlog.get_logger()


class Api:
    """The handlers."""

    def __init__(self, context: Context, views: Views, actions: Actions) -> None:
        self._context = context
        self._auditor = Auditor(context.audit_source, context.store, context.targets, context.clock)
        self._views = views
        self._actions = actions
        self._control = control.ControlApi(actions)

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers; whatever changes something is a POST."""
        return [
            web.get("/api/v1/status", self.status),
            web.post("/api/v1/backfill", self.backfill),
            web.post(AUDIT_PATH, self.audit),
            web.post(BACKUP_PATH, self.backup),
            web.get("/api/v1/keys", self.keys),
            *(web.get(f"/api/v1/{kind}", self._list_of(kind)) for kind in Views.LISTS),
            *(web.get(f"/api/v1/{kind}/{{key}}", self._single_of(kind)) for kind in Views.SINGLES),
            *self._control.routes(),
        ]

    async def begin(self) -> None:
        """What has to be remembered before the first audit.

        Raises:
            StoreError: the store cannot be used.
        """
        await self._auditor.remember_targets()

    async def status(self, _request: web.Request) -> web.Response:
        """Is everything fine, and if not, why and what to do."""
        return json_answer(await read_overview(self._context))

    async def backfill(self, request: web.Request) -> web.Response:
        """Ask for a sweep now."""
        await read_question(request, NoQuestion)
        return json_answer(await self._actions.backfill(), 202)

    async def audit(self, request: web.Request) -> web.Response:
        """Compare with the upstream, and repair if asked to."""
        question = await read_question(request, AuditQuestion)
        since_ms = question.since_ms(self._context.clock.wall_ms())
        reason = self._context.board.gate.reason
        if question.repair and reason is not None:
            raise ApiError(409, "not_accepting", f"nothing is accepted now, so nothing can be repaired: {reason}")
        report = await self._auditor.run(since_ms, question.target, repair=question.repair)
        return json_answer(report.document())

    async def backup(self, request: web.Request) -> web.Response:
        """Copy the store to a new file of the machine that the relay runs on."""
        path = Path((await read_question(request, BackupQuestion)).checked())
        try:
            await self._context.store.backup(path)
        except StoreBroken:
            raise
        except StoreError as error:
            raise ApiError(409, "backup_failed", str(error)) from None
        size = await asyncio.to_thread(lambda: path.stat().st_size)
        _log.info(Log.STORE_BACKED_UP, path=str(path), bytes=size)
        return json_answer({"path": str(path), "bytes": size})

    async def keys(self, request: web.Request) -> web.Response:
        """The public keys of targets that sign with ed25519, for their receivers."""
        _refuse_parameters(request)
        try:
            keys = await asyncio.to_thread(self._context.public_keys)
        except SecretUnreadable as error:
            raise ApiError(503, "secret_unreadable", str(error)) from None
        return json_answer({"items": [{"target": name, "keys": list(found)} for name, found in keys.items()]})

    def _list_of(self, kind: str) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            asked = dict(request.query)
            if len(asked) != len(request.query):
                raise ApiError(400, "bad_query", "a query parameter is given twice")
            return json_answer(await self._views.page(kind, asked))

        return answer

    def _single_of(self, kind: str) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            _refuse_parameters(request)
            return json_answer(await self._views.single(kind, request.match_info["key"]))

        return answer


def _refuse_parameters(request: web.Request) -> None:
    if request.query_string:
        raise ApiError(400, "bad_query", "this takes no query parameters")
