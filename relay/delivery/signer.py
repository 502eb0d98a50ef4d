"""Standard Webhooks 1.0.0 signatures: id, time and body in, header value out. Pure.

A secret is a prefix that names its scheme and the key in base64. Each scheme is one row of `_SCHEMES`; a
further one (`whsk_`, ed25519) needs a class with `signature` and its row.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

_HMAC_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(24, 65)


class _Key(Protocol):
    """One secret, ready to sign."""

    def signature(self, content: bytes) -> str:
        """The versioned signature of `id.timestamp.body`, as in `v1,g0hM...`."""
        ...


class _HmacKey:
    """HMAC-SHA256 (`v1`); the key is hashed in once and the state copied for each signature."""

    def __init__(self, key: bytes) -> None:
        if len(key) not in _KEY_BYTES:
            raise ValueError("a whsec_ key has 24 to 64 bytes")
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def signature(self, content: bytes) -> str:
        mac = self._keyed.copy()
        mac.update(content)
        return "v1," + base64.b64encode(mac.digest()).decode("ascii")


_SCHEMES: Final[Mapping[str, Callable[[bytes], _Key]]] = {_HMAC_PREFIX: _HmacKey}


class Signer:
    """Signs with all of a target's secrets, so that a receiver may know the old one, the new one, or both.

    Raises:
        ValueError: no secret, or one that cannot be used; the message never holds the secret.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise ValueError("at least one secret is needed to sign")
        self._keys = tuple(_parse(secret) for secret in secrets)

    def sign(self, webhook_id: str, timestamp_s: int, body: bytes) -> str:
        """The `webhook-signature` header of one attempt.

        Args:
            webhook_id: the event's id, the same for every attempt.
            timestamp_s: Unix seconds of this attempt, as sent in `webhook-timestamp`.
            body: exactly the bytes that will be sent.
        """
        content = f"{webhook_id}.{timestamp_s}.".encode() + body
        return " ".join(key.signature(content) for key in self._keys)


def new_secret(random_bytes: bytes) -> str:
    """A `whsec_` secret made of these bytes, of which there must be 24 to 64 (32 are usual).

    Raises:
        ValueError: too few or too many bytes.
    """
    if len(random_bytes) not in _KEY_BYTES:
        raise ValueError("a whsec_ key has 24 to 64 bytes")
    return _HMAC_PREFIX + base64.b64encode(random_bytes).decode("ascii")


def _parse(secret: str) -> _Key:
    for prefix, scheme in _SCHEMES.items():
        if secret.startswith(prefix):
            return scheme(_decode(secret.removeprefix(prefix)))
    raise ValueError("a secret begins with " + " or ".join(_SCHEMES))


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("a secret is its prefix and base64, nothing else") from None
