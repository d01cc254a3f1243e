"""Lost connections to a real node."""

from __future__ import annotations

import torch

import gridclient as grid
from gridclient.node import Node
from tests.factories.crew import fresh


def cut(node: Node) -> None:
    """End the socket as a broken line does."""
    connection = node._connection
    socket = connection._dialogue.socket
    assert socket is not None
    connection._loop.call_soon_threadsafe(socket.abort)


def test_values_outlive_the_socket(scientist: Node) -> None:
    values = torch.rand(300_000)
    sent = grid.send(values, scientist)
    doubled, dropped = sent * 2, sent - 1
    assert torch.equal(doubled.get(), values * 2)
    del dropped
    for _ in range(3):
        cut(scientist)
        assert torch.equal(doubled.get(), values * 2)
        assert torch.equal((doubled + 1).sum().get(), (values * 2 + 1).sum())


def test_a_publication_outlives_the_socket_and_happens_once(owner: Node) -> None:
    name = fresh("wards")
    owner.recorder.input_constant(torch.ones(2)).get()
    cut(owner)
    grid.private_tensor(torch.rand(5000, 20), name=name).send(owner)
    cut(owner)
    assert [dataset.name for dataset in owner.datasets() if dataset.name.startswith(name)] == [name]
