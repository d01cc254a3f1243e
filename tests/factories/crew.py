"""People of a live deployment who use the SDK, as its users do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, TypeVar

import pytest
import torch

import gridclient
from gridclient.network import GridNetwork
from gridclient.node import Node
from tests.factories.grid import LiveGrid, Server

PASSWORD = "correct horse battery"
PATIENCE = 20.0
"""Seconds until an announcement must have travelled, on a machine that is busy."""
T = TypeVar("T")
_numbers = count(1)


def fresh(word: str) -> str:
    """A name that nobody has taken: all tests share one grid."""
    return f"{word}-{next(_numbers)}"


class Crew:
    """Accounts of one live node, connected; all of them leave together."""

    def __init__(self, server: Server, connections: ExitStack) -> None:
        self.server = server
        self._connections = connections
        self.admin = self.enter(server.username, server.password)

    def enter(self, username: str, password: str = PASSWORD) -> Node:
        """One more session of an account."""
        return self._connections.enter_context(
            gridclient.connect(self.server.url, username=username, password=password)
        )

    def hire(self, *roles: str) -> Node:
        """A new account with these roles, signed in."""
        name = fresh(roles[0] if roles else "nobody")
        self.admin.create_user(name, password=PASSWORD, roles=list(roles))
        return self.enter(name)


@contextmanager
def crew_of(server: Server) -> Iterator[Crew]:
    with ExitStack() as connections:
        yield Crew(server, connections)


@contextmanager
def network_account(grid: LiveGrid) -> Iterator[GridNetwork]:
    """A new account of the network, signed in; the nodes have not heard of it."""
    name, place = fresh("dana"), grid.network
    with gridclient.connect_network(place.url, username=place.username, password=place.password) as operator:
        operator.create_user(name, password=PASSWORD, roles=["scientist"])
    with gridclient.connect_network(place.url, username=name, password=PASSWORD) as network:
        yield network


def eventually(look: Callable[[], T], *, seconds: float = PATIENCE) -> T:
    """What `look` returns once that is true; its last answer after `seconds`."""
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def sent(values: torch.Tensor, node: Node) -> Any:
    """A pointer to a public tensor; what is computed from it has `.get()`, unlike what torch's types say."""
    return gridclient.send(values, node)


def refused(action: Callable[[], Any]) -> Any:
    """The error of a value that may not leave; it carries `.request(reason=...)`."""
    with pytest.raises(gridclient.GetNotPermittedError) as caught:
        action()
    return caught.value
