"""Management over REST: JSON in and out, errors as the same classes that the wire uses.

A call that finds nobody where somebody was is made again for a few seconds. One that changes something carries a key,
so that the deployment does nothing twice and gives its first answer again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from gridclient import settings
from gridclient.backoff import pauses
from gridclient.websocket import LOOPBACK, nobody, stranger
from gridclient.wire.errors import ConnectionLostError, GridError, InvalidInputError, from_code

TIMEOUT = 30.0
PAGE = 500
PATIENCE = 15.0
"""Most seconds for which a call is made again."""


class _NobodyError(Exception):
    """Nobody answers, now."""


class Http:
    """The REST interface of one deployment. Thread-safe; follows no redirect, so a token goes where it was meant."""

    def __init__(self, url: str, token: str = "", *, met: bool = False) -> None:
        """`met`: the deployment has answered before. Nobody at a new address is told at once."""
        self.url = checked_url(url)
        self.token = token
        self._met = met
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

    def once(self, method: str, path: str, **body: Any) -> Any:
        """A call that is tried once: the deployment keeps no reply that holds a secret, so none is repeated."""
        try:
            return self._once(method, path, json=body)
        except _NobodyError as error:
            raise nobody(self.url) from error.__cause__

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One call: the decoded JSON, or None when the answer has no body. Raises GridError.

        Where nobody answers it is tried again, under the same key: nothing is done twice.
        """
        headers = {} if method == "GET" else {"Idempotency-Key": new_key()}
        until = time.monotonic() + min(settings.reconnect_for, PATIENCE)
        waits = pauses()  # the first is none, for a connection that was kept open and has ended meanwhile
        while True:
            try:
                return self._once(method, path, headers=headers, **options)
            except _NobodyError as error:
                pause = next(waits)
                if not self._met or time.monotonic() + pause >= until:
                    raise nobody(self.url) from error.__cause__
            time.sleep(pause)

    def sign_out(self) -> None:
        """End the token. Tried once: it would expire by itself, and the deployment may be gone already."""
        try:
            self._once("POST", "sign-out/", timeout=2.0)
        except _NobodyError:
            raise nobody(self.url) from None

    def _once(self, method: str, path: str, **options: Any) -> Any:
        if self._client.is_closed:
            raise ConnectionLostError("This connection was closed; connect again.")
        try:
            response = self._client.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise ConnectionLostError(f"{self.url} did not answer within {TIMEOUT:g} seconds. Try again.") from error
        except httpx.RemoteProtocolError as error:
            # Somebody hung up, or speaks something else than HTTP.
            raise _NobodyError if self._met else stranger(self.url) from error
        except httpx.TransportError as error:
            raise _NobodyError from error
        body = self._json(response)
        self._met = True
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
                raise _NobodyError from None
            raise stranger(self.url) from None

    def _error(self, response: httpx.Response, body: Any) -> GridError:
        match body:
            case {"error": {"code": str() as code, "message": str() as message, **rest}}:
                details = rest.get("details")
                return from_code(code, message, details if isinstance(details, dict) else {})
        return stranger(self.url)


def new_key() -> str:
    """Names something that should happen once, however often it is asked for."""
    return secrets.token_hex(16)


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
