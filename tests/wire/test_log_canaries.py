"""Secrets that are like no other bytes, said to a running node in every wrong place: none is in what it writes."""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from gridclient.program.operations import OPERATIONS_VERSION
from gridclient.wire import messages as m
from gridclient.wire.errors import GridError
from tests.factories import processes
from tests.factories.doors import Doors
from tests.factories.raw import RawClient, rest, sign_in
from tests.factories.staff import Staff, single_node

METRICS = "scraper-" + secrets.token_hex(16)
SECRET = "planted-" + secrets.token_hex(12)
TOKEN = "grd_abcdefgh_" + secrets.token_urlsafe(32)


def say_it_everywhere(url: str, token: str) -> None:
    """Every header, path, body and frame in which somebody may put a secret by mistake or in malice."""
    doors = Doors(url)
    kind = {"Content-Type": "application/json"}
    account = {"username": SECRET, "password": SECRET, "token": TOKEN, "key": SECRET, "resume": SECRET}
    for path in ("sign-in/", "sign-in/assertion/", "users/", "tokens/", "membership/", "me/", "nodes/"):
        for body in (account, [account], {"username": ["x"], "password": {"x": SECRET}}, SECRET):
            for header in (f"Bearer {TOKEN}", f"Basic {SECRET}", f"Bearer {token}", SECRET):
                doors.call("POST", f"/api/{path}", json.dumps(body).encode(), Authorization=header, **kind)
        doors.call("POST", f"/api/{path}", b'{"password": "' + SECRET.encode(), **kind)
    for path in (
        f"/api/me/?token={TOKEN}",
        f"/api/{SECRET}/",
        f"/admin/{SECRET}",
        f"/metrics?token={METRICS}",
        "/readyz",
    ):
        doors.call("GET", path, Authorization=f"Bearer {METRICS}x", Cookie=f"sessionid={SECRET}", Host=SECRET)
        doors.call("GET", path, Cookie=f"sessionid={SECRET}")
    form = f"username={SECRET}&password={quote(SECRET)}&csrfmiddlewaretoken={SECRET}".encode()
    doors.call("POST", "/admin/login/", form, **{"Content-Type": "application/x-www-form-urlencoded"})
    for raw in (
        b"GET /" + TOKEN.encode() + b" HTTP/9.9\r\n\r\n",
        b"\x16\x03" + SECRET.encode() * 9,
        TOKEN.encode() * 9,
    ):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
        connection.connect()
        with suppress(OSError):
            connection.sock.sendall(raw)
            connection.sock.settimeout(1)
            connection.sock.recv(1000)
        connection.close()
    with suppress(GridError, ConnectionClosed):
        RawClient(url, TOKEN)
    with RawClient(url, token) as client:
        for command in (
            m.Hello(TOKEN, 1, OPERATIONS_VERSION, SECRET),
            m.Fetch(1, SECRET),
            m.Request(2, client.constant(np.ones(1)), SECRET),
            m.Publish(3, m.PublishSpec(kind="tensor", name=TOKEN, entities_of=SECRET), 9),
            m.Plan(4, 9),
        ):
            with suppress(GridError):
                client.ask(command) if hasattr(command, "ask") else client.send(command)
        for frame in (SECRET.encode(), TOKEN.encode(), b"\x00" + TOKEN.encode()):
            client.socket.send(frame)
    rest("POST", f"{url}/api/sign-out/", {}, token=token)


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_no_output_holds_a_secret_that_was_said_to_the_node(kind: str, tmp_path: Path) -> None:
    with single_node(tmp_path, "canary", GRID_LOG=kind, GRID_METRICS_TOKEN=METRICS) as server:
        staff = Staff(server)
        token = sign_in(server.url, server.username, server.password)
        say_it_everywhere(server.url, token)
        # A task that fails with everything on its stack: its traceback is written.
        storage = tmp_path / "canary" / "storage" / "sessions"
        shutil.rmtree(storage)
        storage.write_text("in the way")
        with staff.client(server.username) as client:
            client.send(m.Run([]))
            client.receive()
        storage.unlink()
        log = tmp_path / "canary" / "server.log"
        processes.wait_until(lambda: "Traceback" in log.read_text(), 5, "the failure is in the log")
        issued = [token, *staff.tokens.values()]
    text = log.read_text()
    own = [(tmp_path / "canary" / "keys" / "secret.key").read_text(), server.password]
    assert "opened with" in text
    for planted in (SECRET, TOKEN[13:], METRICS, *(each[13:] for each in issued), *own, "grd_", "Bearer "):
        assert planted not in text, planted[:9]
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    if kind == "json":
        assert {"session", "user"} <= {name for line in lines for name in line if "opened" in line["message"]}
        failed = [line for line in lines if "command failed" in line["message"]]
        assert failed and all("Traceback" in line["error"] and line["user"] == "admin" for line in failed)
