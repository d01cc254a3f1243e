"""A ward to attack: people with every role, their tokens, and data of random numbers, on the live grid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gridclient.program.graph import Ref
from gridclient.wire.errors import GridError
from gridclient.wire.messages import Column
from tests.factories.grid import LiveGrid, Server
from tests.factories.raw import RawClient, rest, sign_in

PASSWORD = "correct-horse-battery-{}"
ROLES = {
    "owner": ["owner"],
    "neighbour": ["owner"],
    "scientist": ["scientist"],
    "analyst": ["scientist"],
    "stranger": ["scientist"],
    "reviewer": ["reviewer"],
    "auditor": ["auditor"],
}
LOW, HIGH = 100.0, 1000.0
Build = Callable[[RawClient], Ref]


@dataclass
class Ward:
    """`tokens` by person; `administrator` is the node's first account."""

    server: Server
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)
    clients: dict[str, RawClient] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url

    def client(self, person: str) -> RawClient:
        """The person's session for all attacks, opened when first needed."""
        if person not in self.clients:
            self.clients[person] = RawClient(self.url, self.tokens[person])
        return self.clients[person]

    def call(self, person: str | None, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One REST call as a person; None: nobody."""
        return rest(method, f"{self.url}/api/{path}", body, token=self.tokens[person] if person else "")

    def publish(self, values: np.ndarray, name: str, *, by: str = "owner", **spec: Any) -> dict[str, Any]:
        """A published tensor with bounded columns."""
        width = values.shape[1] if values.ndim == 2 else 1
        spec.setdefault("columns", [Column(f"c{i}", low=LOW, high=HIGH) for i in range(width)])
        return self.client(by).publish(values, name=name, **spec)

    def grant(self, dataset: dict[str, Any], to: str, right: str) -> None:
        given = {"to": f"attack-{to}", "right": right, "reason": "A study."}
        status, body = self.call("owner", "POST", f"datasets/{dataset['slug']}/grants/", given)
        assert status == 201, body

    def values_file(self, dataset: dict[str, Any]) -> Path:
        """The file of the current version's values, on the node's disk."""
        (found,) = self.folder.rglob(f"datasets/{dataset['id']}/{dataset['version']}/values.*")
        return found

    def digest(self, dataset: dict[str, Any]) -> str:
        return hashlib.sha256(self.values_file(dataset).read_bytes()).hexdigest()

    def close(self) -> None:
        for client in self.clients.values():
            client.socket.close()


def open_ward(grid: LiveGrid) -> Ward:
    """Make the people and sign them in."""
    server = grid.hospital
    ward = Ward(server, grid.folder / server.name)
    ward.tokens["administrator"] = sign_in(server.url, server.username, server.password)
    for person, roles in ROLES.items():
        account = {"username": f"attack-{person}", "password": PASSWORD.format(person)}
        status, body = ward.call("administrator", "POST", "users/", {**account, "roles": roles})
        assert status == 201, body
        ward.tokens[person] = sign_in(server.url, **account)
    return ward


def private_values(*shape: int, seed: int) -> np.ndarray:
    """Random numbers within the declared bounds, with all their digits."""
    return np.random.default_rng(seed).uniform(LOW + 1, HIGH - 1, shape)


def tried(client: RawClient, value: Ref | Build) -> Any:
    """What a program gives: the answer, or the refusal."""
    try:
        return client.get(value if isinstance(value, Ref) else value(client))
    except GridError as error:
        return error
