"""What PostgreSQL's errors mean: an outage, damage, or a fault of the request. Sentences for the operator. Pure."""

import ssl
from typing import Final

import asyncpg

from relay.errors import RelayError, StoreBroken, StoreError, StoreUnavailable

_UNAVAILABLE: Final[dict[str, str]] = {
    "08": "the connection was lost",
    "25006": "it only reads: a standby, or a full one; the URL has to lead to the primary",
    "25P03": "it was waited for too long inside a transaction",
    "28": "it refuses this user or password",
    "3D000": "there is no such database",
    "40": "it rolled the transaction back",
    "42501": "this user may not do that; docs/scaling.md says which rights it needs",
    "53": "it has run out of connections, memory or disk",
    "55P03": "somebody held a lock for too long",
    "57014": "it did not answer in time",
    "57": "it shuts down, starts up or was told to end the connection",
    "58": "its machine failed it",
}
"""First characters of an SQLSTATE -> what that says of the database; nothing is wrong with what it holds."""
_OWN_FAULT: Final = ("22", "23")


def is_own_fault(error: BaseException) -> bool:
    """Whether the request itself was wrong, so that the database, and every other request, is well."""
    return isinstance(error, asyncpg.PostgresError) and _state(error).startswith(_OWN_FAULT)


def explain(error: BaseException, where: str) -> BaseException:
    """A driver's error as a sentence; ours, and those that the request itself is to blame for, pass.

    Args:
        where: the database as it may be shown.
    """
    if isinstance(error, RelayError) or is_own_fault(error):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _explain_state(error, where)
    if isinstance(error, ssl.SSLError):
        return StoreUnavailable(f"store {where}: {_explain_tls(error)}")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"store {where}: it did not answer in time")
    if isinstance(error, FileNotFoundError):
        return StoreUnavailable(
            f"store {where}: there is no such file: its socket, or what sslrootcert, sslcert or sslkey names"
        )
    if isinstance(error, OSError):
        return StoreUnavailable(f"store {where}: it cannot be reached: {error.strerror or error}")
    if isinstance(error, (asyncpg.ClientConfigurationError, asyncpg.TargetServerAttributeNotMatched)):
        return StoreUnavailable(f"store {where}: no server could be connected to as its URL says ({_kind(error)})")
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return StoreUnavailable(f"store {where}: the connection was lost")
    return error


def _explain_state(error: asyncpg.PostgresError, where: str) -> StoreError:
    state = _state(error)
    for length in (5, 2):
        if state[:length] in _UNAVAILABLE:
            return StoreUnavailable(f"store {where}: {_UNAVAILABLE[state[:length]]} ({_kind(error)})")
    if state.startswith("XX"):
        return StoreBroken(f"store {where}: what it holds is damaged ({_kind(error)}: {error.args[0]})")
    return StoreError(f"store {where}: {error.args[0] if error.args else state} ({_kind(error)})")


def _explain_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}; see sslrootcert and sslmode in its URL"
    return f"TLS with it failed: {error.reason or error}"


def _state(error: asyncpg.PostgresError) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _kind(error: BaseException) -> str:
    return type(error).__name__
