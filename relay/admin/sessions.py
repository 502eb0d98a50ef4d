"""Who is signed in to the dashboard, and the secret that its forms carry. In memory only; pure but for new ids."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

COOKIE: Final = "houdini_relay_session"
LIFETIME: Final = 12 * 3600.0
"""Seconds after signing in."""
MOST_SESSIONS: Final = 100
"""Beyond it the oldest one ends."""
_ID_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Session:
    ends_at: float
    token_digest: bytes


class Sessions:
    """Browsers by the random id in their cookie, which is kept as a digest; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._signed_in: OrderedDict[bytes, _Session] = OrderedDict()
        self._key = secrets.token_bytes(_ID_BYTES)

    def new_id(self) -> str:
        """An id that nobody can guess."""
        return secrets.token_urlsafe(_ID_BYTES)

    def sign_in(self, token: str, now: float) -> str:
        """A new id for somebody who has shown the token."""
        while len(self._signed_in) >= MOST_SESSIONS:
            self._signed_in.popitem(last=False)
        browser = self.new_id()
        self._signed_in[self._digest("id", browser)] = _Session(now + LIFETIME, self._digest("token", token))
        return browser

    def is_signed_in(self, browser: str, token: str, now: float) -> bool:
        """Whether this id was signed in with the token as it is now: another token signs everybody out."""
        # What is looked up is a keyed digest, so the time it takes tells nothing about any id.
        found = self._signed_in.get(self._digest("id", browser))
        if found is None or now >= found.ends_at:
            return False
        return hmac.compare_digest(found.token_digest, self._digest("token", token))

    def sign_out(self, browser: str) -> None:
        """Forget this id."""
        self._signed_in.pop(self._digest("id", browser), None)

    def form_secret(self, browser: str) -> str:
        """What the forms of this browser's pages must carry (against requests forged by other pages)."""
        return self._digest("form", browser).hex()

    def fits(self, browser: str, given: str) -> bool:
        """Whether a form came from a page that was made for this browser."""
        return hmac.compare_digest(self.form_secret(browser).encode(), given.encode("utf-8", "surrogatepass"))

    def _digest(self, purpose: str, text: str) -> bytes:
        message = f"{purpose}:{text}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).digest()
