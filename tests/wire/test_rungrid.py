"""A grid on one machine starts, stops and comes back: what it was given is still there, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from apps.core.countersigned import CounterSigned
from gridsite.grid import SHORTEST_LIFE, Grid, GridRefusal
from tests.factories import grid as live
from tests.factories.grid import LiveGrid
from tests.factories.raw import rest, sign_in

NODE = "hospital"


@contextmanager
def busy_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def processes_of(folder: Path) -> list[int]:
    """Processes that were started for a deployment in `folder`, those that compute for it included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"GRID_DIR={folder}/".encode() in environment and (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def wait_until_gone(folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not left


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def public_key(url: str) -> str:
    return str(rest("GET", f"{url}/api/identity/")[1]["public_key"])


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGrid]:
    with live.running(tmp_path_factory.mktemp("small"), nodes=NODE) as grid:
        yield grid


def test_ready_file_opens_every_door(small: LiveGrid) -> None:
    for server in (small.network, small.nodes[NODE]):
        assert sign_in(server.url, server.username, server.password).startswith("grd_")


def test_ready_means_that_the_node_belongs_to_the_network(small: LiveGrid) -> None:
    token = sign_in(small.network.url, small.network.username, small.network.password)
    status, body = rest("GET", f"{small.network.url}/api/nodes/", token=token)
    assert status == 200
    assert [(node["id"], node["state"]) for node in body["results"]] == [(NODE, "approved")]


def test_the_network_has_counter_signed_the_node_s_audit_log(small: LiveGrid) -> None:
    kept = small.folder / NODE / "keys" / "audit.head.countersigned"
    end = time.monotonic() + 30
    while not kept.exists() and time.monotonic() < end:
        time.sleep(0.05)
    said = CounterSigned(**json.loads(kept.read_bytes()))
    assert said.network == public_key(small.network.url)
    assert said.number >= 1 and said.fits(public_key(small.nodes[NODE].url))


def test_guests_may_search(small: LiveGrid) -> None:
    assert rest("GET", f"{small.network.url}/api/search/?q=%23births")[0] == 200


def test_secrets_are_for_the_owner_of_the_folder_only(small: LiveGrid) -> None:
    assert mode(small.folder / "credentials.json") == 0o600
    assert mode(small.folder / "ready") == 0o600
    for name in ("network", NODE):
        assert mode(small.folder / name) == 0o700
        assert {mode(file) for file in (small.folder / name).glob("db.sqlite3*")} <= {0o600}
        keys = small.folder / name / "keys"
        assert mode(keys) == 0o700
        assert {mode(file) for file in keys.iterdir()} == {0o600}


def test_second_grid_in_the_same_folder_is_refused_and_the_first_goes_on(small: LiveGrid) -> None:
    before = (small.folder / "ready").read_bytes()
    second = live.start(small.folder, nodes=NODE)
    assert second.wait(30) == 1
    assert "Another grid is running" in (small.folder / "rungrid.log").read_text()
    assert (small.folder / "ready").read_bytes() == before
    assert rest("GET", f"{small.network.url}/api/identity/")[0] == 200


def test_node_that_crashes_comes_back_at_its_address(small: LiveGrid) -> None:
    url = small.nodes[NODE].url
    key = public_key(url)
    (server,) = [pid for pid in processes_of(small.folder) if b"runnode" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    # One that falls soon after its start is taken for broken; this one has lived.
    age = time.time() - Path(f"/proc/{server}").stat().st_ctime
    time.sleep(max(0.0, SHORTEST_LIFE + 0.5 - age))
    os.kill(server, signal.SIGKILL)
    time.sleep(0.1)
    assert public_key(url) == key


def test_port_in_use_is_named(tmp_path: Path) -> None:
    with busy_port() as port:
        process = live.start(tmp_path, nodes=NODE, port=port)
        assert process.wait(30) == 1
    assert f"Port {port} cannot be used" in (tmp_path / "rungrid.log").read_text()
    assert not processes_of(tmp_path)


@pytest.mark.parametrize("names", ["", "network", "a,a", "Hospital", "../up", "x y"])
def test_names_that_cannot_be_folders_and_ids_are_refused(names: str, tmp_path: Path) -> None:
    with pytest.raises(GridRefusal, match="--nodes"):
        Grid(tmp_path, [name for name in names.split(",") if name], 0)


def test_killed_grid_leaves_nothing_and_carries_on_at_the_next_start(tmp_path: Path) -> None:
    process = live.start(tmp_path, nodes=NODE)
    first = live.wait_until_ready(tmp_path, process)
    url = first["nodes"][NODE]["url"]
    admin = first["nodes"][NODE]["admin"]
    key, port = public_key(url), port_of(first["network"]["url"])
    token = sign_in(url, **admin)
    account = {"username": "ana", "password": "correct horse battery staple", "roles": ["scientist"]}
    assert rest("POST", f"{url}/api/users/", account, token=token)[0] in (200, 201)

    process.kill()
    process.wait()
    (tmp_path / "ready").unlink()
    again = live.start(tmp_path, nodes=NODE, port=port)
    try:
        second = live.wait_until_ready(tmp_path, again)
        url = second["nodes"][NODE]["url"]
        assert second["nodes"][NODE]["admin"] == admin
        assert public_key(url) == key
        assert sign_in(url, "ana", "correct horse battery staple")
        # A client that stays connected and says nothing more must not hold up the end.
        with connect(f"{url.replace('http', 'ws')}/ws/grid/", max_size=None):
            began = time.monotonic()
            assert live.stop(again) == 0
            assert time.monotonic() - began < 10
    finally:
        if again.poll() is None:
            again.kill()
    wait_until_gone(tmp_path, 1)
    for address in (second["network"]["url"], url):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port_of(address)))


def test_killed_grid_leaves_no_process(tmp_path: Path) -> None:
    process = live.start(tmp_path, nodes=NODE)
    live.wait_until_ready(tmp_path, process)
    assert processes_of(tmp_path)
    process.kill()
    process.wait()
    wait_until_gone(tmp_path, 3)
