"""A database's URL as it may be shown. Pure, and without the driver."""

from urllib.parse import urlsplit


def shown(url: str) -> str:
    """A database's URL without anything secret: user, host, port and name."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        user = f"{parts.username}@" if parts.username else ""
    except ValueError:
        return "postgresql://(unreadable)"
    return f"postgresql://{user}{host}{parts.path}"
