"""`GET /api/v1/openapi.json`: what may be asked and what is answered, for machines.

Tests hold it against the routes, and real answers against its schemas.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec.structs import fields

from relay.admin.answers import json_answer
from relay.admin.paging import MOST, PARAMETERS, TARGET_FORM, USUAL
from relay.admin.questions import AuditQuestion, BackupQuestion, NoQuestion, ReplayQuestion
from relay.admin.schema_words import Schema, ref
from relay.admin.schemas import SCHEMAS
from relay.admin.sessions import COOKIE
from relay.admin.stream import KINDS
from relay.model import DeliveryStatus

OPENAPI_PATH: Final = "/api/v1/openapi.json"
_PARAMETERS: Final[dict[str, tuple[str, Schema]]] = {
    "limit": ("At most so many items.", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL}),
    "cursor": ("Go on here: the `next` of a page before.", {"type": "string"}),
    "target": ("Of this target.", {"type": "string", "pattern": f"^{TARGET_FORM}$"}),
    "status": ("In this status.", {"type": "string", "enum": [word.value for word in DeliveryStatus]}),
    "type": ("Of this event type.", {"type": "string", "pattern": "^[a-z0-9_.]{1,100}$"}),
    "order": ("Of this order, or `relay:` and a subject.", {"type": "string", "pattern": "^[!-~]{1,200}$"}),
    "since": ("Since: how long ago, as in `24h`, or a moment in ISO 8601.", {"type": "string"}),
    "until": ("Until, as `since`.", {"type": "string"}),
    "kinds": (f"Some of {', '.join(KINDS)}, with commas between them; all by default.", {"type": "string"}),
}
_MEANINGS: Final = {
    400: "Something in it cannot be used; the message says what.",
    401: "No token, or a wrong one.",
    403: "A foreign Host or Origin.",
    404: "There is none of this id or name.",
    409: "Not as things stand; the message says why.",
    413: "The body is too long.",
    415: "The body is not sent as JSON.",
    429: "Too many wrong tokens; `retry-after` says when again.",
    500: "A defect; the log has the details.",
    502: "The upstream cannot be asked.",
    503: "The store, a secret or a place cannot be had now.",
    504: "It took too long.",
}
_ALWAYS: Final = (400, 403, 413, 500, 504)
_GUARDED: Final = (401, 429, 503)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that may be asked.

    Attributes:
        answer: the schema of the answer; empty where it is no JSON.
        query: names of query parameters.
        body: what is sent.
        errors: statuses beyond those that everything may answer with.
        status: of the answer.
        media: its content type.
        open: whether it needs no token.
    """

    method: str
    path: str
    summary: str
    answer: str = ""
    query: tuple[str, ...] = ()
    body: type[msgspec.Struct] | None = None
    errors: tuple[int, ...] = ()
    status: int = 200
    media: str = "application/json"
    open: bool = False


def _get(path: str, summary: str, answer: str, **more: Any) -> Operation:
    return Operation("get", path, summary, answer, **more)


def _post(path: str, summary: str, answer: str, body: type[msgspec.Struct] = NoQuestion, **more: Any) -> Operation:
    return Operation("post", path, summary, answer, body=body, **more)


_API: Final = "/api/v1"
_TARGET: Final = f"{_API}/targets/{{name}}"
_DELIVERY: Final = f"{_API}/deliveries/{{id}}"
_CHANGING: Final = (404, 409)

OPERATIONS: Final = (
    _get("/healthz", "Whether it lives: the loop turns, the store answers.", "Health", open=True, errors=(503,)),
    _get("/readyz", "Whether changes can reach targets now.", "Health", open=True, errors=(503,)),
    Operation("get", "/metrics", "All metrics for Prometheus.", media="text/plain", open=True),
    _get(f"{_API}/status", "Is everything fine, and if not, why and what to do.", "Status"),
    _get(f"{_API}/targets", "Every target.", "Targets"),
    _get(f"{_API}/events", "Events.", "Events", query=PARAMETERS),
    _get(f"{_API}/events/{{key}}", "One event, by its webhook id.", "WholeEvent", errors=(404,)),
    _get(f"{_API}/deliveries", "Deliveries.", "Deliveries", query=PARAMETERS),
    _get(f"{_API}/deliveries/{{key}}", "One delivery with its attempts.", "WholeDelivery", errors=(404,)),
    _get(f"{_API}/orders/{{key}}", "The life of one order, by its houdiniId.", "Order", errors=(404,)),
    _get(f"{_API}/keys", "Public keys of targets that sign with ed25519.", "Keys"),
    Operation(
        "get",
        f"{_API}/stream",
        "What happens, as it happens: server-sent events (StreamEvent, StreamAttempt, ...). Nothing is kept for it; "
        "`Last-Event-ID` is answered with how many were missed.",
        query=("kinds", "target"),
        media="text/event-stream",
    ),
    _get(OPENAPI_PATH, "This document.", "Anything"),
    _post(f"{_API}/backfill", "Ask for a sweep now.", "SweepRequested", status=202),
    _post(
        f"{_API}/audit",
        "Compare with the upstream; repair if asked to.",
        "Audit",
        AuditQuestion,
        errors=(404, 409, 502),
    ),
    _post(f"{_API}/store/backup", "Copy the store to a new file there.", "BackedUp", BackupQuestion, errors=(409,)),
    _post(f"{_API}/replay", "Send events again that have ended.", "Replayed", ReplayQuestion, errors=_CHANGING),
    _post(f"{_DELIVERY}/retry", "Attempt it now, or send it again if it has ended.", "Retried", errors=_CHANGING),
    _post(f"{_DELIVERY}/cancel", "End a waiting delivery.", "Cancelled", errors=_CHANGING),
    _post(f"{_TARGET}/pause", "Keep its deliveries without sending them.", "Paused", errors=_CHANGING),
    _post(f"{_TARGET}/resume", "Send to it again.", "Resumed", errors=_CHANGING),
    _post(f"{_TARGET}/test", "Make one attempt of a relay.test event now.", "Tested", errors=_CHANGING),
    _post(
        f"{_TARGET}/forget", "Cancel what is kept for it, which is configured no longer.", "Forgotten", errors=_CHANGING
    ),
)


class OpenApi:
    """The handler."""

    def __init__(self, version: str) -> None:
        self._document = openapi_document(version)

    def routes(self) -> list[web.RouteDef]:
        """The path and its handler."""
        return [web.get(OPENAPI_PATH, self.openapi)]

    async def openapi(self, _request: web.Request) -> web.Response:
        """The document; it says nothing about this relay but its version."""
        return json_answer(self._document)


def openapi_document(version: str) -> Schema:
    """The whole document, OpenAPI 3.1."""
    bodies = [one.body for one in OPERATIONS if one.body is not None]
    _, questions = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    for question in questions.values():
        question["description"] = " ".join(question["description"].split())
    paths: dict[str, Schema] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "houdini-relay",
            "version": version,
            "description": "The admin API. Errors have one shape; lists go on with `cursor` until `next` is null.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS) | {"Anything": {"type": "object"}} | questions,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`admin.token` of the configuration."},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "The dashboard's own."},
            },
        },
    }


def _operation(one: Operation) -> Schema:
    errors = sorted({*_ALWAYS, *one.errors, *(() if one.open else _GUARDED), *(() if one.body is None else (415,))})
    answer = {"schema": ref(one.answer)} if one.answer else {"schema": {"type": "string"}}
    health = one.open and one.answer
    found: Schema = {
        "operationId": _name(one),
        "summary": one.summary,
        "parameters": [*_in_path(one.path), *map(_in_query, one.query)],
        "responses": {
            str(one.status): {"description": "As asked.", "content": {one.media: answer}},
            **{str(status): _error(status, "Health" if health and status == 503 else "Error") for status in errors},
        },
    }
    if one.body is not None:
        content = {"application/json": {"schema": ref(one.body.__name__)}}
        found["requestBody"] = {"content": content, "required": any(field.required for field in fields(one.body))}
    if one.open:
        found["security"] = []
    return found


def _error(status: int, schema: str) -> Schema:
    meaning = "The reasons." if schema == "Health" else _MEANINGS[status]
    return {"description": meaning, "content": {"application/json": {"schema": ref(schema)}}}


def _in_path(path: str) -> list[Schema]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _in_query(name: str) -> Schema:
    description, schema = _PARAMETERS[name]
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _name(one: Operation) -> str:
    """`get_deliveries_key`, `post_targets_name_pause`."""
    words = one.path.removeprefix(_API).replace("{", "").replace("}", "").replace(".", "_").strip("/").split("/")
    return "_".join([one.method, *words])
