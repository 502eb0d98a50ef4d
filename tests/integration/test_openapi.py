"""The OpenAPI document says what there is and nothing else, and real answers fit it."""

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from admin_kit import TOKEN, AdminRoom, served
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from support.factories import event, failed_attempt
from support.stores import again, dead, delivered, parks
from yarl import URL

from relay.admin import auth
from relay.admin.auth import OPEN_PATHS
from relay.admin.openapi import OPENAPI_PATH, OPERATIONS, openapi_document
from relay.board import TargetBoard
from relay.errors import StoreError
from relay.model import Event, FailureKind, Outcome, Timings
from relay.store.values import Settlement

DOCUMENT = openapi_document("1.2.3")


def schema_of(method: str, path: str, status: int) -> Any:
    (content,) = DOCUMENT["paths"][path][method]["responses"][str(status)]["content"].values()
    return content["schema"]


def complaints(document: Any, schema: Any) -> list[str]:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def routes(room: AdminRoom) -> set[tuple[str, str]]:
    assert room.admin._runner is not None
    found = {
        (route.method.lower(), route.resource.canonical)
        for route in room.admin._runner.app.router.routes()
        if route.resource is not None
    }
    # HEAD comes with every GET; what is not below these paths are pages for people.
    return {(m, path) for m, path in found if m != "head" and (path.startswith("/api/") or path in OPEN_PATHS)}


async def furnish(room: AdminRoom) -> None:
    """Something of everything there is to show."""
    bench, now_ms = room.bench, room.clock.wall_ms()
    await room.store.begin_gap(now_ms - 200_000, "closed by the upstream (1012)")
    await room.store.end_gap(now_ms - 100_000)
    await room.store.begin_gap(now_ms - 50_000, "closed by the upstream (1012)")
    await bench.add(event("order-1", 4), event("order-2", 1), event("order-3", 2), now_ms=now_ms - 60_000)
    notice = Event("evt_notice", "relay:alpha", "relay.target.parked", now_ms, b'{"what": "parked"}', None)
    await bench.add(notice, targets=["beta"])
    first, second, third = await bench.claim("alpha", now_ms=now_ms)
    await bench.settle(delivered(first), dead(second), now_ms=now_ms)
    full = replace(
        failed_attempt(now_ms),
        kind=FailureKind.TIMEOUT,
        status_code=None,
        error="timeout: no answer within 15 s",
        headers={"retry-after": "soon"},
        timings=Timings(1.0, 2.0, None, 3.5),
    )
    later = again(third, due_ms=now_ms + 60_000)
    await bench.settle(Settlement(third, full, later.status, due_ms=later.due_ms, uses_step=True), now_ms=now_ms)
    head, *_ = await bench.claim("beta", now_ms=now_ms)
    await bench.settle(again(head, due_ms=now_ms + 60_000, gone=True), judge=parks, now_ms=now_ms)
    room.board.targets["alpha"] = TargetBoard(in_flight=1)
    room.board.upstream.last_message_ms = now_ms
    room.keys = {"alpha": ["whpk_abc"]}
    room.metrics.deliveries.labels("alpha", "dead").inc()
    room.metrics.sweeps.labels("ok").inc()
    room.source.show("order-1", 4)
    room.source.show("order-9", 4)
    room.control.answer = replace(full, outcome=Outcome.RETRY)


def questions(folder: Path) -> Iterator[tuple[str, str, Any]]:
    """Every operation with something that can be answered: method, path, body; waiting and ended deliveries."""
    listed = "?limit=1&since=1d&until=2026-01-01&order=order-1&target=alpha&type=order.finished&status=delivered"
    yield from [("get", path, None) for path in ("/healthz", "/readyz", "/metrics")]
    yield from [("get", f"/api/v1/{kind}", None) for kind in ("status", "targets", "events", "deliveries", "keys")]
    yield from [("get", f"/api/v1/{kind}{listed}", None) for kind in ("events", "deliveries")]
    for path in ("events/evt_order-1_1", "events/evt_notice", "orders/order-1", "orders/order-3"):
        yield "get", f"/api/v1/{path}", None
    yield from [("get", f"/api/v1/deliveries/{number}", None) for number in range(1, 7)]
    yield "get", OPENAPI_PATH, None
    yield "post", "/api/v1/backfill", {}
    yield "post", "/api/v1/audit", {"since": "48h"}
    yield "post", "/api/v1/store/backup", {"path": str(folder / "copy.db")}
    yield "post", "/api/v1/replay", {"target": "alpha", "status": "any", "dry_run": True}
    for number in range(2, 9):  # the first one is of the target that is gone, to be forgotten with it
        yield "post", f"/api/v1/deliveries/{number}/retry", {}
        yield "post", f"/api/v1/deliveries/{number}/cancel", {}
    for what in ("test", "pause", "resume", "forget"):
        yield "post", f"/api/v1/targets/beta/{what}", {}
    yield "post", "/api/v1/targets/gone/forget", {}
    yield "get", "/api/v1/targets", None


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["schemas"]))
def test_every_schema_is_one(name: str):
    Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_references_lead_somewhere_and_names_are_unique():
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            for key, value in part.items():
                yield from [value] if key == "$ref" else references(value)
        elif isinstance(part, list):
            for item in part:
                yield from references(item)

    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) <= known
    names = [one["operationId"] for methods in DOCUMENT["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)


async def test_every_route_is_in_it_and_nothing_else(tmp_path: Path):
    async with served(tmp_path) as room:
        documented = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
        assert documented == routes(room)


async def test_only_what_is_open_says_so(tmp_path: Path):
    async with served(tmp_path) as room:
        for one in OPERATIONS:
            path = one.path.replace("{key}", "1").replace("{id}", "1").replace("{name}", "alpha")
            status, _, _ = await room.ask(one.method.upper(), path, token=None, json={} if one.body else None)
            assert (status != 401) == one.open, one
            security = DOCUMENT["paths"][one.path][one.method].get("security", DOCUMENT["security"])
            assert (security == []) == one.open


async def test_it_is_served(tmp_path: Path):
    async with served(tmp_path) as room:
        assert await room.get(OPENAPI_PATH) == (200, DOCUMENT)


async def test_real_answers_fit(tmp_path: Path):
    asked: set[tuple[str, str, int]] = set()
    async with served(tmp_path) as room:
        await room.bench.configure("alpha", "beta", "gone")
        await room.bench.add(event("order-9", 4), targets=["gone"])
        await room.bench.configure("alpha", "beta")
        await furnish(room)
        for method, path, body in questions(tmp_path):
            status, document, answer = await room.ask(method.upper(), path, json=body)
            assert room.admin._runner is not None
            canonical = canonical_of(room, method, URL(path).path)
            asked.add((method, canonical, status))
            content = DOCUMENT["paths"][canonical][method]["responses"][str(status)]["content"]
            assert list(content) == [answer.content_type]
            assert complaints(document, schema_of(method, canonical, status)) == [], (path, document)
    fine = {(one.method, one.path, one.status) for one in OPERATIONS if one.path != "/api/v1/stream"}
    assert fine <= asked, "every operation has answered as asked"


def canonical_of(room: AdminRoom, method: str, path: str) -> str:
    found = [one for one in DOCUMENT["paths"] if method in DOCUMENT["paths"][one] and matches(one, path)]
    return min(found, key=lambda one: one.count("{"))


def matches(canonical: str, path: str) -> bool:
    parts, given = canonical.split("/"), path.split("/")
    return len(parts) == len(given) and all(
        one.startswith("{") or one == two for one, two in zip(parts, given, strict=True)
    )


def test_the_schemas_would_notice():
    """A schema that lets anything through proves nothing."""
    schema = {"$ref": "#/components/schemas/Delivery"}
    names = DOCUMENT["components"]["schemas"]["Delivery"]["properties"]
    assert complaints(dict.fromkeys(names), schema)
    assert complaints({}, schema)
    assert complaints({"error": {"code": "x"}}, {"$ref": "#/components/schemas/Error"})
    assert complaints({"error": {"code": "x", "message": "y", "z": 1}}, {"$ref": "#/components/schemas/Error"})


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)


@pytest.mark.timeout(400)
@pytest.mark.slow
async def test_fuzzed_answers_conform_and_nothing_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """schemathesis asks what the document allows, and what it does not; the stream, which never ends, aside."""

    async def no_backup(path: Path) -> None:
        raise StoreError(f"{path} cannot be written")  # fuzzed paths must not become files

    monkeypatch.setattr(auth, "LOGIN_FAILURES", 10**9)  # it guesses, and would be told to wait
    async with served(tmp_path) as room:
        monkeypatch.setattr(room.store, "backup", no_backup)
        await furnish(room)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", room.url + OPENAPI_PATH),
            *("--header", f"Authorization: Bearer {TOKEN}", "--exclude-path", "/api/v1/stream"),
            *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-examples", "15"),
            *("--seed", "1", "--no-color", "--request-timeout", "20", "--suppress-health-check", "all"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        report = out.decode()
        assert process.returncode == 0, report[-8000:]
        tested = re.search(r"Tested: (\d+)", report)
        assert tested is not None, report
        assert int(tested[1]) >= len(OPERATIONS) - 2, "all but the stream, and the document that it read to begin with"
