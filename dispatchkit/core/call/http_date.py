"""Parse the header fields about time: ``Date`` and ``Age``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["ages", "http_date", "response_date"]

_MAX_LENGTH = 100
"""Maximum length of a date. A longer text is no date, and slow to parse."""
_FIRST_YEAR, _LAST_YEAR = 1900, 9000
_SECONDS = re.compile(r"[0-9]{1,9}")


def http_date(text: str) -> datetime | None:
    """Parse an HTTP date; None if it is none. A date without a zone is UTC."""
    try:
        moment = parsedate_to_datetime(text) if len(text) <= _MAX_LENGTH else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def response_date(headers: Mapping[str, str]) -> datetime | None:
    """The ``Date`` of a response; None if it is absent, or so extreme that arithmetic with it would overflow."""
    moment = http_date(headers.get("Date", ""))
    return moment if moment is not None and _FIRST_YEAR < moment.year < _LAST_YEAR else None


def ages(headers: Mapping[str, str]) -> list[float]:
    """The seconds of every ``Age`` header: infinite for an unreadable value, an empty list without a header."""
    text = headers.get("Age")
    if text is None:
        return []
    getall = getattr(headers, "getall", None)
    texts: list[str] = [text] if getall is None else getall("Age")
    values = (part.strip() for part in ",".join(texts).split(","))
    return [float(value) if _SECONDS.fullmatch(value) else math.inf for value in values]
