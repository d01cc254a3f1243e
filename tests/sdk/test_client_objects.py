"""Datasets, the queue, administration: what a notebook shows and what goes to the node."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import torch

import gridclient as grid
from gridclient.node import Node
from gridclient.records import Account, Token
from gridclient.wire.errors import GetNotPermittedError, InvalidInputError, RequestDeniedError, RequestPendingError
from tests.sdk.fake_node import FakeNode, running

COLUMNS = [
    {"name": "weight", "kind": "number", "low": 0.5, "high": 6.0, "categories": None},
    {"name": "height", "kind": "number", "low": 30.0, "high": 60.0, "categories": None},
]
TABLE = pa.table({"weight": [3.1, 2.9], "height": [50.0, 49.0]})


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        node.add("births", torch.tensor([[3.1, 50.0], [2.9, 49.0]], dtype=torch.float64), COLUMNS)
        node.add("wards", TABLE, COLUMNS)
        yield node


@pytest.fixture
def hospital(fake: FakeNode) -> Iterator[Node]:
    with grid.connect(fake.url, username="bob", password="correct horse") as node:
        yield node


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_node_that_imports_the_codec_loads_no_torch() -> None:
    code = (
        "import sys, gridclient, gridclient.wire.messages; gridclient.InvalidInputError; print('torch' in sys.modules)"
    )
    assert in_a_new_process(code) == "False"


def test_every_promised_name_is_there() -> None:
    for name in grid.__all__:
        assert getattr(grid, name) is not None
        assert name in dir(grid)
    with pytest.raises(AttributeError, match="no attribute 'pickle'"):
        _ = grid.pickle


def test_progress_is_switched_off_where_it_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid.settings, "progress", False)
    from gridclient import progress

    assert progress.settings.progress is False


def test_a_dataset_shows_what_it_is(hospital: Node) -> None:
    births = hospital.dataset("births")
    assert repr(births) == "<Dataset births version 1: tensor [2, 2] on hospital>"
    assert (births.name, births.description, births.tags, births.version) == ("births", "Of the ward.", ["#Births"], 1)
    assert (births.columns, births.bounds) == (["weight", "height"], ([0.5, 30.0], [6.0, 60.0]))
    assert (len(births), births.location, births.rights) == (2, hospital, ["discover", "compute"])
    assert hospital.dataset("wards").bounds == {"weight": (0.5, 6.0), "height": (30.0, 60.0)}


def test_long_lists_are_read_to_their_end(fake: FakeNode, hospital: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridclient.http.PAGE", 3)
    for number in range(8):
        fake.add(f"more-{number}", torch.ones(1), [])
    assert len(hospital.datasets()) == 10
    assert len(hospital.search("#Births", limit=4)) == 4


def test_a_pointer_knows_its_dataset(hospital: Node) -> None:
    births, wards = hospital.search("#Births")
    assert (births.shape, births.dtype, len(births)) == ((2, 2), torch.float64, 2)
    assert (births.description, births.tags, births.columns) == ("Of the ward.", ["#Births"], ["weight", "height"])
    assert (births.bounds, births.location) == (([0.5, 30.0], [6.0, 60.0]), hospital)
    assert births.mock.tolist() == [[0.0, 0.0]]
    assert torch.equal(births[:, 0].sum().get(), torch.tensor(6.0, dtype=torch.float64))
    assert isinstance(births, torch.Tensor)
    assert isinstance(wards, grid.TablePointer)


def test_a_table_is_read_by_column(hospital: Node) -> None:
    wards = hospital.dataset("wards").pointer()
    assert repr(wards) == "<TablePointer wards [2, 2] on hospital>"
    assert (wards.columns, wards.description, wards.location, len(wards)) == (
        ["weight", "height"],
        "Of the ward.",
        hospital,
        2,
    )
    assert wards["weight"].sum().get().item() == 6.0
    assert wards[["height", "weight"]].get().tolist() == [[50.0, 3.1], [49.0, 2.9]]
    assert wards.count().get().item() == 2
    assert wards.get().equals(TABLE)
    assert wards.mock.get().equals(TABLE.slice(0, 1))
    assert wards.dataset == "wards"
    with pytest.raises(InvalidInputError, match="'weight', 'height'"):
        wards["age"]


def test_a_request_is_followed_to_its_answer(fake: FakeNode, hospital: Node) -> None:
    fake.permitted = False
    total = hospital.dataset("births").pointer()[:, 0].sum()
    with pytest.raises(GetNotPermittedError) as refused:
        total.get()
    request = refused.value.request(reason="Monthly report")  # type: ignore[attr-defined]
    with pytest.raises(RequestPendingError):
        request.get()
    with pytest.raises(RequestPendingError, match="within"):
        request.wait(timeout=0.1)
    fake.requests[request.id]["state"] = "approved"
    assert (request.state, request.status) == ("submitted", "approved")

    def answer() -> None:
        time.sleep(0.1)
        fake.requests[request.id]["answered_at"] = "2026-02-02T00:00:00Z"

    threading.Thread(target=answer).start()
    assert [request.get().item(), request.get().item()] == [6.0, 6.0]
    assert repr(request).startswith(f"<DataRequest {request.id[:8]} approved on hospital: 'Monthly report'")
    assert request.url.startswith(hospital.url)


def test_a_denial_comes_with_its_reason(fake: FakeNode, hospital: Node) -> None:
    request = hospital.dataset("births").pointer().sum().request("A study")
    with pytest.raises(InvalidInputError, match="reason"):
        hospital.dataset("births").pointer().sum().request(" ")
    (waiting,) = hospital.requests(state="submitted")
    waiting.deny(reason="Too few people.")
    assert fake.calls[-1][2] == {"reason": "Too few people.", "seen": "2026-02-01T00:00:00Z"}
    with pytest.raises(RequestDeniedError, match="Too few people"):
        request.get()
    assert hospital.requests(state="submitted") == []
    assert request.withdraw().state == "withdrawn"


def test_administration_says_what_it_means(fake: FakeNode, hospital: Node) -> None:
    ana = hospital.create_user("ana", password="a long password", roles=["scientist"])
    assert repr(ana) == "<Account username='ana' roles=['scientist'] active=True>"
    assert isinstance(ana, Account)
    with pytest.raises(AttributeError, match="it has"):
        _ = ana.password
    token = hospital.create_token("ana", name="laptop", expires=datetime.date(2027, 1, 1))
    assert isinstance(token, Token)
    assert token.token == "grd_abcdefgh_secret"
    assert "secret" not in repr(token)
    assert fake.calls[-1][2] == {"user": "ana", "name": "laptop", "expires": "2027-01-01", "scopes": None}
    for name in ("deactivate_user", "reactivate_user"):
        getattr(hospital, name)("ana/../bob")
        assert fake.calls[-1][2] == {"active": name == "reactivate_user"}
    hospital.set_roles("ana", ["owner"])
    assert fake.calls[-1][:3] == ("PATCH", "/api/users/ana/", {"roles": ["owner"]})
    with pytest.raises(InvalidInputError, match="list of names"):
        hospital.create_user("ana", password="x", roles="scientist")
    hospital.revoke_token("grd_abcdefgh_secret")
    assert fake.calls[-1][:2] == ("DELETE", "/api/tokens/abcdefgh/")


def test_a_broken_audit_log_is_not_true(hospital: Node) -> None:
    report = hospital.audit(verify=True)
    assert isinstance(report, grid.AuditReport)
    assert not report
    assert (report.first_bad, report.problem) == (3, "Event 3 was changed.")


def test_grants_name_to_whom_what_and_until_when(fake: FakeNode, hospital: Node) -> None:
    births = hospital.dataset("births")
    grant = births.grant(
        "team:researchers", "aggregate", columns=["weight"], expires="2027-01-01", reason="Ward report"
    )
    assert (grant.to, grant.right, grant.id) == ("team:researchers", "aggregate", 5)
    assert fake.calls[-1][2]["programs"] is None
    births.grant("bob", "train", programs=["ab" * 32], reason="Risk scores")
    assert fake.calls[-1][2]["programs"] == ["ab" * 32]
    with pytest.raises(InvalidInputError, match="list of hashes"):
        births.grant("bob", "train", programs="ab" * 32, reason="Risk scores")
    births.revoke(grant)
    assert fake.calls[-1][:2] == ("DELETE", "/api/grants/5/")
    births.describe(tags=["#new"])
    assert fake.calls[-1][2] == {"tags": ["#new"]}
    births.describe(accounts_may_compute=False)
    assert fake.calls[-1][2] == {"accounts_may_compute": False}


def test_a_tensor_of_mine_goes_into_my_session(hospital: Node) -> None:
    doubled: Any = grid.send(torch.arange(3.0), hospital) * 2
    assert doubled.get().tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(InvalidInputError, match="takes a node"):
        grid.send(torch.ones(1), "hospital")  # type: ignore[arg-type]
