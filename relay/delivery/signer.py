"""Standard Webhooks 1.0.0 signatures: id, time and body in, header value out. Pure.

A secret is a prefix that names its scheme and the key in base64: `whsec_` for HMAC-SHA256 (`v1`), `whsk_` for
ed25519 (`v1a`, which a receiver verifies with a public key).
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from relay.config import TargetSettings
from relay.config.signing_keys import (
    ED25519_PREFIX,
    HMAC_KEY_BYTES,
    HMAC_PREFIX,
    SEED_BYTES,
    public_half,
    signing_key,
)

PUBLIC_PREFIX: Final = "whpk_"


class _Key(Protocol):
    """One secret, ready to sign."""

    def signature(self, content: bytes) -> str:
        """The versioned signature of `id.timestamp.body`, as in `v1,g0hM...`."""
        ...


class _HmacKey:
    """HMAC-SHA256 (`v1`); the key is hashed in once and the state copied for each signature."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def signature(self, content: bytes) -> str:
        mac = self._keyed.copy()
        mac.update(content)
        return "v1," + _base64(mac.digest())


class _Ed25519Key:
    """Ed25519 (`v1a`)."""

    def __init__(self, key: bytes) -> None:
        # As in `public_half`: loaded where it is used.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(key[:SEED_BYTES])

    def signature(self, content: bytes) -> str:
        return "v1a," + _base64(self._key.sign(content))


_SCHEMES: Final[Mapping[str, Callable[[bytes], _Key]]] = {HMAC_PREFIX: _HmacKey, ED25519_PREFIX: _Ed25519Key}


class Signer:
    """Signs with all of a target's secrets, so that a receiver may know the old one, the new one, or both.

    Raises:
        ValueError: no `whsec_` secret, or one that cannot be used; the message never holds the secret.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        keys = [signing_key(secret) for secret in secrets]
        if not any(prefix == HMAC_PREFIX for prefix, _ in keys):
            raise ValueError("at least one whsec_ secret is needed: verifiers refuse a whsk_ signature alone")
        # Verifiers of old know v1 only: what everybody can check comes first.
        keys.sort(key=lambda key: key[0] != HMAC_PREFIX)
        self._keys = tuple(_SCHEMES[prefix](key) for prefix, key in keys)

    def sign(self, webhook_id: str, timestamp_s: int, body: bytes) -> str:
        """The `webhook-signature` header of one attempt.

        Args:
            webhook_id: the event's id, the same for every attempt.
            timestamp_s: Unix seconds of this attempt, as sent in `webhook-timestamp`.
            body: exactly the bytes that will be sent.
        """
        content = f"{webhook_id}.{timestamp_s}.".encode() + body
        return " ".join(key.signature(content) for key in self._keys)


def hidden_forms(secrets: Iterable[str]) -> tuple[str, ...]:
    """What must not be shown of signing secrets: each as it is configured, and its key alone."""
    return tuple(form for secret in secrets for form in (secret, secret.partition("_")[2]) if form)


def new_secret(random_bytes: bytes) -> str:
    """A `whsec_` secret made of these bytes, of which there must be 24 to 64 (32 are usual).

    Raises:
        ValueError: too few or too many bytes.
    """
    if len(random_bytes) not in HMAC_KEY_BYTES:
        raise ValueError("a whsec_ key has 24 to 64 bytes")
    return HMAC_PREFIX + _base64(random_bytes)


def new_ed25519_pair(random_bytes: bytes) -> tuple[str, str]:
    """A `whsk_` secret made of these 32 bytes, and its `whpk_` public key.

    Raises:
        ValueError: not 32 bytes.
    """
    if len(random_bytes) != SEED_BYTES:
        raise ValueError("an ed25519 seed has 32 bytes")
    public = public_half(random_bytes)
    return ED25519_PREFIX + _base64(random_bytes + public), PUBLIC_PREFIX + _base64(public)


def public_keys(targets: Iterable[TargetSettings]) -> dict[str, list[str]]:
    """The public keys of every target that signs with ed25519, the current one first: name -> `whpk_` keys.

    Raises:
        SecretUnreadable: a secret's file cannot be read now.
    """
    found = {target.name: _public_keys_of(target) for target in targets}
    return {name: keys for name, keys in found.items() if keys}


def _public_keys_of(target: TargetSettings) -> list[str]:
    keys = (signing_key(secret.reveal()) for secret in target.secrets)
    return [PUBLIC_PREFIX + _base64(key[SEED_BYTES:]) for prefix, key in keys if prefix == ED25519_PREFIX]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
