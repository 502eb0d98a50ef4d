"""The whole configuration as immutable values. Durations are seconds; a `Secret` is revealed where it is used."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from relay.config.addresses import is_loopback_host
from relay.config.leaves import STRING, Leaf, Reading, duration, late, or_null, text, text_of, whole, word
from relay.config.network_leaves import host, listen_address
from relay.config.secret_leaves import secret_value, visible_fault
from relay.config.section import RestHeaders, Section, each, sized
from relay.config.store_url import StoreUrl, store_url
from relay.config.targets import DAY, HOUR, TargetSettings, not_below_initial
from relay.config.urls import upstream_url_fault
from relay.secret import Secret

_MAX_ORDERS: Final = 10_000


def _partner_fault(partner_id: str) -> str | None:
    if visible_fault(partner_id) is None and ":" not in partner_id:
        return None
    return "a partner id is visible ASCII characters without spaces and ':'"


def _orders() -> Leaf:
    words = "all, or a list of houdiniIds"

    def one(value: object) -> str:
        order = text_of(value, "a houdiniId")
        if not re.fullmatch(r"[!-~]{1,200}", order):
            raise ValueError("a houdiniId has 1 to 200 visible ASCII characters")
        return order

    def read(value: object, reading: Reading) -> str | tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            if text_of(value, words) != "all":
                raise ValueError(f"expected {words}")
            return "all"
        if not 1 <= len(value) <= _MAX_ORDERS:
            raise ValueError(f"expected 1 to {_MAX_ORDERS} houdiniIds; write all to follow every order")
        return each("houdiniId", one, value)

    ids = {"type": "array", "items": STRING, "minItems": 1, "maxItems": _MAX_ORDERS}
    return Leaf(words, read, shape={"anyOf": [{"const": "all"}, ids]})


class HeartbeatSettings(Section):
    """Pings that show whether the WebSocket is alive."""

    interval: Annotated[float, duration(0.1, 600)] = Field(default=30.0, description="Time between pings.")
    timeout: Annotated[float, duration(0.1, 120)] = Field(
        default=10.0, description="Wait for an answer before the connection counts as lost."
    )


class ReconnectSettings(Section):
    """Waits before the WebSocket is opened again; a random part of a growing limit."""

    initial: Annotated[float, duration(0.1, 600)] = Field(default=1.0, description="Limit of the first wait.")
    max: Annotated[float, duration(0.1, HOUR)] = Field(
        default=60.0, description="Limit that the waits grow to.", validate_default=True
    )

    @field_validator("max")
    @classmethod
    def _not_below_initial(cls, value: float, info: ValidationInfo) -> float:
        return not_below_initial(value, info)


class BackfillSettings(Section):
    """Reading orders over REST, to find what the WebSocket did not show."""

    first_start: Annotated[Literal["baseline", "emit"], word("baseline", "emit")] = Field(
        default="baseline",
        description="With an empty store: `baseline` learns the last 48 h of orders silently, `emit` delivers them.",
    )
    interval: Annotated[float, duration(1, DAY, zero=True)] = Field(
        default=300.0, description="Time between sweeps while connected; `0s`: only after each connect."
    )
    page_size: Annotated[int, whole(1, 100)] = Field(default=100, description="Orders asked for at once.")
    requests_per_minute: Annotated[int, whole(1, 10_000)] = Field(
        default=10, description="Limit shared by all REST requests."
    )


class UpstreamSettings(Section):
    """The service whose order updates are forwarded."""

    websocket_url: Annotated[str, text("a wss URL", lambda url: upstream_url_fault(url, "wss", "ws"))] = Field(
        description="The WebSocket's URL; `ws://` on loopback only."
    )
    rest_url: Annotated[str, text("an https URL", lambda url: upstream_url_fault(url, "https", "http"))] = Field(
        description="Base URL of the REST API; `http://` on loopback only."
    )
    partner_id: Annotated[str, late(text("a partner id", _partner_fault))] = Field(
        description="Partner id. Empty only in commands that need no secrets and where its variable is not set."
    )
    secret: Annotated[Secret, secret_value(visible_fault)] = Field(
        description="The API secret that goes with the partner id."
    )
    orders: Annotated[Literal["all"] | tuple[str, ...], _orders()] = Field(
        default="all", description="Which orders to follow."
    )
    heartbeat: HeartbeatSettings = Field(default=HeartbeatSettings(), description="Pings on the WebSocket.")
    handshake_timeout: Annotated[float, duration(0.1, 120)] = Field(
        default=10.0, description="Limit for the upgrade, the welcome and the subscription, each."
    )
    reconnect: ReconnectSettings = Field(default=ReconnectSettings(), description="Waits before reconnecting.")
    auth_retry: Annotated[float, duration(1, DAY)] = Field(
        default=300.0, description="Wait after credentials were refused; the secret is then read again."
    )
    backfill: BackfillSettings = Field(default=BackfillSettings(), description="Reading orders over REST.")
    rest_headers: RestHeaders = Field(
        default={}, description="Extra headers of REST requests; every value is a secret."
    )


class StoreSettings(Section):
    """Where events and deliveries are kept."""

    url: Annotated[StoreUrl, store_url()] = Field(
        default=StoreUrl.of("sqlite:///relay.db"),
        description="`sqlite:///file.db` relative to the working directory, `sqlite:////var/lib/...` absolute; "
        "`postgresql://user@host/name` for several instances, see docs/scaling.md.",
    )
    retention: Annotated[float, duration(HOUR, 3650 * DAY)] = Field(
        default=30 * DAY, description="How long finished deliveries, their attempts and their events are kept."
    )


class AdminSettings(Section):
    """The admin server: health, metrics, API and dashboard."""

    # Before `listen`, which is judged by it.
    token: Annotated[Secret | None, or_null(secret_value(visible_fault))] = Field(
        default=None, description="Bearer token for everything but health and metrics."
    )
    listen: Annotated[tuple[str, int] | None, or_null(listen_address())] = Field(
        default=("127.0.0.1", 8787),
        description="Address and port; null turns it off. An address beyond loopback needs a token.",
    )
    allowed_hosts: Annotated[tuple[Annotated[str, host()], ...], sized(0, 100, "at most 100 host names")] = Field(
        default=(), description="Further `Host` names it answers to; loopback names and its own address always work."
    )

    @field_validator("listen")
    @classmethod
    def _open_only_with_token(cls, value: tuple[str, int] | None, info: ValidationInfo) -> tuple[str, int] | None:
        if value is None or is_loopback_host(value[0]) or info.data.get("token", "unknown") is not None:
            return value
        raise ValueError("an address beyond loopback needs admin.token; set it, or listen on 127.0.0.1")


class LogSettings(Section):
    """What is logged and how it looks."""

    level: Annotated[Literal["debug", "info", "warning", "error"], word("debug", "info", "warning", "error")] = Field(
        default="info", description="The least important lines to show."
    )
    format: Annotated[Literal["auto", "console", "json"], word("auto", "console", "json")] = Field(
        default="auto", description="`auto`: for people on a terminal, JSON otherwise."
    )


class Settings(Section):
    """The whole configuration."""

    upstream: UpstreamSettings = Field(description="The service whose order updates are forwarded.")
    store: StoreSettings = Field(default=StoreSettings(), description="Where events and deliveries are kept.")
    targets: Annotated[tuple[TargetSettings, ...], sized(1, 1000, "no targets; add at least one")] = Field(
        description="The receivers."
    )
    admin: AdminSettings = Field(default=AdminSettings(), description="Health, metrics, API and dashboard.")
    log: LogSettings = Field(default=LogSettings(), description="What is logged and how it looks.")
