"""`/api/v1`: what people and the command line ask."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import Counter

from relay.admin.answers import ApiError, json_answer
from relay.admin.audit import Auditor
from relay.admin.context import Context
from relay.admin.questions import AuditQuestion, BackupQuestion, NoQuestion, moment_ms, read_question
from relay.admin.status import GAPS_SHOWN, WINDOW, Facts, TargetFacts, status_document
from relay.errors import StoreBroken, StoreError
from relay.store.base import Gap

AUDIT_PATH: Final = "/api/v1/audit"
BACKUP_PATH: Final = "/api/v1/store/backup"
LONG_DEADLINES: Final[Mapping[str, float]] = {AUDIT_PATH: 1800.0, BACKUP_PATH: 3600.0}
"""Seconds for what has to wait for REST's request limit, or for the disk."""

_log = structlog.get_logger()


class Api:
    """The handlers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._auditor = Auditor(context.audit_source, context.store, context.targets, context.clock)

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers; whatever changes something is a POST."""
        return [
            web.get("/api/v1/status", self.status),
            web.post("/api/v1/backfill", self.backfill),
            web.post(AUDIT_PATH, self.audit),
            web.post(BACKUP_PATH, self.backup),
            web.post("/api/v1/targets/{name}/resume", self.resume),
        ]

    async def begin(self) -> None:
        """What has to be remembered before the first audit.

        Raises:
            StoreError: the store cannot be used.
        """
        await self._auditor.remember_targets()

    async def status(self, _request: web.Request) -> web.Response:
        """Is everything fine, and if not, why and what to do."""
        context = self._context
        # Redacting a URL reads it anew, and it may lie in a file.
        targets = await asyncio.to_thread(
            lambda: [TargetFacts(one.name, one.url_redacted, one.concurrency) for one in context.targets()]
        )
        facts = Facts(
            version=context.version,
            board=context.board,
            targets=targets,
            backlog=await context.store.backlog(),
            dead=_count(context.metrics.deliveries, "target", status="dead"),
            sweeps=_count(context.metrics.sweeps, "result"),
            gaps=await self._gaps(),
            size_bytes=await context.store.size_bytes(),
            now=context.clock.mono(),
            now_ms=context.clock.wall_ms(),
        )
        return json_answer(status_document(facts))

    async def _gaps(self) -> Sequence[Gap]:
        """The last ones, and those beyond the window however long ago: these stay visible."""
        recent = await self._context.store.gaps(GAPS_SHOWN)
        long = await self._context.store.gaps(GAPS_SHOWN, int(WINDOW * 1000))
        known = {gap.id for gap in recent}
        return [*recent, *(gap for gap in long if gap.id not in known)]

    async def backfill(self, request: web.Request) -> web.Response:
        """Ask for a sweep now."""
        await read_question(request, NoQuestion)
        self._context.want_sweep("asked for")
        _log.info("backfill_requested")
        return json_answer({"requested": True}, 202)

    async def audit(self, request: web.Request) -> web.Response:
        """Compare with the upstream, and repair if asked to."""
        question = await read_question(request, AuditQuestion)
        try:
            since_ms = moment_ms(question.since, self._context.clock.wall_ms())
        except ValueError as error:
            raise ApiError(400, "bad_since", f"since: {error}") from None
        reason = self._context.board.gate.reason
        if question.repair and reason is not None:
            raise ApiError(409, "not_accepting", f"nothing is accepted now, so nothing can be repaired: {reason}")
        _log.info("audit_began", since=question.since, target=question.target, repair=question.repair)
        report = await self._auditor.run(since_ms, question.target, repair=question.repair)
        _log.info(
            "audit_ended",
            compared=report.compared,
            differences=len(report.differences),
            repaired=len(report.repaired),
            settling=report.settling,
        )
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
        _log.info("store_backed_up", path=str(path), bytes=size)
        return json_answer({"path": str(path), "bytes": size})

    async def resume(self, request: web.Request) -> web.Response:
        """Send to a target again that answered 410; its deliveries were kept."""
        await read_question(request, NoQuestion)
        name = request.match_info["name"]
        if name not in {target.name for target in self._context.targets()}:
            raise ApiError(404, "unknown_target", "no target of this name is configured")
        return json_answer({"target": name, "resumed": await self._context.resume_target(name)})


def _count(counter: Counter, by: str, **only: str) -> dict[str, int]:
    """A counter's values by one label, of the series that have these labels."""
    found: dict[str, int] = {}
    for family in counter.collect():
        for sample in family.samples:
            matches = all(sample.labels.get(name) == value for name, value in only.items())
            if sample.name.endswith("_total") and matches:
                found[sample.labels[by]] = found.get(sample.labels[by], 0) + int(sample.value)
    return found
