"""A person at HTTP doors, who keeps all that they hear."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request

from tests.factories.staff import PASSWORD


class Doors:
    """A person at HTTP doors: with a token at the API, with a cookie in the console."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[bytes] = []
        self.jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def call(self, method: str, path: str, data: bytes | None = None, /, **headers: str) -> tuple[int, str]:
        """One call; status and text. Redirects are followed, and every answer is heard."""
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method, headers=headers)
        try:
            with self._opener.open(request, timeout=30) as response:
                status, head, body = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, head, body = error.code, error.headers, error.read()
        self.heard += [str(head).encode(), body]
        return status, body.decode(errors="replace")

    def sign_in(self, name: str) -> None:
        """Open the console's session."""
        _, page = self.call("GET", "/admin/login/")
        (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page))
        form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": token, "next": "/admin/"}
        self.call("POST", "/admin/login/", urllib.parse.urlencode(form).encode(), Referer=f"{self.url}/admin/login/")
