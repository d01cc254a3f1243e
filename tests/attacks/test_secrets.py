"""Attack 7: tokens, keys and password hashes, wherever the node writes or says something; and tokens after their end.

What a user would lose: their account, to whoever may read a page, a log or an export.
"""

from __future__ import annotations

import http.cookiejar
import json
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.wire import messages as m
from gridclient.wire.errors import AuthenticationError, GridError
from tests.attacks.conftest import Private
from tests.attacks.ward import PASSWORD, ROLES, Ward
from tests.factories import databases
from tests.factories.raw import RawClient, rest, sign_in

PAGES = 50
PEOPLE = [*ROLES, "administrator"]


def canaries(ward: Ward) -> dict[str, str]:
    """Texts that must be nowhere: secrets of tokens and their digests, passwords and hashes, the node's keys."""
    found = {f"token of {person}": token[13:] for person, token in ward.tokens.items()}
    found |= {f"password of {person}": PASSWORD.format(person) for person in ROLES}
    found["password of administrator"] = ward.server.password
    with databases.opened(ward.folder) as cursor:
        cursor.execute("select password from accounts_user where password != ''")
        found |= {f"hash {hashed[-8:]}": hashed.rpartition("$")[2] for (hashed,) in cursor.fetchall()}
        cursor.execute("select digest from accounts_accesstoken")
        found |= {f"digest {digest[:8]}": str(digest) for (digest,) in cursor.fetchall()}
    for path in (ward.folder / "keys").rglob("*"):
        if path.is_file() and "head" not in path.name:
            data = path.read_bytes()
            text = data.decode("ascii", "ignore").strip()
            body = [line for line in text.splitlines() if not line.startswith("-----") and len(line) >= 32]
            found |= {f"key {path.name} {number}": line for number, line in enumerate(body)}
            found[f"key {path.name}, hex"] = data.strip().hex()
    return {name: text for name, text in found.items() if len(text) >= 12}


def check_clean(text: str, secrets: dict[str, str], where: str) -> None:
    for name, secret in secrets.items():
        assert secret not in text, f"{name} is in {where}"


@pytest.fixture(scope="module")
def busy(ward: Ward, births: Private) -> list[str]:
    """Something of everything to look at: requests in several states, tokens, refusals, an error; ids of requests."""
    client = ward.client("scientist")
    row = client.node("aten::select.int", client.asset(births.dataset), 0, 1)
    made = [client.request(row, "A study.") for _ in range(2)]
    ward.call("owner", "POST", f"requests/{made[0]}/deny/", {"reason": "No."})
    for person in ("owner", "scientist"):
        assert ward.call(person, "POST", "tokens/", {"name": "laptop"})[0] == 201
    rest("POST", f"{ward.url}/api/sign-in/", {"username": "attack-scientist", "password": "not the one, but a secret"})
    rest("GET", f"{ward.url}/api/me/", token="grd_aaaaaaaa_" + "z" * 43)
    rest(
        "POST",
        f"{ward.url}/api/users/",
        {"username": ["not"], "password": "typed-into-the-wrong-body"},
        token=ward.tokens["owner"],
    )
    return made


def test_no_answer_of_the_interface_shows_a_secret(ward: Ward, births: Private, busy: list[str]) -> None:
    secrets = canaries(ward)
    assert len(secrets) > 25
    slug = births.dataset["slug"]
    paths = [
        "identity/",
        "me/",
        "users/",
        "teams/",
        "tokens/",
        "datasets/",
        f"datasets/{slug}/",
        f"datasets/{slug}/grants/",
        "requests/",
        *(f"requests/{number}/" for number in busy),
        "audit/",
        "audit/?limit=100",
        "audit/verify/",
        "membership/",
        *(f"users/attack-{person}/" for person in ROLES),
        "nodes/",
        "search/",
        "search/facets/",
        "search/suggest/?prefix=%23",
        "search/suggest/?prefix=a",
        "nonsense/",
        "datasets/?q=%23attacked",
    ]
    for person in [None, *PEOPLE]:
        for path in paths:
            _, body = ward.call(person, "GET", path)
            check_clean(json.dumps(body), secrets, f"/api/{path} for {person}")


class Browser:
    """Pages of the console with a cookie, as one person."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.page("/admin/login/")
        token = next(cookie.value for cookie in self.jar if "csrf" in cookie.name)
        form = {"username": username, "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        self.page("/admin/login/", urllib.parse.urlencode(form).encode())

    def page(self, path: str, data: bytes | None = None) -> str:
        request = urllib.request.Request(self.url + path, data, {"Referer": self.url + path})
        try:
            with self.opener.open(request, timeout=20) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            return str(error.read().decode("utf-8", "replace"))

    def walk(self) -> Iterator[tuple[str, str]]:
        """Every page that links lead to, up to a number."""
        todo, seen = ["/admin/"], {"/admin/"}
        while todo:
            path = todo.pop(0)
            text = self.page(path)
            yield path, text
            for link in re.findall(r'href="([^"#]+)"', text):
                target = urllib.parse.urlsplit(urllib.parse.urljoin(self.url + path, link.replace("&amp;", "&")))
                here, there = target.netloc == urllib.parse.urlsplit(self.url).netloc, target.path
                # Orders and filters of a list show the same rows again.
                shows = there.startswith("/admin/") and "logout" not in there and not target.query
                if here and shows and there not in seen and len(seen) < PAGES:
                    seen.add(there)
                    todo.append(there)


@pytest.mark.parametrize("person", ["administrator", "auditor", "owner", "reviewer"])
def test_no_page_of_the_console_shows_a_secret_or_a_value(
    ward: Ward, births: Private, busy: list[str], person: str
) -> None:
    secrets = canaries(ward)
    name, password = (
        (ward.server.username, ward.server.password)
        if person == "administrator"
        else (f"attack-{person}", PASSWORD.format(person))
    )
    browser = Browser(ward.url, name, password)
    cookies = {f"cookie {cookie.name}": cookie.value or "" for cookie in browser.jar if "csrf" not in cookie.name}
    pages = 0
    for path, text in browser.walk():
        check_clean(text, secrets | cookies, f"{path} for {person}")
        assert "Traceback" not in text and "argon2" not in text, path
        for value in births.values.reshape(-1):
            assert f"{value:.6f}"[:-1] not in text, path
        pages += 1
    assert pages > 5, "the console could not be read"


def test_no_log_holds_a_secret_or_a_value(ward: Ward, births: Private, busy: list[str]) -> None:
    secrets = canaries(ward)
    secrets |= {"typed password": "not the one, but a secret", "wrong body": "typed-into-the-wrong-body"}
    logs = [path for path in ward.folder.parent.rglob("*") if path.suffix == ".log" and path.is_file()]
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        check_clean(text, secrets, path.name)
        assert "Bearer" not in text and "grd_" not in text
        for value in births.values.reshape(-1):
            assert repr(float(value))[:12] not in text


def test_the_database_keeps_digests_and_no_tokens_or_passwords(ward: Ward, births: Private) -> None:
    data = databases.content(ward.folder)
    for person, token in ward.tokens.items():
        assert token[13:].encode() not in data, person
        assert person == "administrator" or PASSWORD.format(person).encode() not in data
    for row in births.values:
        assert row.tobytes() not in data


# --- tokens after their end -------------------------------------------------------------------------------------


def leaver(ward: Ward, name: str) -> tuple[str, str]:
    """A fresh account and its token."""
    account = {"username": f"attack-{name}", "password": "ends-quite-soon-1"}
    status, body = ward.call("administrator", "POST", "users/", {**account, "roles": ["scientist"]})
    assert status == 201, body
    return account["username"], sign_in(ward.url, **account)


ENDS: dict[str, Callable[[Ward, str, str], tuple[int, Any]]] = {
    "signed out": lambda w, _, token: rest("POST", f"{w.url}/api/sign-out/", {}, token=token),
    "revoked by the user": lambda w, _, token: rest("DELETE", f"{w.url}/api/tokens/{token[4:12]}/", token=token),
    "revoked by an administrator": lambda w, _, token: w.call("administrator", "DELETE", f"tokens/{token[4:12]}/"),
    "account deactivated": lambda w, name, _: w.call("administrator", "PATCH", f"users/{name}/", {"active": False}),
    "password changed": lambda w, name, _: w.call(
        "administrator", "PATCH", f"users/{name}/", {"password": "another-one-12"}
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_token_that_ended_stops_on_open_sockets_at_once(ward: Ward, births: Private, how: str) -> None:
    name, token = leaver(ward, f"ends-{list(ENDS).index(how)}")
    ward.grant(births.dataset, name.removeprefix("attack-"), "read")
    with RawClient(ward.url, token) as first, RawClient(ward.url, token) as second:
        for client in (first, second):
            assert np.array_equal(client.get(client.asset(births.dataset)), births.values)
        value = first.node("aten::neg", first.asset(births.dataset))
        assert ENDS[how](ward, name, token)[0] < 300
        # No waiting: a release asks again, whether or not the socket was closed meanwhile.
        with pytest.raises((AuthenticationError, ConnectionClosed, OSError)):
            first.get(value)
        began = time.monotonic()
        with pytest.raises((AuthenticationError, ConnectionClosed, OSError)):
            second.receive()
        assert time.monotonic() - began < 5
    assert rest("GET", f"{ward.url}/api/me/", token=token)[0] == 401
    with pytest.raises(AuthenticationError):
        RawClient(ward.url, token)


def test_public_values_too_stop_at_once(ward: Ward, births: Private) -> None:
    """A value of one's own needs no permission, so only the token stands between it and who has left.

    Another session keeps the node's database busy: the check must not come after the answer.
    """
    _, busy = leaver(ward, "busy")
    ward.grant(births.dataset, "busy", "read")
    with RawClient(ward.url, busy) as other:
        shared = other.asset(births.dataset)
        other.get(shared)
        for number in range(5):
            name, token = leaver(ward, f"own-{number}")
            with RawClient(ward.url, token) as client:
                value = client.constant(np.ones(2, dtype=np.float32))
                assert np.array_equal(client.get(value), np.ones(2, dtype=np.float32))
                asks = range(1000 * (number + 1), 1000 * (number + 1) + 60)
                other.send(*[m.Get(ask, shared) for ask in asks])
                assert ward.call("administrator", "PATCH", f"users/{name}/", {"active": False})[0] == 200
                with pytest.raises((AuthenticationError, ConnectionClosed, OSError)):
                    client.get(client.node("aten::neg", value))
            for _ in asks:
                assert isinstance(other.receive(), m.Answer)


def test_nothing_is_answered_while_a_token_ends(ward: Ward, births: Private) -> None:
    """Many questions in flight, the end in the midst of them: after it is acknowledged not one answer more begins."""
    source = random.Random(7)
    name, token = leaver(ward, "racer")
    ward.grant(births.dataset, "racer", "read")
    with RawClient(ward.url, token) as client:
        x = client.asset(births.dataset)
        values = [client.node("aten::mul.Tensor", x, float(number)) for number in range(40)]
        asked = source.randrange(5, 15)
        client.send(*[m.Get(10_000 + number, value) for number, value in enumerate(values[:asked])])
        assert ward.call("administrator", "PATCH", f"users/{name}/", {"active": False})[0] == 200
        late = []
        try:
            client.send(*[m.Get(20_000 + number, value) for number, value in enumerate(values[asked:])])
            while True:
                reply = client.receive()
                if isinstance(reply, m.Answer) and reply.ask >= 20_000:
                    late.append(reply)
        except (GridError, ConnectionClosed, OSError):
            pass
    assert late == []


def test_tokens_by_other_spellings_are_none(ward: Ward) -> None:
    token = ward.tokens["scientist"]
    source = random.Random(8)
    for _ in range(40):
        place = source.randrange(13, len(token))
        wrong = source.choice(
            [
                token[:place] + chr(ord(token[place]) ^ 1) + token[place + 1 :],
                token[:place],
                token + "A",
                token.swapcase(),
                token[:13] + "A" * 43,
                ward.tokens["owner"][:13] + token[13:],
                f"{token}\x00",
            ]
        )
        if "\x00" not in wrong:
            assert rest("GET", f"{ward.url}/api/me/", token=wrong)[0] == 401
    for path in (f"me/?token={token}", f"me/?access_token={token}"):
        assert ward.call(None, "GET", path)[0] == 401
