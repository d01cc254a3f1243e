"""A grid that is killed or stopped comes back with everything that it acknowledged, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from gridclient.wire import messages as m
from gridclient.wire.errors import RequestDeniedError
from gridsite.deployment import MANAGE, Deployment
from gridsite.grid import SHORTEST_LIFE
from tests.factories import databases, processes
from tests.factories import grid as live
from tests.factories.grid import LiveGrid, Server
from tests.factories.raw import rest
from tests.factories.staff import Staff, publish_table

NODE = "hospital"
TENSOR = np.arange(28.0).reshape(14, 2)
TABLE = pa.table({"amount": pa.array(np.arange(14.0)), "group": pa.array(["a", "b"] * 7)})
COLUMNS = [m.Column("a", low=0.0, high=50.0), m.Column("b", low=0.0, high=50.0)]
TABLE_COLUMNS = [m.Column("amount", low=0.0, high=50.0), m.Column("group", kind="category", categories=["a", "b"])]
# Three starts of a grid, and a life longer than the shortest.
pytestmark = pytest.mark.timeout(300)
STATES = {"open": "submitted", "gone": "withdrawn", "no": "denied", "old": "delivered"}


@dataclass
class Life:
    """What one life of the grid showed after it came up."""

    url: str
    rest: dict[str, Any]
    answers: dict[str, bytes]
    found: list[Any]
    answered: int
    verified: list[Any]
    sessions: list[str]
    incoming: list[str]


@dataclass
class History:
    """What was acknowledged in the first life, and what the later ones showed."""

    folder: Path
    grid: LiveGrid
    port: int
    tokens: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    acknowledged: dict[str, Any] = field(default_factory=dict)
    lives: dict[str, Life] = field(default_factory=dict)
    ends: dict[str, set[int]] = field(default_factory=dict)

    def staff(self) -> Staff:
        """Everybody by the tokens of the first life, at the address of this one."""
        staff = Staff(self.grid.nodes[NODE])
        staff.tokens |= self.tokens
        return staff

    def start(self) -> None:
        (self.folder / "ready").unlink(missing_ok=True)
        process = live.start(self.folder, nodes=NODE, port=self.port)
        ready = live.wait_until_ready(self.folder, process)
        self.grid = LiveGrid(self.folder, process, _server("network", ready["network"]),
                             {NODE: _server(NODE, ready["nodes"][NODE])})  # fmt: skip

    def processes(self) -> set[int]:
        """All of the grid: its own process, servers, forkservers, workers."""
        leaders = {processes.server(self.folder / name) for name in ("network", NODE)}
        return {self.grid.process.pid}.union(*map(processes.group, leaders))


def _server(name: str, entry: dict[str, Any]) -> Server:
    return Server(name, entry["url"], **entry["admin"])


def _public(staff: Staff) -> dict[str, Any]:
    """What people see by REST, without what a restart changes: when a token was last used."""
    seen = {
        path: staff.call(name, "GET", path)["results"]
        for name, path in [("owner", "datasets/"), ("owner", "requests/"), ("admin", "users/"), ("admin", "teams/"),
                           ("owner", "tokens/"), ("scientist", "requests/")]
    }  # fmt: skip
    seen["grants"] = [
        staff.call("owner", "GET", f"datasets/{row['slug']}/grants/")["results"] for row in seen["datasets/"]
    ]
    seen["tokens/"] = [{**row, "last_used": None} for row in seen["tokens/"]]
    return seen


def _build(history: History) -> None:
    """The first life: one of everything that must outlive it."""
    staff = history.staff()
    for name, role in {"owner": "owner", "scientist": "scientist", "reader": "scientist"}.items():
        staff.hire(name, role)
    staff.call("admin", "POST", "teams/", {"slug": "ward", "name": "Ward", "members": ["scientist", "reader"]})
    laptop = staff.call("scientist", "POST", "tokens/", {"name": "laptop"})["token"]
    staff.tokens["laptop"] = laptop
    with staff.client("owner") as owner:
        tensor = owner.publish(TENSOR, name="restart tensor", tags=["#restart"], columns=COLUMNS)
        table = publish_table(owner, TABLE, TABLE_COLUMNS, 900, name="restart table", tags=["#restart"])
    staff.give("owner", tensor, "reader", "read")
    staff.give("owner", tensor, "team:ward", "aggregate")
    staff.give("owner", table, "team:ward", "compute")
    with staff.client("scientist") as client:
        value = client.asset(tensor)
        asked = [*STATES, "pending"]
        history.requests = {
            name: client.request(client.node("aten::select.int", value, 0, number)) for number, name in enumerate(asked)
        }
        history.answers["sum"] = client.get(client.node("aten::sum.dim_IntList", value, [0])).tobytes()
        decide(staff, history, "no", "deny")
        decide(staff, history, "old", "approve")
        staff.call("scientist", "POST", f"requests/{history.requests['gone']}/withdraw/", {})
        wait_answered(staff, history.requests["old"])
        history.answers["old"] = client.fetch(history.requests["old"]).tobytes()
    history.tokens, history.datasets = staff.tokens, {"tensor": tensor, "table": table}
    processes.wait_until(lambda: len(search(history)) == 2, 20, "the network knows both datasets")


def decide(staff: Staff, history: History, name: str, decision: str) -> None:
    staff.call("owner", "POST", f"requests/{history.requests[name]}/{decision}/", {"reason": "A decision."})


def wait_answered(staff: Staff, request: str) -> None:
    processes.wait_until(
        lambda: bool(staff.call("scientist", "GET", f"requests/{request}/")["answered_at"]),
        20,
        "the request is answered",
    )


def search(history: History) -> list[Any]:
    status, body = rest("GET", f"{history.grid.network.url}/api/search/?q=%23restart")
    assert status == 200
    return list(body["results"])


def _observe(history: History, name: str) -> None:
    """Note what this life shows, by the tokens and the ids of the first."""
    staff = history.staff()
    wait_answered(staff, history.requests["pending"])
    with staff.client("laptop") as client, staff.client("reader") as reader, staff.client("owner") as owner:
        answers = {
            "sum": client.get(client.node("aten::sum.dim_IntList", client.asset(history.datasets["tensor"]), [0])),
            "old": client.fetch(history.requests["old"]),
            "pending": client.fetch(history.requests["pending"]),
            "tensor": reader.get(reader.asset(history.datasets["tensor"])),
            "table": owner.get(owner.node("grid::column", owner.asset(history.datasets["table"]), "amount")),
        }
        with pytest.raises(RequestDeniedError):
            client.fetch(history.requests["no"])
    network = Staff(history.grid.network)
    storage = history.folder / NODE / "storage"
    processes.wait_until(lambda: not _inside(storage / "sessions"), 5, "the folders of closed sessions are gone")
    processes.wait_until(lambda: len(search(history)) == 2, 20, "the network knows both datasets")
    history.lives[name] = Life(
        url=staff.url,
        rest=_public(staff),
        answers={key: value.tobytes() for key, value in answers.items()},
        found=search(history),
        answered=[event["target"] for event in staff.events("request_answered")].count(
            f"request:{history.requests['pending']}"
        ),
        verified=[staff.call("admin", "GET", "audit/verify/"), network.call("admin", "GET", "audit/verify/")],
        sessions=_inside(storage / "sessions"),
        incoming=[name for name in _inside(storage / "datasets") if name.startswith("incoming")],
    )


def _inside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _kill_node_before_it_can_answer(history: History) -> None:
    """Approve while no worker can be started, amid an upload and a publication, and kill the node."""
    staff, node = history.staff(), processes.server(history.folder / NODE)
    # One that falls soon after its start is taken for broken; this one has lived.
    age = time.time() - Path(f"/proc/{node}").stat().st_ctime
    time.sleep(max(0.0, SHORTEST_LIFE + 0.5 - age))
    with staff.client("owner") as client, staff.client("owner") as publisher:
        client.get(client.constant(np.ones(2)))
        client.send(m.Upload(50, 1000, "", "values"))
        assert client.receive() == m.Ack(50, 0)
        before = processes.workers(node)
        publisher.get(publisher.constant(np.ones(2)))
        (worker,) = processes.workers(node) - before
        spec = m.PublishSpec(kind="tensor", name="never was", columns=COLUMNS)
        transfer = publisher.upload(save({"values": TENSOR}), "values")
        os.kill(worker, signal.SIGSTOP)
        publisher.send(m.Publish(900, spec, transfer))
        folder = history.folder / NODE / "storage" / "datasets"
        processes.wait_until(
            lambda: any(name.startswith("incoming") for name in _inside(folder)), 5, "the publication has begun"
        )
        os.kill(processes.forkserver(node), signal.SIGSTOP)
        decide(staff, history, "pending", "approve")
        history.acknowledged = _public(staff)
        history.ends["node killed"] = processes.group(node)
        os.kill(node, signal.SIGKILL)
        # rungrid collects it, and starts the next behind the same address.
        processes.wait_until(lambda: not processes.running(node), 5, "the node is dead")
        processes.wait_until(lambda: _server_again(history, node), 30, "the node is started again")
        assert rest("GET", f"{history.grid.nodes[NODE].url}/api/identity/")[0] == 200


def _server_again(history: History, before: int) -> bool:
    try:
        return processes.server(history.folder / NODE) != before
    except ValueError:
        return False


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("restart")
    history = History(folder, grid=None, port=0)  # type: ignore[arg-type]
    history.start()
    try:
        _build(history)
        _kill_node_before_it_can_answer(history)
        _observe(history, "node killed")

        history.ends["grid stopped"] = history.processes()
        assert live.stop(history.grid.process) == 0
        history.start()
        _observe(history, "grid stopped")

        history.ends["grid killed"] = history.processes()
        with history.staff().client("owner") as client:
            client.get(client.constant(np.ones(2)))
            history.ends["grid killed"] |= history.processes()
            history.grid.process.kill()
            history.grid.process.wait()
        processes.wait_until(
            lambda: not any(map(processes.running, history.ends["grid killed"])), 10, "the killed grid is gone"
        )
        history.start()
        _observe(history, "grid killed")
        history.ends["the end"] = history.processes()
        assert live.stop(history.grid.process) == 0
        yield history
    finally:
        if history.grid.process.poll() is None:
            live.stop(history.grid.process)


LIVES = ("node killed", "grid stopped", "grid killed")


@pytest.fixture(params=LIVES)
def life(request: pytest.FixtureRequest, history: History) -> Life:
    return history.lives[request.param]


@pytest.mark.parametrize("path", ["datasets/", "grants", "users/", "teams/", "tokens/"])
def test_everything_acknowledged_is_there(history: History, life: Life, path: str) -> None:
    assert life.rest[path] == history.acknowledged[path]


def test_requests_keep_their_state(history: History, life: Life) -> None:
    states = {row["id"]: row["state"] for row in life.rest["requests/"]}
    wanted = {history.requests[name]: state for name, state in STATES.items()}
    assert states == {**wanted, history.requests["pending"]: "delivered"}


def test_decided_requests_are_unchanged(history: History, life: Life) -> None:
    def others(rows: list[Any]) -> list[Any]:
        return [row for row in rows if row["id"] != history.requests["pending"]]

    assert others(life.rest["requests/"]) == others(history.acknowledged["requests/"])


def test_approval_that_was_not_answered_is_answered_once(history: History, life: Life) -> None:
    (before,) = [row for row in history.acknowledged["requests/"] if row["id"] == history.requests["pending"]]
    assert (before["state"], before["answered_at"]) == ("approved", None)
    assert life.answered == 1
    assert np.frombuffer(life.answers["pending"]).tolist() == TENSOR[4].tolist()


def test_stored_answers_are_the_same_bytes(history: History, life: Life) -> None:
    assert {name: life.answers[name] for name in history.answers} == history.answers


def test_values_are_the_same(life: Life) -> None:
    assert life.answers["tensor"] == TENSOR.tobytes()
    assert life.answers["table"] == np.arange(14.0).tobytes()


def test_network_finds_the_datasets_where_the_node_is_now(life: Life) -> None:
    assert sorted(row["dataset"]["name"] for row in life.found) == ["restart table", "restart tensor"]
    assert {row["node"]["url"] for row in life.found} == {life.url}


def test_audit_logs_are_whole(life: Life) -> None:
    assert [report["ok"] for report in life.verified] == [True, True], life.verified


def test_nothing_of_ended_sessions_is_left(life: Life) -> None:
    assert life.sessions == []


def test_nothing_of_an_unfinished_publication_is_left(life: Life) -> None:
    assert life.incoming == []
    assert not [row for row in life.rest["datasets/"] if row["name"] == "never was"]


@pytest.mark.parametrize("end", [*LIVES, "the end"])
def test_no_process_outlives_its_grid(history: History, end: str) -> None:
    assert len(history.ends[end]) > 2
    assert not [pid for pid in history.ends[end] if processes.running(pid)]


@pytest.mark.parametrize("name", ["network", NODE])
def test_verify_audit_says_that_the_log_is_whole(history: History, name: str) -> None:
    role = "network" if name == "network" else "node"
    folder = history.folder / name
    own = databases.settings_of(folder)
    environment = Deployment(role, name, folder, "http://127.0.0.1:8000", settings=own).environment()
    ran = subprocess.run([sys.executable, str(MANAGE), "verify_audit"], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "is whole" in ran.stdout


def test_withdrawn_request_has_no_answer(history: History) -> None:
    """The stored state decides, not whether the client still knows."""
    assert not (history.folder / NODE / "storage" / "requests" / history.requests["gone"] / "answer").exists()
