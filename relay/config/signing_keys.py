"""What a webhook signing secret looks like: a prefix that names its scheme, and the key in base64.

The configuration and the signer read secrets here, so that what is accepted is what can sign.
"""

import base64
import binascii
from typing import Final

HMAC_PREFIX: Final = "whsec_"
ED25519_PREFIX: Final = "whsk_"
HMAC_KEY_BYTES: Final = range(24, 65)
SEED_BYTES: Final = 32
"""Bytes of an ed25519 seed; the secret holds it with the public key of the same size behind it."""


def signing_key(secret: str) -> tuple[str, bytes]:
    """The prefix and the key of a signing secret.

    Raises:
        ValueError: it is not one; the message says why and never holds it.
    """
    if secret.startswith(HMAC_PREFIX):
        key = _decoded(secret.removeprefix(HMAC_PREFIX))
        if len(key) not in HMAC_KEY_BYTES:
            raise ValueError("it must hold 24 to 64 bytes; houdini-relay secret new makes a good one")
        return HMAC_PREFIX, key
    if secret.startswith(ED25519_PREFIX):
        return ED25519_PREFIX, _ed25519_key(_decoded(secret.removeprefix(ED25519_PREFIX)))
    raise ValueError("a signing secret begins with whsec_; houdini-relay secret new makes one")


def signing_secret_fault(text: str) -> str | None:
    """For a target's signing secret: Standard Webhooks' `whsec_` (HMAC) or `whsk_` (ed25519)."""
    try:
        signing_key(text)
    except ValueError as error:
        return str(error)
    return None


def public_half(seed: bytes) -> bytes:
    """The ed25519 public key of this seed."""
    # Loading the library takes a while, and few configurations hold such a key.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _ed25519_key(key: bytes) -> bytes:
    if len(key) != 2 * SEED_BYTES:
        raise ValueError("it must hold 64 bytes, seed and public key; houdini-relay secret new --ed25519 makes one")
    if public_half(key[:SEED_BYTES]) != key[SEED_BYTES:]:
        raise ValueError("its two halves, seed and public key, do not belong together; it was damaged on its way here")
    return key


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii", "replace"), validate=True)
    except binascii.Error:
        pass
    # Raised outside the handler: base64's own error could quote what it choked on.
    raise ValueError("what follows the prefix is not base64; houdini-relay secret new makes a good one")
