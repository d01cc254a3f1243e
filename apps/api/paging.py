"""Pages of lists: `?limit=` rows after the row that the cursor `?after=` names. No counts, no offsets."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from gridclient.wire.errors import InvalidInputError

DEFAULT, MOST = 500, 1000


def page(
    request: Request,
    rows: QuerySet[Any],
    show: Callable[[list[Any]], list[dict[str, Any]]],
    *,
    by: str = "created",
    newest_first: bool = True,
) -> Response:
    """`{"results": [...], "next": cursor or null}`, ordered by the time `by` and the primary key.

    `show` makes JSON of the rows of a page.
    """
    limit = size(request)
    after = request.query_params.get("after")
    if after:
        stamp, key = _read(after, rows.model)
        beyond = "lt" if newest_first else "gt"
        rows = rows.filter(Q(**{f"{by}__{beyond}": stamp}) | Q(**{by: stamp, f"pk__{beyond}": key}))
    sign = "-" if newest_first else ""
    found = list(rows.order_by(f"{sign}{by}", f"{sign}pk")[: limit + 1])
    more = len(found) > limit
    found = found[:limit]
    return Response({"results": show(found), "next": _cursor(found[-1], by) if more else None})


def each(show: Callable[[Any], dict[str, Any]]) -> Callable[[list[Any]], list[dict[str, Any]]]:
    """A page is its rows, one by one."""
    return lambda rows: [show(row) for row in rows]


def size(request: Request, *, default: int = DEFAULT, most: int = MOST) -> int:
    """`?limit=`, checked."""
    text = request.query_params.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= most:
        raise InvalidInputError(f"limit is a whole number from 1 to {most}.", field="limit")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """`?name=1` or `?name=0`, which is the default."""
    text = request.query_params.get(name, "0")
    if text not in ("0", "1"):
        raise InvalidInputError(f"{name} is 0 or 1.", field=name)
    return text == "1"


def _cursor(row: Model, by: str) -> str:
    return urlsafe_b64encode(f"{getattr(row, by).isoformat()} {row.pk}".encode()).decode()


def _read(cursor: str, model: type[Model]) -> tuple[datetime, Any]:
    try:
        stamp, key = urlsafe_b64decode(cursor.encode()).decode().split(" ")
        moment = datetime.fromisoformat(stamp)
        if moment.tzinfo is None:
            raise ValueError
        return moment, model._meta.pk.to_python(key)
    except (ValueError, ValidationError):
        raise InvalidInputError("after is the 'next' of an earlier page.", field="after") from None
