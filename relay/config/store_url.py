"""`store.url`: what a good one looks like, how it may be shown, and what of it is secret. Pure."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote, unquote_plus, urlsplit

from relay.config.leaves import Leaf, Reading
from relay.config.secret_leaves import peek, secret_value
from relay.errors import SecretUnreadable
from relay.secret import Secret

_SHARED: Final = "postgresql://"
_SQLITE: Final = re.compile(r"sqlite:///[^\x00-\x1f\x7f?#]*[^\x00-\x1f\x7f?#/]")
_PORT: Final = re.compile(r"(?:\[[^\]@]*\]|[^:@\[\]]*)(?::[0-9]{0,5})?")
_SECRET_PARAMETERS: Final = frozenset({"password", "sslpassword"})
_UNREADABLE: Final = "postgresql://(unreadable)"


class StoreUrl(Secret):
    """Where the store is. Read once for what that means; `reveal()` reads it anew, for another password."""

    __slots__ = ("_known", "_why")

    def __init__(self, read: Callable[[], str], where: str = "value") -> None:
        super().__init__(read, where)
        self._known: str | None = None
        self._why = ""
        try:
            self._known = read()
        except SecretUnreadable as error:
            self._why = str(error)

    @property
    def known(self) -> str:
        """The URL as it was read first.

        Raises:
            SecretUnreadable: it could not be.
        """
        if self._known is None:
            raise SecretUnreadable(self._why)
        return self._known

    def __str__(self) -> str:
        return "[unreadable]" if self._known is None else shown_store_url(self._known)


def store_url() -> Leaf:
    """A store's URL: the value, or where it is read from; shown without its password."""
    leaf = secret_value(store_url_fault)

    def read(value: object, reading: Reading) -> StoreUrl:
        found: Any = leaf.read(value, reading)
        return StoreUrl(found.reveal, found.where)

    return Leaf("a store's URL (secret where it has a password)", read, shape=leaf.shape)


def is_shared(url: str) -> bool:
    """Whether several instances may use the store at once."""
    return url.startswith(_SHARED)


def store_url_fault(url: str) -> str | None:
    """What is wrong with it, or None."""
    if is_shared(url):
        return _postgres_fault(url)
    if _SQLITE.fullmatch(url) and not url.endswith(":memory:"):
        return None
    return (
        "write sqlite:///file.db (relative to the working directory), sqlite:////var/lib/houdini-relay/file.db "
        "or postgresql://user@host/name"
    )


def shown_store_url(url: str) -> str:
    """The URL without anything secret: of a database user, host, port and name."""
    if not is_shared(url):
        return url
    if _postgres_fault(url) is not None:
        return _UNREADABLE
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return f"{_SHARED}{user}{parts.netloc.rpartition('@')[2]}{parts.path}"


def passwords(url: Secret) -> Iterator[Secret]:
    """What of the URL must never be shown, as it is written and as it is meant."""
    text = peek(url)
    if text is None or not is_shared(text):
        return
    parts = urlsplit(text)
    parameters = (one.partition("=")[::2] for one in parts.query.split("&"))
    found = [parts.password or "", *(value for name, value in parameters if name in _SECRET_PARAMETERS)]
    for one in found:
        yield from map(Secret.of, (one, unquote(one), unquote_plus(one)))


def _postgres_fault(url: str) -> str | None:
    """Above all what a password does to a URL that holds it as it is: a part of it would pass for the host."""
    if re.search(r"[\x00-\x20\x7f]", url):
        return "it has a space or a control character; write those as %20 and the like"
    advice = "in a password write % as %25, / as %2F, ? as %3F, # as %23, @ as %40 and [ as %5B"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"it cannot be understood as a URL; {advice}"
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if "@" in parts.path or "@" in parts.query or parts.fragment or not all(map(_PORT.fullmatch, hosts)):
        return f"it cannot be understood as a URL: a port is a number; {advice}"
    return None
