"""What one attempt sends: headers and body, signed for this moment. Pure but for secrets that lie in files."""

import base64
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from relay.config import TargetSettings
from relay.delivery import envelope
from relay.delivery.signer import Signer
from relay.model import Delivery

_OURS: Final = frozenset(
    {"content-type", "accept-encoding", "webhook-id", "webhook-timestamp", "webhook-signature", "relay-attempt"}
)


class Fixed(msgspec.Struct, frozen=True):
    """What is the same in every attempt at a target, as long as its secrets are.

    Attributes:
        headers: (lower-case name, value) of the configured ones and of how we identify ourselves.
        hidden: secret values that must not be kept if the receiver echoes them.
        format: the body's.
        timeout: seconds for a whole attempt.
    """

    headers: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]
    format: str
    timeout: float

    def __repr__(self) -> str:
        """Without what it hides."""
        return f"Fixed(format={self.format!r}, timeout={self.timeout!r})"


class PostRequest(msgspec.Struct, frozen=True):
    """Everything one attempt sends; where to is the sender's own affair.

    Attributes:
        headers: (lower-case name, value), in the order in which they are sent; without `host`, `content-length`,
            `user-agent` and `connection`, which the sender adds.
        body: the signed bytes.
        timeout: seconds for the whole attempt: resolve, connect, TLS, send, answer and its body.
        hidden: secret values that must not be kept if the receiver echoes them.
    """

    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout: float
    hidden: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without what is secret, or somebody's order."""
        return f"PostRequest(timeout={self.timeout!r})"


def fixed_part(target: TargetSettings, auth_headers: Mapping[str, str]) -> Fixed:
    """What every attempt at this target has in common.

    Args:
        target: how it is treated.
        auth_headers: lower-case names; how we identify ourselves beyond the signature.

    Raises:
        SecretUnreadable: the URL's or a header's secret cannot be read now.
    """
    static = {name.lower(): value.reveal() for name, value in target.headers.items()}
    hidden = (*static.values(), *_auth_secrets(auth_headers), *_url_secrets(target.url.reveal()))
    # Ours win over the static ones whatever the configuration let through.
    headers = {name: value for name, value in {**static, **auth_headers}.items() if name not in _OURS}
    return Fixed(tuple(headers.items()), tuple(dict.fromkeys(filter(None, hidden))), target.format, target.timeout)


def build_request(
    delivery: Delivery,
    fixed: Fixed,
    signer: Signer,
    now_ms: int,
    *,
    partner_id: str,
    traceparent: str | None = None,
) -> PostRequest:
    """The next attempt of this delivery, signed for now.

    Args:
        delivery: what to send.
        fixed: what its target's attempts have in common.
        signer: with the target's secrets.
        now_ms: wall time of this attempt.
        partner_id: the upstream's id of us, which CloudEvents name as their source.
        traceparent: the header that names this attempt to a receiver that traces; None sends none of ours.

    Raises:
        ValueError: the target's format is not one this program has.
    """
    event = delivery.event
    body = envelope.compose(event, fixed.format, partner_id)
    timestamp_s = now_ms // 1000
    own = (
        ("content-type", envelope.content_type(fixed.format)),
        ("accept-encoding", "identity"),
        ("webhook-id", event.webhook_id),
        ("webhook-timestamp", str(timestamp_s)),
        ("webhook-signature", signer.sign(event.webhook_id, timestamp_s, body)),
        ("relay-attempt", str(delivery.attempts_made + 1)),
    )
    headers = fixed.headers
    if traceparent is not None:
        headers = (*(one for one in headers if one[0] != "traceparent"), ("traceparent", traceparent))
    return PostRequest(headers + own, body, fixed.timeout, fixed.hidden)


def _auth_secrets(auth_headers: Mapping[str, str]) -> Iterator[str]:
    """Credentials as they are sent and, for basic ones, as they read once decoded."""
    for value in auth_headers.values():
        scheme, _, credentials = value.partition(" ")
        yield value
        yield credentials
        if scheme.lower() == "basic":
            yield from _decoded(credentials)


def _decoded(credentials: str) -> Iterator[str]:
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except ValueError:  # no base64, or no text
        return
    yield text
    yield text.partition(":")[2]


def _url_secrets(url: str) -> Iterator[str]:
    """The parts of a URL that may not be shown, as written and decoded: userinfo, query, path beyond its start."""
    parts = urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0]
    _, _, beyond = parts.path.lstrip("/").partition("/")
    values = [part.partition("=")[2] for part in parts.query.split("&")]
    for text in (parts.query, beyond, userinfo, userinfo.partition(":")[2], *values):
        yield text
        yield unquote(text)
