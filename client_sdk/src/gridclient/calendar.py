"""Dates as the numbers that a table computes with: days since 1970-01-01."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from gridclient.wire.errors import InvalidInputError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def days(moment: date | datetime | str) -> float:
    """Days since 1970-01-01 of a date, of a time (a fraction of a day; without a zone it is UTC), or of ISO 8601 text.

    `t["born"] >= grid.days("1990-01-01")`. Raises InvalidInputError for what is no date.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise InvalidInputError("A date is written like '1990-01-31'.") from None
    if not isinstance(moment, date):
        raise InvalidInputError(f"A date, a time or a text like '1990-01-31', not {type(moment).__name__}.")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return since / timedelta(days=1)


def date_of(number: float) -> date:
    """The date that a number of days since 1970-01-01 lies in.

    Raises InvalidInputError where there is none: outside of the years 1 to 9999, and for NaN.
    """
    try:
        return date(1970, 1, 1) + timedelta(days=int(number // 1))
    except (OverflowError, ValueError):
        raise InvalidInputError(
            f"{number} days since 1970-01-01 is no date; dates are in the years 1 to 9999."
        ) from None
