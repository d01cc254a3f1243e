"""Accounts of a live node through the SDK: who is let in, what their role allows, and what errors say to do."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import pytest
import torch

import gridclient
from gridclient import identity
from gridclient.node import Node
from tests.factories.crew import PASSWORD, Crew, fresh, sent
from tests.factories.grid import LiveGrid


def test_new_colleague_signs_in_with_the_rights_of_her_role(crew: Crew) -> None:
    name = fresh("ana")
    account = crew.admin.create_user(name, password=PASSWORD, roles=["scientist"])
    assert (account.username, list(account.roles), account.active) == (name, ["scientist"], True)
    ana = crew.enter(name)
    assert (ana.user, ana.id) == (name, "hospital")
    assert "compute.use" in ana.rights
    assert "datasets.publish" not in ana.rights
    assert [user.username for user in ana.users()] == [name]
    assert name in [user.username for user in crew.admin.users()]


def test_new_role_counts_in_the_open_session(crew: Crew) -> None:
    bob = crew.hire("scientist")
    records = gridclient.private_tensor(torch.rand(3), name=fresh("first"))
    with pytest.raises(gridclient.PublishNotPermittedError, match="role of a data owner"):
        records.send(bob)
    assert list(crew.admin.set_roles(bob.user, ["owner"]).roles) == ["owner"]
    assert records.send(bob).shape == (3,)
    crew.admin.set_roles(bob.user, ["scientist"])
    with pytest.raises(gridclient.PublishNotPermittedError):
        records.send(bob)


def test_colleague_who_left_is_out_at_once_and_may_come_back(crew: Crew) -> None:
    bob = crew.hire("scientist")
    pointer = sent(torch.ones(2), bob)
    assert torch.equal(pointer.get(), torch.ones(2))
    assert crew.admin.deactivate_user(bob.user).active is False
    with pytest.raises(gridclient.AuthenticationError):
        (pointer + 1).get()
    with pytest.raises(gridclient.AuthenticationError, match="Check the name and the password"):
        crew.enter(bob.user)
    with pytest.raises(gridclient.ConflictError):
        crew.admin.create_user(bob.user, password=PASSWORD)
    assert crew.admin.reactivate_user(bob.user).active is True
    back = crew.enter(bob.user)
    assert torch.equal(sent(torch.ones(2), back).get(), torch.ones(2))
    with pytest.raises(gridclient.AuthenticationError):
        bob.http.get("me/")


def test_new_password_ends_the_sessions_of_the_old_one(crew: Crew) -> None:
    bob = crew.hire("scientist")
    crew.admin.set_password(bob.user, "another long passphrase")
    with pytest.raises(gridclient.AuthenticationError):
        bob.datasets()
    assert crew.enter(bob.user, "another long passphrase").user == bob.user


def test_team_has_exactly_its_members(crew: Crew, scientist: Node) -> None:
    slug, other = fresh("researchers"), crew.hire("scientist")
    team = crew.admin.create_team(slug, name="Researchers", members=[scientist.user])
    assert (team.slug, team.name, list(team.members)) == (slug, "Researchers", [scientist.user])
    assert list(crew.admin.set_members(slug, [other.user]).members) == [other.user]
    assert slug in [team.slug for team in other.teams()]
    assert slug not in [team.slug for team in scientist.teams()]
    with pytest.raises(gridclient.InvalidInputError, match="nobody-1, nobody-2"):
        crew.admin.set_members(slug, ["nobody-1", other.user, "nobody-2"])
    assert [list(team.members) for team in crew.admin.teams() if team.slug == slug] == [[other.user]]


def test_people_without_the_role_manage_nobody(crew: Crew, scientist: Node, owner: Node) -> None:
    for person in (scientist, owner):
        with pytest.raises(gridclient.NotPermittedError):
            person.create_user(fresh("eve"), password=PASSWORD, roles=["administrator"])
        with pytest.raises(gridclient.NotPermittedError):
            person.create_team(fresh("eves"))
        with pytest.raises(gridclient.GridError) as refused:
            person.set_roles(person.user, ["administrator"])
        assert refused.value.status in (403, 404)
        with pytest.raises(gridclient.NotPermittedError):
            person.audit(verify=True)


def test_token_works_without_a_password_until_it_is_revoked(
    crew: Crew, scientist: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires = datetime.now(UTC) + timedelta(days=3)
    token = scientist.create_token(name="laptop", expires=expires)
    assert token.token.startswith("grd_")
    assert token.prefix in [entry.prefix for entry in scientist.tokens()]
    assert all("token" not in entry._fields for entry in scientist.tokens())
    with gridclient.connect(crew.server.url, token=token.token) as node:
        assert node.user == scientist.user
        pointer = sent(torch.ones(1), node)
        assert pointer.get() == 1
    # Leaving does not end a token that the person made.
    monkeypatch.setenv("GRID_TOKEN", token.token)
    with gridclient.connect(crew.server.url) as node:
        assert node.user == scientist.user
        scientist.revoke_token(token)
        with pytest.raises(gridclient.AuthenticationError):
            node.datasets()
    with pytest.raises(gridclient.AuthenticationError):
        gridclient.connect(crew.server.url)


def test_administrator_makes_a_token_for_a_colleague(crew: Crew, scientist: Node, owner: Node) -> None:
    token = crew.admin.create_token(scientist.user, name="cluster")
    with gridclient.connect(crew.server.url, token=token.token) as node:
        assert node.user == scientist.user
    with pytest.raises(gridclient.GridError) as refused:
        owner.create_token(scientist.user, name="stolen")
    assert refused.value.status in (403, 404)
    with pytest.raises(gridclient.GridError) as refused:
        owner.revoke_token(token)
    assert refused.value.status == 404
    with pytest.raises(gridclient.InvalidInputError):
        scientist.create_token(name="past", expires="2001-01-31")


def test_token_for_one_thing_does_no_other(crew: Crew, owner: Node) -> None:
    records = gridclient.private_tensor(torch.rand(3), name=fresh("scoped"))
    texts = {scope: owner.create_token(name=scope, scopes=[scope]).token for scope in ("read", "compute", "publish")}
    done = set()
    for scope, text in texts.items():
        with gridclient.connect(crew.server.url, token=text) as node:
            assert isinstance(node.datasets(), list)
            assert node.scopes == (scope,)
            one = sent(torch.ones(2), node)
            for needed, act in {"compute": one.get, "publish": lambda node=node: records.send(node)}.items():
                if scope == needed:
                    act()
                    done.add(scope)
                else:
                    with pytest.raises(gridclient.NotPermittedError, match=f"a token for {needed} too"):
                        act()
    assert done == {"compute", "publish"}


def test_each_way_of_failing_to_connect_says_what_to_do(
    grid: LiveGrid, crew: Crew, scientist: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = crew.server.url
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(gridclient.ConnectionLostError, match=r"Nobody answers at .* Check the address"):
            gridclient.connect(nowhere, username=scientist.user, password=PASSWORD)
    with pytest.raises(gridclient.AuthenticationError, match="Check the name and the password") as wrong:
        gridclient.connect(url, username=scientist.user, password="not the password")
    unknown = fresh("nobody")
    with pytest.raises(gridclient.AuthenticationError) as stranger:
        gridclient.connect(url, username=unknown, password="not the password")
    # Whether an account exists is not told.
    assert str(stranger.value).replace(unknown, scientist.user) == str(wrong.value)
    with pytest.raises(gridclient.InvalidInputError, match=r"is a network, .* use grid\.connect_network"):
        gridclient.connect(grid.network.url, username=scientist.user, password=PASSWORD)
    with pytest.raises(gridclient.InvalidInputError, match=r"is a node, .* use grid\.connect\("):
        gridclient.connect_network(url)
    with pytest.raises(gridclient.AuthenticationError, match="GRID_TOKEN"):
        gridclient.connect(url)
    with pytest.raises(gridclient.InvalidInputError, match="no address"):
        gridclient.connect("hospital", username="bob", password=PASSWORD)
    with pytest.raises(gridclient.AuthenticationError):
        gridclient.connect(url, token="grd_00000000_" + "A" * 43)
    monkeypatch.setattr(identity, "PROTOCOL_VERSION", 0)
    with pytest.raises(gridclient.VersionMismatchError, match="upgrade gridclient"):
        gridclient.connect(url, username=scientist.user, password=PASSWORD)
    monkeypatch.setattr(identity, "PROTOCOL_VERSION", 99)
    with pytest.raises(gridclient.VersionMismatchError, match="upgrade the deployment"):
        gridclient.connect(url, username=scientist.user, password=PASSWORD)
