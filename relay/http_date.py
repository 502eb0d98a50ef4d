"""Dates in HTTP headers. Pure."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 64
"""Characters of a header beyond which it is taken for no date, however it goes on."""


def http_date_ms(text: str | None) -> int | None:
    """Any of HTTP's three date forms (IMF-fixdate, RFC 850, asctime) as milliseconds since the epoch.

    None when it is absent or no date.
    """
    if text is None or len(text) > LONGEST:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
