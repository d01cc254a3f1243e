"""The `gridsite` command on a real grid, as it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import gridclient
from gridclient.node import Node
from gridclient.saving import save
from tests.factories.crew import PASSWORD, Crew, eventually, fresh
from tests.factories.grid import LiveGrid
from tests.sdk.fake_node import FakeNode, running

COMMAND = Path(sys.executable).with_name("gridsite")
FRAME = pd.DataFrame({"weight": [2.5 + row / 8 for row in range(12)], "smoke": ["=now()", "never", "-"] * 4})
WORDS = ["never", "=now()", "-"]


@dataclass
class Terminal:
    """A person at a terminal, with a configuration of their own."""

    folder: Path

    def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
        return subprocess.run(
            [str(COMMAND), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**inherited, "XDG_CONFIG_HOME": str(self.folder), **environment},
            cwd=self.folder,
            timeout=100,
        )

    def done(self, *arguments: str, stdin: str = "") -> str:
        """What a command that must succeed prints."""
        ended = self(*arguments, stdin=stdin)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    def refused(self, status: int, *arguments: str, stdin: str = "", **environment: str) -> str:
        """What a command that must fail says."""
        ended = self(*arguments, stdin=stdin, **environment)
        assert (ended.returncode, ended.stdout) == (status, ""), ended
        assert "Traceback" not in ended.stderr
        assert status == 2 or ended.stderr.count("\n") == 1
        return ended.stderr

    @property
    def file(self) -> Path:
        return self.folder / "gridsite" / "credentials.json"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture(scope="module")
def bob(crew: Crew) -> Node:
    return crew.hire("scientist")


@pytest.fixture
def signed_in(terminal: Terminal, bob: Node) -> Terminal:
    terminal.done("login", bob.url, "--username", bob.user, stdin=f"{PASSWORD}\n")
    return terminal


@pytest.fixture(scope="module")
def births(owner: Node) -> str:
    table = gridclient.private_table(FRAME, name=fresh("command"), categories={"smoke": WORDS})
    return str(table.tag("#command").describe("Births.").send(owner).dataset)


def answered(bob: Node, reviewer: Node, value: Any) -> str:
    """A request whose answer is there; its id."""
    request = value.request("For the terminal.")
    (seen,) = [waiting for waiting in reviewer.requests(state="submitted") if waiting.id == request.id]
    seen.approve("Yes.")
    return str(request.wait(60).id)


def test_signing_in_keeps_a_token_and_never_the_password(terminal: Terminal, bob: Node) -> None:
    said = terminal.done("login", bob.url, "--username", bob.user, stdin=f"{PASSWORD}\n")
    assert said == f"Signed in to the node hospital as {bob.user}.\n"
    kept = terminal.file.read_text()
    assert PASSWORD not in kept
    (entry,) = json.loads(kept).values()
    assert entry["token"].startswith("grd_")
    assert entry["public_key"] == bob.public_key
    assert terminal.file.stat().st_mode & 0o777 == 0o600
    assert terminal.file.parent.stat().st_mode & 0o777 == 0o700
    # The second sign-in replaces the first, whose token ends.
    terminal.done("login", bob.url, "--username", bob.user, stdin=f"{PASSWORD}\n")
    with pytest.raises(gridclient.AuthenticationError):
        gridclient.connect(bob.url, token=entry["token"])
    (entry,) = json.loads(terminal.file.read_text()).values()
    assert terminal.done("logout", bob.url) == "Signed out of the node hospital.\n"
    with pytest.raises(gridclient.AuthenticationError):
        gridclient.connect(bob.url, token=entry["token"])
    assert json.loads(terminal.file.read_text()) == {}
    assert "not signed in" in terminal.refused(1, "logout", bob.url)


def test_wrong_passwords_and_addresses_are_one_line(terminal: Terminal, bob: Node, grid: LiveGrid) -> None:
    said = terminal.refused(1, "login", bob.url, "--username", bob.user, stdin="wrong\n")
    assert "Check the name and the password" in said
    assert "Nobody answers" in terminal.refused(1, "login", "http://127.0.0.1:1", "--username", "x", stdin="x\n")
    assert "write it like https://" in terminal.refused(1, "datasets", "--at", "hospital")
    assert f"gridsite login {bob.url}" in terminal.refused(1, "requests", "--at", bob.url)
    assert not terminal.file.exists()


def test_wrong_use_is_told_apart(terminal: Terminal, bob: Node, grid: LiveGrid) -> None:
    assert "COMMAND" in terminal.refused(2)
    assert "TERM" in terminal.refused(2, "search")
    assert "--out" in terminal.refused(2, "get", "abc")
    assert "--username" in terminal.refused(2, "login", bob.url, stdin="x\n")
    assert "gridsite login URL" in terminal.refused(2, "datasets")
    assert "is a network" in terminal.refused(2, "requests", "--at", grid.network.url)


def test_lists_are_for_people_and_for_programs(signed_in: Terminal, births: str) -> None:
    shown = signed_in.done("datasets")
    assert shown.splitlines()[0].split()[:3] == ["name", "version", "kind"]
    assert births in shown
    (found,) = json.loads(signed_in.done("search", "#command", "births", "--json"))
    assert (found["node"], found["name"], found["slug"], found["shape"]) == ("hospital", births, births, [12, 2])
    assert found["title"].startswith("command")
    assert births in [row["slug"] for row in json.loads(signed_in.done("datasets", "--json"))]
    nothing = signed_in("search", "#nothing-at-all")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "Nothing was found.\n")
    assert json.loads(signed_in.done("search", "#nothing-at-all", "--json")) == []


def test_a_search_that_finds_too_much_says_what_to_add(signed_in: Terminal, owner: Node) -> None:
    tag = f"#{fresh('terminal')}"
    for number in range(2):
        gridclient.private_tensor(torch.ones(4), bounds=(0, 2)).tag(tag).describe(f"Set {number}.").send(owner)
    assert json.loads(signed_in.done("suggest", tag[:-1], "--json"))[0] == {"term": tag, "datasets": 2}
    assert signed_in.done("suggest", tag).split() == ["term", "datasets", tag, "2"]
    ended = signed_in("search", tag, "--limit", "1")
    assert (ended.returncode, ended.stderr) == (0, f"1 of 2. Their tags: {tag} (2)\n") and "Set 1." in ended.stdout


def test_a_guest_searches_the_network(terminal: Terminal, grid: LiveGrid, births: str) -> None:
    def looked() -> bool:
        found = json.loads(terminal.done("search", "#command", "--at", grid.network.url, "--json"))
        return [(row["node"], row["slug"]) for row in found] == [("hospital", births)]

    assert eventually(looked)
    assert births in terminal.done("search", "#command", "--at", grid.network.url)


def test_requests_are_listed_and_their_answers_fetched(
    signed_in: Terminal, bob: Node, reviewer: Node, births: str
) -> None:
    weights = bob.dataset(births).pointer()["weight"]
    pending = weights.max().request("Later.")
    listed = json.loads(signed_in.done("requests", "--state", "submitted", "--json"))
    assert [(row["id"], row["reason"]) for row in listed] == [(pending.id, "Later.")]
    assert "Nobody has decided" in signed_in.refused(1, "get", pending.id, "--out", "x.pt")
    assert "no request" in signed_in.refused(1, "get", "zzz", "--out", "x.pt")

    id = answered(bob, reviewer, weights * 2)
    out = signed_in.folder / "answer.npy"
    # The first part of an id will do.
    assert signed_in.done("get", id[:13], "--out", "answer.npy") == "Wrote answer.npy.\n"
    assert np.load(out).tolist() == [2 * weight for weight in FRAME["weight"]]
    before = out.stat().st_mtime_ns
    assert "--force" in signed_in.refused(1, "get", id, "--out", "answer.npy")
    assert out.stat().st_mtime_ns == before
    signed_in.done("get", id, "--out", "answer.npy", "--force")
    assert out.stat().st_mtime_ns > before
    assert ".safetensors" in signed_in.refused(1, "get", id, "--out", "answer.xlsx")
    assert "No such file" in signed_in.refused(1, "get", id, "--out", "nowhere/answer.pt")
    assert [path.name for path in signed_in.folder.iterdir() if path.is_file()] == ["answer.npy"]


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (2, 3, 2), (0,)], ids=str)
def test_a_tensor_is_in_every_format_what_it_was(tmp_path: Path, shape: tuple[int, ...]) -> None:
    value = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape).transpose(0, -1) / 3
    for suffix in ("pt", "npy", "safetensors"):
        save(value, tmp_path / f"answer.{suffix}")
    assert torch.equal(torch.load(tmp_path / "answer.pt", weights_only=True), value)
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "answer.npy")), value)
    assert torch.equal(load_file(tmp_path / "answer.safetensors")["value"], value)
    if len(shape) > 2:
        with pytest.raises(gridclient.InvalidInputError, match=r"\.pt, \.safetensors, \.npy"):
            save(value, tmp_path / "answer.csv")
        return
    save(value, tmp_path / "answer.csv")
    save(value, tmp_path / "answer.parquet")
    columns = value.reshape(value.numel(), 1) if len(shape) < 2 else value
    for frame in (pd.read_csv(tmp_path / "answer.csv"), pq.read_table(tmp_path / "answer.parquet").to_pandas()):
        assert list(frame.columns) == (["value"] if len(shape) < 2 else ["0", "1", "2"])
        assert frame.to_numpy(dtype=float).tolist() == columns.tolist()
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


def test_the_state_of_a_model_and_odd_dtypes_are_kept(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2, 3, dtype=torch.bfloat16), "bias": torch.zeros(2)}
    save(state, tmp_path / "state.pt")
    save(state, tmp_path / "state.safetensors")
    for found in (torch.load(tmp_path / "state.pt", weights_only=True), load_file(tmp_path / "state.safetensors")):
        assert {name: value.dtype for name, value in found.items()} == {
            "weight": torch.bfloat16,
            "bias": torch.float32,
        }
        assert all(torch.equal(found[name], state[name]) for name in state)
    for value in (state, state["weight"]):
        with pytest.raises(gridclient.InvalidInputError, match=r"does not fit into \.npy; it does into \.pt, "):
            save(value, tmp_path / "state.npy")


def test_a_table_goes_into_a_file_and_its_words_are_no_formulas(
    signed_in: Terminal, bob: Node, reviewer: Node, births: str
) -> None:
    id = answered(bob, reviewer, bob.dataset(births).pointer())
    assert ".csv, .parquet" in signed_in.refused(1, "get", id, "--out", "births.npy")
    signed_in.done("get", id, "--out", "births.parquet")
    assert pq.read_table(signed_in.folder / "births.parquet").to_pandas()["smoke"].tolist() == FRAME["smoke"].tolist()
    signed_in.done("get", id, "--out", "births.csv")
    rows = (signed_in.folder / "births.csv").read_text().splitlines()
    assert rows[:4] == ['"weight","smoke"', '2.5,"\'=now()"', '2.625,"never"', '2.75,"\'-"']


def test_a_token_of_the_environment_serves_where_nobody_signed_in(terminal: Terminal, bob: Node, births: str) -> None:
    found = terminal("datasets", "--at", bob.url, GRID_TOKEN=bob.http.token)
    assert births in found.stdout
    assert "does not accept this token" in terminal.refused(
        1, "datasets", "--at", bob.url, GRID_TOKEN="grd_12345678_wrong"
    )


def test_a_token_ended_elsewhere_is_told(signed_in: Terminal, bob: Node) -> None:
    (entry,) = json.loads(signed_in.file.read_text()).values()
    bob.revoke_token(entry["token"])
    said = signed_in.refused(1, "datasets")
    assert said == f"gridsite: {bob.url} does not accept this token. Sign in again: gridsite login {bob.url}\n"


def test_the_command_tells_its_version(terminal: Terminal) -> None:
    assert terminal.done("--version") == f"gridsite {gridclient.__version__}\n"


def test_tokens_that_others_may_read_are_not_used(signed_in: Terminal) -> None:
    signed_in.file.chmod(0o644)
    assert "chmod 600" in signed_in.refused(1, "datasets")
    signed_in.file.chmod(0o600)
    signed_in.file.write_text("{")
    assert "damaged" in signed_in.refused(1, "datasets")


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        yield node


def impostor(fake: FakeNode) -> None:
    """Another key answers, which it really holds."""
    other = FakeNode()
    fake.key, fake.public_key = other.key, other.public_key


def pretender(fake: FakeNode) -> None:
    """The node's key is named, and not held."""
    fake.key = FakeNode().key


@pytest.mark.parametrize("turned", [impostor, pretender])
def test_a_token_goes_to_nobody_but_who_holds_the_key(
    terminal: Terminal, fake: FakeNode, turned: Callable[[FakeNode], None]
) -> None:
    terminal.done("login", fake.url, "--username", "bob", stdin="correct horse\n")
    assert terminal("datasets").returncode == 0
    turned(fake)
    fake.calls.clear()
    assert "key" in terminal.refused(1, "datasets")
    assert "key" in terminal.refused(1, "login", fake.url, "--username", "bob", stdin="correct horse\n")
    assert {(path, body, token) for _, path, body, token in fake.calls} == {("/api/identity/", None, "")}
    terminal.done("logout", fake.url)
    assert {(path, body, token) for _, path, body, token in fake.calls} == {("/api/identity/", None, "")}


def test_what_a_node_says_does_nothing_to_the_terminal(terminal: Terminal, fake: FakeNode) -> None:
    fake.id = "\x1b[2Jhospital\u202e"
    fake.add("births", torch.ones(2), [], name="\x1b]0;x\x07", description="\u202ea\r\nb")
    fake.datasets["births"]["slug"] = "\x1b[31mred"
    said = terminal.done("login", fake.url, "--username", "bob", stdin="correct horse\n")
    said += terminal.done("datasets") + terminal.done("datasets", "--json")
    fake.tokens.clear()
    said += terminal.refused(1, "datasets")
    assert r"\u{001b}[31mred" in said
    assert all(char.isprintable() or char == "\n" for char in said)


def test_the_command_is_quick_because_it_loads_no_torch() -> None:
    code = "import sys, gridclient.cli; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False False\n"
