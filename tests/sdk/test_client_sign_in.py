"""Who is let in, and what is never sent to whom."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import torch

import gridclient as grid
from gridclient.http import Http
from gridclient.program.graph import Ref
from gridclient.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    InvalidInputError,
    NotFoundError,
    VersionMismatchError,
)
from tests.sdk.fake_node import FakeNode, running

PASSWORD = "correct horse"
RAW = [{"name": "weight", "kind": "number", "low": 0.5, "high": 6.0, "categories": None}]


@pytest.fixture
def hospital() -> Iterator[FakeNode]:
    with running(FakeNode()) as node:
        node.permitted = True
        node.add("births", torch.tensor([[1.0], [2.0]]), RAW)
        yield node


@pytest.fixture
def network(hospital: FakeNode) -> Iterator[FakeNode]:
    with running(FakeNode("network", "net")) as node:
        node.passwords["dana"] = "battery staple"
        node.results = [
            {
                "node": {"id": "hospital", "name": "Hospital", "url": hospital.url, "public_key": hospital.public_key},
                "dataset": hospital.datasets["births"],
            }
        ]
        yield node


def test_a_password_is_exchanged_once_and_not_kept(hospital: FakeNode) -> None:
    with grid.connect(hospital.url, username="bob", password=PASSWORD) as node:
        assert (node.id, node.name, node.user, node.rights) == ("hospital", "Hospital", "bob", ("compute.use",))
        node.datasets()
        sent = [path for _, path, body, _ in hospital.calls if body and PASSWORD in str(body)]
        assert sent == ["/api/sign-in/"]
        assert PASSWORD not in repr(vars(node)) + repr(vars(node.account)) + repr(vars(node.http))
        assert repr(node) == f"<Node hospital at {hospital.url} as bob>"


def test_a_token_is_enough_and_outlives_the_session(hospital: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    with grid.connect(hospital.url, token="grd_12345678_bob") as node:
        assert node.user == "bob"
    assert "grd_12345678_bob" in hospital.tokens
    monkeypatch.setenv("GRID_TOKEN", "grd_12345678_bob")
    with grid.connect(hospital.url) as node:
        assert node.user == "bob"


def test_three_different_errors_say_what_to_do(hospital: FakeNode) -> None:
    with pytest.raises(AuthenticationError, match=r"Wrong username or password.*administrator"):
        grid.connect(hospital.url, username="bob", password="wrong")
    with pytest.raises(AuthenticationError, match="token"):
        grid.connect(hospital.url, token="grd_00000000_nobody")
    with pytest.raises(AuthenticationError, match="GRID_TOKEN"):
        grid.connect(hospital.url)
    with pytest.raises(InvalidInputError, match="belong together"):
        grid.connect(hospital.url, username="bob")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionLostError, match=f"Nobody answers at {url}"):
            grid.connect(url, username="bob", password=PASSWORD)
    hospital.protocol = 99
    with pytest.raises(VersionMismatchError, match="upgrade gridclient"):
        grid.connect(hospital.url, username="bob", password=PASSWORD)


def test_a_password_does_not_go_to_the_wrong_kind_of_deployment(hospital: FakeNode, network: FakeNode) -> None:
    with pytest.raises(InvalidInputError, match="connect_network"):
        grid.connect(network.url, username="dana", password="battery staple")
    with pytest.raises(InvalidInputError, match=r"grid\.connect"):
        grid.connect_network(hospital.url, username="bob", password=PASSWORD)
    assert {path for _, path, _, _ in hospital.calls + network.calls} == {"/api/identity/"}


@pytest.mark.parametrize(
    "url", ["hospital", "ftp://x", "http://", "http://bob:pw@x", "http://x?y=1", 7, "http://x:port"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="no address"):
        grid.connect(url, token="t")


@pytest.mark.parametrize(
    "answer", [(200, b"<html>"), (302, None), (404, b"not here"), (500, {"detail": "x"}), (200, [])]
)
def test_something_else_at_the_address_is_said_to_be_so(answer: tuple[int, object]) -> None:
    class Stranger(FakeNode):
        def rest(self, *_: object) -> tuple[int, object]:
            return answer

    with running(Stranger()) as stranger, pytest.raises(ConnectionLostError, match="no grid node"):
        grid.connect(stranger.url, token="t")


def test_a_revoked_token_is_noticed_when_the_session_opens(hospital: FakeNode) -> None:
    with grid.connect(hospital.url, username="bob", password=PASSWORD) as node:
        hospital.tokens.clear()
        with pytest.raises(AuthenticationError, match="not known"):
            node.get(Ref(0), None)
        with pytest.raises(AuthenticationError):
            node.datasets()


def test_one_sign_in_opens_every_node(hospital: FakeNode, network: FakeNode) -> None:
    with grid.connect_network(network.url, username="dana", password="battery staple") as net:
        assert (net.user, net.id) == ("dana", "net")
        found = net.search("#Births")
        hospital.calls.clear()
        (births,) = found["hospital"]
        assert births.location.id == "hospital"
        assert not hospital.calls
        assert births.get().tolist() == [[1.0], [2.0]]
        assert births.location.user == "dana@net"
        again = net.search("#Births")["hospital"][0]
        assert again.location is births.location
        everything = str([(body, token) for _, _, body, token in hospital.calls])
        assert "battery staple" not in everything
        assert not any(token in everything for token in network.tokens)
    assert list(network.tokens) == ["grd_12345678_bob"]
    assert list(hospital.tokens) == ["grd_12345678_bob"]


def test_an_impostor_at_a_found_address_gets_nothing(hospital: FakeNode, network: FakeNode) -> None:
    with running(FakeNode()) as impostor:
        network.results[0]["node"]["url"] = impostor.url
        with grid.connect_network(network.url, username="dana", password="battery staple") as net:
            (births,) = net.search()["hospital"]
            with pytest.raises(AuthenticationError, match="does not hold the node's key"):
                births.get()
        assert [(method, path, token) for method, path, _, token in impostor.calls] == [("GET", "/api/identity/", "")]
        assert impostor.sessions == 0


def test_a_guest_uses_the_only_connection_to_a_node(hospital: FakeNode, network: FakeNode) -> None:
    net = grid.connect_network(network.url)
    assert (net.user, net.rights) == (None, ())
    before = net.search()["hospital"][0]
    with pytest.raises(AuthenticationError, match=r"network\.attach"):
        before.get()
    with grid.connect(hospital.url, username="bob", password=PASSWORD) as bob:
        found = net.search()["hospital"][0]
        assert found.location is bob
        assert found.get().shape == (2, 1)
        assert before.get().shape == (2, 1)
        with grid.connect(hospital.url, token="grd_12345678_bob") as second:
            several = net.search()["hospital"][0]
            with pytest.raises(AuthenticationError, match=r"several.*network\.attach"):
                several.get()
            net.attach(second)
            assert net.search()["hospital"][0].location is second
    net.close()


def test_a_guest_s_token_never_goes_to_the_address_of_a_search(hospital: FakeNode, network: FakeNode) -> None:
    with running(FakeNode()) as impostor:
        network.results[0]["node"]["url"] = impostor.url
        net = grid.connect_network(network.url)
        early = net.search()["hospital"][0]
        with grid.connect(hospital.url, username="bob", password=PASSWORD):
            assert early.get().shape == (2, 1)
            assert net.search()["hospital"][0].get().shape == (2, 1)
        net.close()
        assert impostor.calls == []


def test_rest_keeps_to_its_host_and_to_the_tree_of_errors(hospital: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridclient.http.PATIENCE", 0.1)
    http = Http(hospital.url, "grd_12345678_bob")
    with pytest.raises(NotFoundError, match="no such thing"):
        http.get("nothing/")
    hospital.unknown_route = (302, None)
    with pytest.raises(ConnectionLostError):
        http.get("nothing/")
    hospital.unknown_route = (503, b"down")
    with pytest.raises(ConnectionLostError, match="Nobody answers"):
        http.get("nothing/")
    http.close()
