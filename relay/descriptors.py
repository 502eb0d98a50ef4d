"""File descriptors: every attempt under way holds one, and a process that runs out of them can do nothing at all."""

import resource
from typing import Final

RESERVE: Final = 256
"""For everything but attempts: store, upstream, admin server and its clients, look-ups, certificates being read."""


def raise_limit() -> int | None:
    """Raise this process's soft limit of open files to its hard one; returns what holds now, None for no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # Some systems name a hard limit that they do not grant; what there is stays.
        return _or_none(soft)
    return _or_none(hard)


def shortage(limit: int | None, attempts: int) -> int:
    """How many descriptors are missing, 0 if none, when so many attempts may be under way at once."""
    return 0 if limit is None else max(0, attempts + RESERVE - limit)


def _or_none(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit
