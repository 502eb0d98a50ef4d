"""Why an attempt got no usable answer, and how that is told. Pure.

No sentence ever quotes what was sent or received: a receiver that echoes would put our URL and headers into it.
"""

import os
import ssl
from typing import Final

from relay.model import FailureKind

ERROR_CAP: Final = 512
"""Bytes of an attempt's error text."""

_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's verify codes for certificates that no trusted authority stands behind."""

_TLS_SENTENCES: Final = {
    "WRONG_VERSION_NUMBER": "that port does not speak TLS",
    "HTTP_REQUEST": "that port does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "that port does not speak TLS",
    "UNSUPPORTED_PROTOCOL": "only TLS older than 1.2 is offered there",
    "TLSV1_ALERT_PROTOCOL_VERSION": "only TLS older than 1.2 is offered there",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "a client certificate is asked for; set tls.cert_file and tls.key_file",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the handshake was refused (a client certificate asked for, or no common cipher)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "our client certificate was refused",
    "TLSV1_ALERT_UNKNOWN_CA": "our client certificate was refused (its authority is not known there)",
    "TLSV1_UNRECOGNIZED_NAME": "the server does not know the URL's host name",
}


class AttemptFailed(Exception):
    """Raised inside an attempt by whatever ends it without an answer; the sender makes an `Attempt` of it."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def error_text(kind: FailureKind, detail: str) -> str:
    """`kind: detail`, printable and bounded."""
    return printable(f"{kind}: {detail}", ERROR_CAP)


def printable(text: str, cap: int) -> str:
    """The text with everything that is not printable escaped, at most `cap` bytes of it in UTF-8."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text.encode()[:cap].decode(errors="ignore")


def os_words(failure: BaseException) -> str:
    """What the operating system calls this failure."""
    number = getattr(failure, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    # getaddrinfo numbers its errors below zero and words them itself.
    return getattr(failure, "strerror", None) or type(failure).__name__


def tls_words(failure: BaseException) -> str:
    """What went wrong with TLS, and what to do about it where that is known."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        words = f"certificate refused, {failure.verify_message}"
        return f"{words}; name its authority in tls.ca_file" if failure.verify_code in _UNKNOWN_AUTHORITY else words
    if isinstance(failure, ssl.SSLError) and failure.reason:
        return _TLS_SENTENCES.get(failure.reason, failure.reason.lower().replace("_", " "))
    if isinstance(failure, ConnectionError):
        return "connection closed during the handshake"
    return os_words(failure)


def lost(failure: BaseException | None, *, answer_began: bool) -> AttemptFailed:
    """A connection that broke after a request was written, and before the head of its answer was complete."""
    if isinstance(failure, ssl.SSLError):
        return AttemptFailed(FailureKind.TLS, tls_words(failure))
    where = "in the middle of the answer's head" if answer_began else "before an answer"
    what = f"connection closed {where}" if failure is None else os_words(failure)
    return AttemptFailed(FailureKind.RESET, f"{what}; the request may have been processed")
