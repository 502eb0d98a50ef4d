"""Times and sizes as people read them, on a terminal and on a page. Pure."""

from datetime import UTC, datetime


def span(seconds: float) -> str:
    """How long, in the two largest units: `3 s`, `2 min 5 s`, `1 d 4 h`."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    for unit, size, below, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // small
            return f"{left // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{left} s"


def about(seconds: float) -> str:
    """How long, in the largest unit alone: `3 s`, `2 min`, `1 d`."""
    return " ".join(span(seconds).split()[:2])


def when(moment: str | None, now_ms: int) -> str:
    """`3 min ago`, `in 5 s`, or `-` for what has not happened."""
    if moment is None:
        return "-"
    seconds = now_ms / 1000 - instant(moment).timestamp()
    return f"{about(seconds)} ago" if seconds >= 0 else f"in {about(-seconds)}"


def exactly(moment: str | None, now_ms: int) -> str:
    """`2026-11-22 07:04:50 UTC (3 min ago)`, or `-` for what has not happened."""
    return "-" if moment is None else f"{day_and_time(moment)} UTC ({when(moment, now_ms)})"


def ago(moment: str | None, now: str) -> str | None:
    """How long before `now` this was, None when it never was (both ISO 8601)."""
    if moment is None:
        return None
    return span((instant(now) - instant(moment)).total_seconds())


def day_and_time(moment: str) -> str:
    """`2026-11-22 07:04:50` (UTC)."""
    return f"{instant(moment):%Y-%m-%d %H:%M:%S}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def instant(moment: str) -> datetime:
    """A moment as it stands in a document."""
    parsed = datetime.fromisoformat(moment)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
