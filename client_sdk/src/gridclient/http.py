"""Management over REST: JSON in and out, errors as the same classes that the wire uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from gridclient.websocket import LOOPBACK, nobody, stranger
from gridclient.wire.errors import ConnectionLostError, GridError, InvalidInputError, from_code

TIMEOUT = 30.0
PAGE = 500


class Http:
    """The REST interface of one deployment. Thread-safe; follows no redirect, so a token goes where it was meant."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = checked_url(url)
        self.token = token
        self._client = httpx.Client(
            base_url=f"{self.url}/api/",
            timeout=TIMEOUT,
            follow_redirects=False,
            trust_env=urlsplit(self.url).hostname not in LOOPBACK,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def __repr__(self) -> str:
        return f"<Http {self.url}>"

    def get(self, path: str, **params: Any) -> Any:
        """GET; parameters that are None are left out, lists are repeated."""
        return self.call("GET", path, params={name: value for name, value in params.items() if value is not None})

    def pages(self, path: str, *, most: int | None = None, **params: Any) -> list[Any]:
        """The rows of a list, page after page, up to `most` of them."""
        return self.some(path, most=most, **params)[0]

    def some(self, path: str, *, most: int | None, **params: Any) -> tuple[list[Any], bool]:
        """The rows of a list, up to `most` of them, and whether there are more."""
        pages = list(self._page_by_page(path, most, params))
        return [row for found, _ in pages for row in found], pages[-1][1]

    def rows(self, path: str, **params: Any) -> Iterator[Any]:
        """The rows of a list, one by one: a page is asked for when its first row is."""
        for found, _ in self._page_by_page(path, None, params):
            yield from found

    def _page_by_page(self, path: str, most: int | None, params: dict[str, Any]) -> Iterator[tuple[list[Any], bool]]:
        """Pages, up to `most` rows, each with whether there are more."""
        after, taken = None, 0
        while True:
            left = PAGE if most is None else min(PAGE, most - taken)
            found = self.get(path, **params, limit=left, after=after)
            after, taken = found.get("next"), taken + len(found["results"])
            yield found["results"], after is not None
            if after is None or (most is not None and taken >= most):
                return

    def post(self, path: str, **body: Any) -> Any:
        return self.call("POST", path, json=body)

    def patch(self, path: str, **body: Any) -> Any:
        return self.call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One call: the decoded JSON, or None when the answer has no body. Raises GridError."""
        if self._client.is_closed:
            raise ConnectionLostError("This connection was closed; connect again.")
        try:
            response = self._client.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise ConnectionLostError(f"{self.url} did not answer within {TIMEOUT:g} seconds. Try again.") from error
        except httpx.RemoteProtocolError as error:
            raise stranger(self.url) from error
        except httpx.TransportError as error:
            raise nobody(self.url) from error
        body = self._json(response)
        if response.is_success:
            return body
        raise self._error(response, body)

    def close(self) -> None:
        self._client.close()

    def _json(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            if response.status_code in (502, 503, 504):
                raise nobody(self.url) from None
            raise stranger(self.url) from None

    def _error(self, response: httpx.Response, body: Any) -> GridError:
        match body:
            case {"error": {"code": str() as code, "message": str() as message, **rest}}:
                details = rest.get("details")
                return from_code(code, message, details if isinstance(details, dict) else {})
        return stranger(self.url)


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises InvalidInputError for what is no http(s) address."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, AttributeError):
        known = False
    if not known or parts.query or parts.fragment or parts.username:
        raise InvalidInputError(
            f"url={url!r} is no address; write it like https://hospital.example or http://127.0.0.1:8001."
        )
    return url.rstrip("/")
