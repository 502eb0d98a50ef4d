"""What an error of SQLite means and what to do about it."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from relay.errors import RelayError, StoreBroken

OWN_FAULT: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
"""What the driver raises when the request itself was wrong; all else says that the file or the disk is."""

_ADVICE: Final[Mapping[tuple[str, ...], str]] = {
    ("SQLITE_NOTADB",): "the file is damaged or no SQLite database; restore a back-up, see docs/operations.md",
    ("SQLITE_CORRUPT",): (  # SQLite's name for a failed read, too
        "what was read is damaged; run `houdini-relay store check`: if it finds nothing the disk failed to read, "
        "otherwise restore a back-up, see docs/operations.md"
    ),
    ("SQLITE_FULL",): "the disk is full; free some room and start again",
    ("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM"): (
        "it cannot be opened for writing; check the path, its folder and who owns them"
    ),
    ("SQLITE_BUSY", "SQLITE_LOCKED"): (
        "another program has it open without asking for its lock; end that program and start again"
    ),
}
"""First words of SQLite's name of an error -> what to do."""
_UNKNOWN: Final = (
    "what was written is unknown until it is opened again; start again, and check the disk if it comes back"
)


def explain(error: BaseException, path: Path) -> BaseException:
    """A driver's error as a sentence that says what to do; ours pass."""
    if isinstance(error, RelayError) or not isinstance(error, Exception):
        return error
    name = getattr(error, "sqlite_errorname", "")
    advice = next((advice for names, advice in _ADVICE.items() if name.startswith(names)), _UNKNOWN)
    return StoreBroken(f"store {path}: {error} ({name or type(error).__name__}): {advice}")
