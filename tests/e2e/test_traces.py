"""The real process against a collector that speaks OTLP over HTTP: spans arrive, and it never waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from aiohttp import ClientSession, web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from stage import SECRET, UPSTREAM_SECRET, Stage
from support.until import until

ORDERS = 3


class Collector:
    """Keeps every span it is sent; `answers` cleared, it takes requests and says nothing."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.raw = b""
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        self.asked.set()
        await self.answers.wait()
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")


class TracingReceiver:
    """Refuses the first POST of every event, then takes it; keeps the headers of all."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=500 if request.headers["relay-attempt"] == "1" else 200)


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[int]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def stage(folder: Path, collector: int, receiver: int) -> Stage:
    traced = {
        "name": "traced",
        "url": f"http://127.0.0.1:{receiver}/?key=canary-in-url",
        "secrets": [SECRET],
        "headers": {"x-key": "canary-in-header"},
        "retry": {"schedule": ["100ms", "1s"]},
    }
    variables = [f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{collector}", "OTEL_BSP_SCHEDULE_DELAY=200"]
    return Stage(folder, command=("env", *variables), more_targets=[traced])


async def play(scene: Stage) -> None:
    await scene.start_relay()
    await scene.player(orders=ORDERS, rate=20.0).run()
    await scene.until_all_delivered()


async def nothing_waits(scene: Stage) -> bool:
    url = f"http://127.0.0.1:{scene.admin_port}/api/v1/status"
    async with ClientSession() as session, session.get(url) as answer:
        return not any(one["pending"] for one in (await answer.json())["targets"])


async def test_every_attempt_hangs_below_its_frame_and_is_named_to_the_receiver(tmp_path: Path):
    collector, receiver = Collector(), TracingReceiver()
    async with (
        serving(web.post("/v1/traces", collector.take)) as at,
        serving(web.post("/", receiver.take)) as to,
        stage(tmp_path, at, to) as scene,
    ):
        await play(scene)
        await until(lambda: nothing_waits(scene))
        assert await scene.relay.stop() == 0
    taken = {one["webhook-id"] for one in receiver.seen}
    by_id = {span.span_id: span for span in collector.spans}
    told = {span.trace_id.hex() for span in collector.spans}
    assert {f"evt_{trace}" for trace in told} == taken
    for seen in receiver.seen:
        version, trace, parent, flags = seen["traceparent"].split("-")
        attempt = by_id[bytes.fromhex(parent)]
        whole = by_id[attempt.parent_span_id]
        frame = by_id[whole.parent_span_id]
        assert (version, flags, f"evt_{trace}") == ("00", "01", seen["webhook-id"])
        assert [span.name for span in (attempt, whole, frame)] == ["attempt", "delivery", "frame"]
        assert {span.trace_id.hex() for span in (attempt, whole, frame)} == {trace}
        assert frame.parent_span_id == b""
    for secret in (SECRET, UPSTREAM_SECRET, "canary-in-url", "canary-in-header"):
        assert secret.encode() not in collector.raw


async def test_a_collector_that_hangs_delays_nothing_but_the_last_three_seconds(tmp_path: Path):
    collector, receiver = Collector(), TracingReceiver()
    collector.answers.clear()
    async with (
        serving(web.post("/v1/traces", collector.take)) as at,
        serving(web.post("/", receiver.take)) as to,
        stage(tmp_path, at, to) as scene,
    ):
        await play(scene)
        async with asyncio.timeout(10):
            await collector.asked.wait()
        began = monotonic()
        assert await scene.relay.stop() == 0
        assert monotonic() - began < 9  # it asks for ten seconds by itself
        assert "spans_lost" in (tmp_path / "relay.log").read_text(encoding="utf-8")
