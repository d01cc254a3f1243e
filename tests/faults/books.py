"""What people of a storm were told, and whether the node's books say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from apps.compute.workers import CRASHED
from gridclient.node import Node
from gridclient.wire.errors import ConflictError, ConnectionLostError, InternalError
from tests.faults.ground import BASE, Ground, until

DONE, NOT_DONE, OPEN = "acknowledged", "refused", "open"
PATIENCE = 60.0
DECIDED = {"approve": {"approved", "delivered"}, "deny": {"denied"}}
"""States of a request after a decision."""


@dataclass
class Books:
    """What this run's people were told. Things are named after the run, so that its own are found."""

    seed: int
    told: dict[tuple[str, str], str] = field(default_factory=dict)
    """Outcome of each thing, by kind and name."""
    values: dict[str, torch.Tensor] = field(default_factory=dict)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """New versions of a dataset by (name, outcome)."""
    requests: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Acknowledged requests: reason to id and factor."""
    grants: dict[str, int] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    interrupted: int = 0
    """Questions that were answered with the end of their worker."""

    def name(self, word: str, number: int) -> str:
        return f"s{self.seed}-{word}-{number}"

    def attempt(self, kind: str, name: str, do: Callable[[], Any]) -> Any:
        """Do it and note how it went; None where it was not acknowledged."""
        try:
            found = do()
        except ConnectionLostError:
            self.told[kind, name] = OPEN
        except ConflictError:
            self.told[kind, name] = NOT_DONE
        except InternalError as error:
            # Of its worker's end a node knows what that means; of its database's, as little as its client.
            self.told[kind, name] = NOT_DONE if error.message == CRASHED else OPEN
            self.interrupted += 1
        else:
            self.told[kind, name] = DONE
            return found if found is not None else True
        return None


def check(ground: Ground, books: Books) -> None:
    """Compare the books with the database, the files and what people see. Raises AssertionError."""
    ground.wait_until_up()
    sessions, datasets = ground.storage / "sessions", ground.storage / "datasets"
    left = until(lambda: not [path.name for path in sessions.glob("*")], 20)
    assert left, [path.name for path in sessions.glob("*")]
    assert not [*datasets.glob("incoming*")]
    mine = f"LIKE 's{books.seed}-%'"
    found = {
        "dataset": Counter(name for (name,) in ground.query(f"SELECT name FROM datasets_dataset WHERE name {mine}")),
        "request": Counter(
            name for (name,) in ground.query(f"SELECT reason FROM datarequests_datarequest WHERE reason {mine}")
        ),
        "grant": Counter(name for (name,) in ground.query(f"SELECT reason FROM permissions_grant WHERE reason {mine}")),
        "plan": Counter(name for (name,) in ground.query(f"SELECT name FROM plans_plan WHERE name {mine}")),
    }
    for (kind, name), outcome in books.told.items():
        if kind in found:
            there = found[kind].pop(name, 0)
            assert there in {DONE: (1,), NOT_DONE: (0,), OPEN: (0, 1)}[outcome], (kind, name, outcome, there)
    assert not any(found.values()), found
    _check_decisions(ground, books, mine)
    _check_events(ground, books, mine)
    with ground.enter("owner", direct=True) as owner, ground.enter("scientist", direct=True) as scientist:
        _check_values(ground, books, owner, mine)
        for reason, (key, factor) in books.requests.items():
            if books.told.get(("approve", reason)) == DONE:
                request = next(each for each in scientist.requests() if each.id == key).wait(timeout=PATIENCE)
                for _ in range(2):
                    got = request.get()
                    assert torch.equal(got, BASE * factor), reason
                    assert books.answers.setdefault(key, got.numpy().tobytes()) == got.numpy().tobytes()
    with ground.enter("admin", direct=True) as admin:
        report = admin.audit(verify=True)
        assert report, report


def _check_decisions(ground: Ground, books: Books, mine: str) -> None:
    rows = ground.query(f"SELECT reason, state, id FROM datarequests_datarequest WHERE reason {mine}")
    states = {reason: state for reason, state, _ in rows}
    for (kind, reason), outcome in books.told.items():
        possible = DECIDED.get(kind)
        if possible and outcome == DONE:
            assert states[reason] in possible, (kind, reason, states[reason])
        elif possible and outcome == NOT_DONE:
            assert states[reason] not in possible, (kind, reason, states[reason])
    revoked = {row[0] for row in ground.query(
        f"SELECT reason FROM permissions_grant WHERE revoked_at IS NOT NULL AND reason {mine}"
    )}  # fmt: skip
    for (kind, reason), outcome in books.told.items():
        if kind == "revoke" and outcome != OPEN:
            assert (reason in revoked) == (outcome == DONE), (reason, outcome)


def _check_events(ground: Ground, books: Books, mine: str) -> None:
    """Everything that is there was recorded once."""
    events = Counter((verb, target) for verb, target in ground.query("SELECT verb, target FROM audit_auditevent"))
    for (key,) in ground.query(f"SELECT id FROM datarequests_datarequest WHERE reason {mine}"):
        target = f"request:{_uuid(key)}"
        assert events["request_submitted", target] == 1, target
        for verb in ("request_answered", "request_approved", "request_denied"):
            assert events[verb, target] <= 1, (verb, target)
    for (name,) in ground.query(f"SELECT name FROM plans_plan WHERE name {mine}"):
        assert (events["plan_sent", f"plan:{name}"], events["plan_replaced", f"plan:{name}"]) == (1, 0), name
    for name, key in ground.query(f"SELECT name, id FROM datasets_dataset WHERE name {mine}"):
        versions = ground.query(
            f"SELECT v.number FROM datasets_datasetversion v JOIN datasets_dataset d ON d.id = v.dataset_id "
            f"WHERE d.name = '{name}'"
        )
        assert sorted(number for (number,) in versions) == [*range(1, len(versions) + 1)]
        assert len(versions) - 1 - books.versions[name, DONE] in range(books.versions[name, OPEN] + 1), name
        for (number,) in versions:
            verb = "dataset_published" if number == 1 else "dataset_replaced"
            assert events[verb, f"dataset:{_uuid(key)}@{number}"] == 1, (name, number)
            folder = ground.storage / "datasets" / _uuid(key) / str(number)
            assert any(folder.iterdir()), folder


def _check_values(ground: Ground, books: Books, owner: Node, mine: str) -> None:
    for name, values in books.values.items():
        if not books.versions[name, OPEN]:
            assert torch.equal(owner.dataset(name).pointer().get(), values), name


def _uuid(key: Any) -> str:
    text = str(key).replace("-", "")
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
