"""What the parts of the walk share: a running grid, who is signed in, and how things are said."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import gridclient as grid
from demo.printing import Printer, StepFailed

PASSWORD = "a-long-demo-password"
PATIENCE = 30.0
"""Seconds until the network must have heard of a dataset."""


class Stage:
    """A grid, and the connections to it; `network` is dana's, once she has signed in."""

    network: Any

    def __init__(self, where: dict[str, Any], connections: ExitStack) -> None:
        self.where = where
        self.out = Printer()
        self._connections = connections

    def node(self, name: str, username: str) -> Any:
        """A connection of this account to a node; closed at the end."""
        return self.enter(grid.connect(self.where["nodes"][name]["url"], username=username, password=PASSWORD))

    def enter(self, connection: Any) -> Any:
        """The connection, to be closed at the end."""
        return self._connections.enter_context(connection)

    def search(self, *terms: str, nodes: int = 1) -> dict[str, list[Any]]:
        """What the network finds, on at least so many nodes: announcements need a moment to travel."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self.network.search(*terms)
            if len(found) >= nodes:
                return dict(found)
            time.sleep(0.1)
        raise StepFailed(f"The network never heard of {' '.join(terms)}.")

    def grant(self, node: str, dataset: str, right: str, reason: str) -> None:
        """A right for dana on one dataset, by its owner."""
        with grid.connect(self.where["nodes"][node]["url"], username="olivia", password=PASSWORD) as owner:
            owner.dataset(dataset).grant("dana@network", right, reason=reason)


def refused(action: Callable[[], Any]) -> Any:
    """Run an action that must be refused, and return the error, which can `.request(...)`."""
    try:
        action()
    except grid.GetNotPermittedError as error:
        return error
    raise StepFailed("A value left the node without a right to it.")
