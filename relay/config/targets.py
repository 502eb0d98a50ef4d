"""The settings of one target."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from relay.config.addresses import Network
from relay.config.event_types import any_matches, pattern_fault
from relay.config.leaves import duration, flag, fraction, or_null, rate, text, whole, word
from relay.config.network_leaves import network
from relay.config.problems import Suffix, faults
from relay.config.secret_leaves import (
    peek,
    proxy_url_fault,
    secret_value,
    target_url_fault,
    text_fault,
    visible_fault,
)
from relay.config.section import Section, TargetHeaders, none_if_null, sized
from relay.config.signing_keys import signing_secret_fault
from relay.config.urls import address_fault, parse_url, redacted, target_url_faults, token_url_fault
from relay.secret import Secret

DAY = 86400.0
HOUR = 3600.0


def _name_fault(name: str) -> str | None:
    good = re.fullmatch(r"[a-z0-9-]{1,63}", name)
    return None if good else "a target's name has 1 to 63 of the characters a-z, 0-9 and '-'"


def _path_fault(path: str) -> str | None:
    return "the path of a file is missing" if not path or "\0" in path else None


def _hmac_beside_ed25519(secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
    values = [peek(secret) for secret in secrets]
    if None not in values and not any((value or "").startswith("whsec_") for value in values):
        raise ValueError("add a whsec_ secret: verifiers refuse a message that is signed by a whsk_ key alone")
    return secrets


Password: TypeAlias = Annotated[Secret, secret_value(text_fault)]
OptionalFile: TypeAlias = Annotated[str | None, or_null(text("the path of a file", _path_fault))]


class RetrySettings(Section):
    """When a failed attempt is repeated."""

    schedule: Annotated[
        tuple[Annotated[float, duration(0.1, 30 * DAY)], ...], sized(1, 50, "expected 1 to 50 durations")
    ] = Field(
        default=(5.0, 300.0, 1800.0, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR),
        description="Waits between attempts; after the last one the delivery is dead (exhausted).",
    )
    jitter: Annotated[float, fraction(0, 1)] = Field(
        default=0.2, description="Every wait is lengthened or shortened by up to this share, so that retries spread."
    )
    retry_after_max: Annotated[float, duration(1, 30 * DAY)] = Field(
        default=DAY, description="A receiver's `Retry-After` counts up to this long."
    )


class ProbeSettings(Section):
    """How an open breaker is tried."""

    initial: Annotated[float, duration(0.1, HOUR)] = Field(default=10.0, description="First wait before a probe.")
    max: Annotated[float, duration(0.1, DAY)] = Field(
        default=300.0, description="Longest wait between probes.", validate_default=True
    )

    @field_validator("max")
    @classmethod
    def _not_below_initial(cls, value: float, info: ValidationInfo) -> float:
        return not_below_initial(value, info)


def not_below_initial(value: float, info: ValidationInfo) -> float:
    """For a `max` beside an `initial`.

    Raises:
        ValueError: it is the smaller one.
    """
    if value < info.data.get("initial", value):
        raise ValueError("max must not be smaller than initial")
    return value


class BreakerSettings(Section):
    """When a target that fails is left alone for a while."""

    failures: Annotated[int, whole(1, 10_000)] = Field(
        default=10, description="Failed attempts in a row that open the breaker."
    )
    probe: ProbeSettings = Field(default=ProbeSettings(), description="How an open breaker is tried.")


class TlsSettings(Section):
    """Certificates for a target's connections."""

    ca_file: OptionalFile = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's."
    )
    cert_file: OptionalFile = Field(default=None, description="PEM file of our own certificate (mutual TLS).")
    key_file: OptionalFile = Field(
        default=None, description="PEM file of that certificate's key, unless `cert_file` holds it, too."
    )

    @field_validator("key_file")
    @classmethod
    def _not_alone(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("cert_file", value) is None:
            raise ValueError("a key is of no use without its certificate; add cert_file")
        return value


class BasicAuth(Section):
    """HTTP basic authentication."""

    username: Password = Field(description="User name.")
    password: Password = Field(description="Password.")


class OAuth2(Section):
    """OAuth 2 client credentials."""

    token_url: Annotated[str, text("an https URL", token_url_fault)] = Field(description="Where a token is fetched.")
    client_id: Password = Field(description="Client id.")
    client_secret: Password = Field(description="Client secret.")
    scope: Annotated[str | None, or_null(text("a scope", text_fault))] = Field(
        default=None, description="Scope to ask for."
    )


class AuthSettings(Section):
    """How we identify ourselves to a target; one of these."""

    basic: Annotated[BasicAuth | None, BeforeValidator(none_if_null)] = Field(
        default=None, description="HTTP basic authentication."
    )
    bearer: Annotated[Secret | None, or_null(secret_value(visible_fault))] = Field(
        default=None, description="A fixed bearer token."
    )
    oauth2: Annotated[OAuth2 | None, BeforeValidator(none_if_null)] = Field(
        default=None, description="OAuth 2 client credentials."
    )


def _one_way(auth: AuthSettings | None) -> AuthSettings | None:
    if auth is not None and [auth.basic, auth.bearer, auth.oauth2].count(None) != 2:
        raise ValueError("expected exactly one of basic, bearer and oauth2")
    return auth


class TargetSettings(Section):
    """A receiver and how it is treated."""

    name: Annotated[str, text("a name", _name_fault)] = Field(
        description="1 to 63 of a-z, 0-9 and `-`; unique, and never reused for another receiver."
    )
    # Before `url`, which is judged by these two.
    allow_http: Annotated[bool, flag()] = Field(
        default=False, description="Whether plain `http://` is accepted; loopback always is."
    )
    allow_networks: tuple[Annotated[Network, network()], ...] = Field(
        default=(), description="Networks (CIDR) exempt from the block of private addresses."
    )
    url: Annotated[Secret, secret_value(target_url_fault, "an https URL (partly secret)")] = Field(
        description="Where deliveries are posted. Userinfo, query, and path beyond its first segment are never shown."
    )
    secrets: Annotated[
        tuple[Annotated[Secret, secret_value(signing_secret_fault, "a signing secret")], ...],
        sized(1, 10, "expected 1 to 10 signing secrets; houdini-relay secret new makes one"),
        AfterValidator(_hmac_beside_ed25519),
    ] = Field(description="`whsec_` (HMAC) and, beside one, `whsk_` (ed25519); all sign, so that one can be replaced.")
    events: Annotated[
        tuple[Annotated[str, text('an event type, as in "order.*"', pattern_fault)], ...],
        sized(1, 50, 'expected 1 to 50 event types; write ["order.*"] for all changes of orders'),
    ] = Field(
        default=("order.*",),
        description='Event types; a final `*` matches the rest. `"*"` never matches the notices (`relay.*`).',
    )
    changes: Annotated[Literal["all", "status"], word("all", "status")] = Field(
        default="all", description="`status`: only events whose status changed."
    )
    format: Annotated[
        Literal["standard", "raw", "cloudevents", "slack"], word("standard", "raw", "cloudevents", "slack")
    ] = Field(
        default="standard",
        description="`standard`: order and its place in its life; `raw`: the upstream's message; `cloudevents`: "
        "CloudEvents 1.0; `slack`: a sentence for people.",
    )
    ordering: Annotated[Literal["per_order", "latest_only", "none"], word("per_order", "latest_only", "none")] = Field(
        default="per_order", description="`per_order`: an order's next event waits until the one before has ended."
    )
    timeout: Annotated[float, duration(1, 600)] = Field(
        default=15.0, description="One whole attempt: resolve, connect, TLS, send, answer."
    )
    concurrency: Annotated[int, whole(1, 1000)] = Field(default=16, description="Attempts at the same time.")
    rate_limit: Annotated[float | None, or_null(rate())] = Field(default=None, description="Attempts per time.")
    retry: RetrySettings = Field(default=RetrySettings(), description="When a failed attempt is repeated.")
    expire_after: Annotated[float, duration(60, 365 * DAY)] = Field(
        default=7 * DAY, description="Age at which an undelivered delivery is dead (expired)."
    )
    max_pending: Annotated[int, whole(1, 1_000_000_000)] = Field(
        default=1_000_000, description="Waiting deliveries beyond which the oldest are dead (overflow)."
    )
    breaker: BreakerSettings = Field(default=BreakerSettings(), description="When a failing target is left alone.")
    auth: Annotated[AuthSettings | None, BeforeValidator(none_if_null), AfterValidator(_one_way)] = Field(
        default=None, description="How we identify ourselves; null for signatures only."
    )
    headers: TargetHeaders = Field(default={}, description="Extra headers; every value is a secret.")
    tls: TlsSettings = Field(default=TlsSettings(), description="Certificates for this target's connections.")
    proxy: Annotated[Secret | None, or_null(secret_value(proxy_url_fault, "a URL (secret)"))] = Field(
        default=None,
        description="HTTP proxy to go through, for tokens, too; its own address is judged like the target's.",
    )
    paused: Annotated[bool, flag()] = Field(default=False, description="Whether deliveries are kept but not sent.")

    @field_validator("url")
    @classmethod
    def _url_by_own_rules(cls, value: Secret, info: ValidationInfo) -> Secret:
        address = peek(value)
        if address is None or not info.data.keys() >= {"allow_http", "allow_networks"}:
            return value
        url = parse_url(address, ("https", "http"))
        found = target_url_faults(url, info.data["allow_http"], info.data["allow_networks"])
        if found:
            raise faults([((), message) for message in found])
        return value

    @field_validator("auth")
    @classmethod
    def _auth_by_own_rules(cls, value: AuthSettings | None, info: ValidationInfo) -> AuthSettings | None:
        address = peek(info.data["url"]) if "url" in info.data else None
        if value is None:
            return value
        if address is not None and parse_url(address, ("https", "http")).has_userinfo:
            raise ValueError("this target's URL holds credentials already; keep one of them")
        if value.oauth2 is not None and "allow_networks" in info.data:
            url = parse_url(value.oauth2.token_url, ("https", "http"))
            fault = address_fault(url, info.data["allow_networks"])
            if fault is not None:
                raise faults([(("oauth2", "token_url"), fault)])
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy_by_own_rules(cls, value: Secret | None, info: ValidationInfo) -> Secret | None:
        address = None if value is None else peek(value)
        if address is None or "allow_networks" not in info.data:
            return value
        fault = address_fault(parse_url(address, ("http", "https")), info.data["allow_networks"])
        if fault is not None:
            raise ValueError(fault)
        return value

    @field_validator("headers")
    @classmethod
    def _one_authorization(cls, value: dict[str, Secret], info: ValidationInfo) -> dict[str, Secret]:
        address = peek(info.data["url"]) if "url" in info.data else None
        userinfo = address is not None and parse_url(address, ("https", "http")).has_userinfo
        if not userinfo and info.data.get("auth") is None:
            return value
        names: list[Suffix] = [(name,) for name in value if name.lower() == "authorization"]
        if names:
            raise faults([(name, "this target's auth or URL sets this header; keep one of them") for name in names])
        return value

    @property
    def url_redacted(self) -> str:
        """The URL as it may be shown; `[unreadable]` when it cannot be read now."""
        address = peek(self.url)
        return "[unreadable]" if address is None else redacted(parse_url(address, ("https", "http")))

    def wants(self, event_type: str) -> bool:
        """Whether `events` chooses this event type."""
        return any_matches(self.events, event_type)
