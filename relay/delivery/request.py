"""What one attempt sends: headers and body, signed for this moment. Pure but for secrets that lie in files."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from relay.config import TargetSettings
from relay.delivery import envelope
from relay.delivery.signer import Signer
from relay.model import Delivery


@dataclass(frozen=True, slots=True)
class PostRequest:
    """Everything one attempt sends; where to is the sender's own affair.

    Attributes:
        headers: (lower-case name, value), in the order in which they are sent; without `host`, `content-length`,
            `user-agent` and `connection`, which the sender adds.
        body: the signed bytes.
        timeout: seconds for the whole attempt: resolve, connect, TLS, send, answer and its body.
        hidden: secret values that must not be kept if the receiver echoes them.
    """

    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float
    hidden: tuple[str, ...] = field(default=(), repr=False)


def build_request(
    delivery: Delivery,
    target: TargetSettings,
    signer: Signer,
    auth_headers: Mapping[str, str],
    now_ms: int,
    *,
    partner_id: str,
    traceparent: str | None = None,
) -> PostRequest:
    """The next attempt of this delivery, signed for now.

    Args:
        delivery: what to send.
        target: where to, and how it is treated.
        signer: with the target's secrets.
        auth_headers: lower-case names; how we identify ourselves beyond the signature.
        now_ms: wall time of this attempt.
        partner_id: the upstream's id of us, which CloudEvents name as their source.
        traceparent: the header that names this attempt to a receiver that traces; None sends none.

    Raises:
        SecretUnreadable: the URL's or a header's secret cannot be read now.
        ValueError: the target's format is not one this program has.
    """
    event = delivery.event
    body = envelope.compose(event, target.format, partner_id)
    timestamp_s = now_ms // 1000
    static = {name.lower(): value.reveal() for name, value in target.headers.items()}
    own = {
        "content-type": envelope.content_type(target.format),
        "accept-encoding": "identity",
        "webhook-id": event.webhook_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signer.sign(event.webhook_id, timestamp_s, body),
        "relay-attempt": str(delivery.attempts_made + 1),
    }
    if traceparent is not None:
        own["traceparent"] = traceparent
    hidden = (*static.values(), *_auth_secrets(auth_headers), *_url_secrets(target.url.reveal()))
    # Ours win over the static ones whatever the configuration let through.
    headers = {**static, **auth_headers, **own}
    return PostRequest(tuple(headers.items()), body, target.timeout, tuple(dict.fromkeys(filter(None, hidden))))


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
    except (binascii.Error, UnicodeDecodeError):
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
