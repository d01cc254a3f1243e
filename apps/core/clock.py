"""The time, in one place: domain verbs take `now` as an argument and default to this."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)
