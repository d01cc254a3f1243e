"""Who works with the node while a storm goes over it. What they do is drawn; what they are told is in the books."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import torch

import gridclient
from gridclient.wire.errors import ConnectionLostError, InternalError
from tests.faults.books import DONE, OPEN, PATIENCE, Books
from tests.faults.ground import BASE, Ground

STEPS = 6
OTHER = {"approve": "deny", "deny": "approve"}


class Person:
    """Somebody who works. Steps are drawn by name."""

    def __init__(self, ground: Ground, books: Books, random: Random) -> None:
        self.ground, self.books, self.random = ground, books, random
        self.number = 0

    steps: tuple[str, ...] = ()
    account = ""

    def enter(self) -> None:
        """Connect, before the storm: a first connection is not tried again."""
        self.node = self.ground.enter(self.account)
        self._says_something()

    def work(self) -> None:
        for self.number in range(STEPS):
            getattr(self, self.random.choice(self.steps))()

    def leave(self) -> None:
        """When the storm is over: only who is connected can say goodbye, and else the session is kept for a minute."""
        try:
            self._says_something()
        finally:
            self.node.close()

    def _says_something(self) -> None:
        self.asked(lambda: gridclient.send(torch.ones(2), self.node).get())

    def asked(self, question: Callable[[], Any]) -> Any:
        """The answer to a question, asked again where the end of its worker was the answer."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                return question()
            except InternalError:
                self.books.interrupted += 1
                time.sleep(0.05)
        raise AssertionError("The node cannot answer any more.")


class Owner(Person):
    """Publishes, gives and takes rights, sends plans, decides."""

    account = "owner"
    steps = ("publish", "publish", "replace", "plan", "grant", "decide", "decide", "think_again")

    def _values(self) -> torch.Tensor:
        rows = self.random.choice([40, 3000, 60_000])
        return torch.arange(rows * 2, dtype=torch.float64).reshape(rows, 2) % 97 + self.number

    def publish(self) -> None:
        name, values = self.books.name("data", self.number), self._values()
        private = gridclient.private_tensor(values, name=name, bounds=(0, 200))
        if self.books.attempt("dataset", name, lambda: private.send(self.node)) is not None:
            self.books.values[name] = values

    def replace(self) -> None:
        if not self.books.values:
            return self.publish()
        name, values = self.random.choice([*self.books.values]), self._values()
        if self.books.versions[name, OPEN]:
            return None  # which version is the newest is not known any more
        version = f"{name}+{self.number}"
        new = self.books.attempt("version", version, lambda: self.node.dataset(name).replace(values))
        outcome = self.books.told["version", version]
        self.books.versions[name, outcome] += 1
        if new is not None:
            self.books.values[name] = values
        return None

    def plan(self) -> None:
        name, factor = self.books.name("plan", self.number), float(self.random.randrange(2, 9))
        plan = gridclient.plan(lambda x: x * factor, example=(torch.ones(3),), name=name)
        self.books.attempt("plan", name, lambda: plan.send(self.node))

    def grant(self) -> None:
        reason = self.books.name("grant", self.number)
        base = self.ground.base
        given = self.books.attempt(
            "grant", reason, lambda: self.node.dataset(base.name).grant("scientist", "discover", reason=reason)
        )
        if given is not None and self.random.random() < 0.5:
            self.books.grants[reason] = int(given.id)
            self.books.attempt("revoke", reason, lambda: self.node.http.delete(f"grants/{given.id}/"))

    def decide(self) -> None:
        try:
            waiting = self.node.requests(state="submitted")
        except (ConnectionLostError, InternalError):
            return
        for request in [each for each in waiting if each.reason.startswith(f"s{self.books.seed}-")][:2]:
            verb = self.random.choice(["approve", "approve", "deny"])
            self.books.attempt(verb, request.reason, lambda: getattr(request, verb)(reason="A decision."))  # noqa: B023

    def think_again(self) -> None:
        """Decide the other way about what is decided, which must be refused."""
        decided = [(verb, reason) for (verb, reason), told in self.books.told.items() if verb in OTHER and told == DONE]
        if not decided:
            return self.decide()
        verb, reason = self.random.choice(decided)
        key = next((key for name, (key, _) in [*self.books.requests.items()] if name == reason), None)
        if key is not None:
            path = f"requests/{key}/{OTHER[verb]}/"
            self.books.attempt(OTHER[verb], reason, lambda: self.node.http.post(path, reason="On second thought."))
        return None


class Scientist(Person):
    """Uploads, computes, takes aggregates, asks for values and fetches them."""

    account = "scientist"
    steps = ("compute", "compute", "aggregate", "ask", "ask", "fetch", "fetch")

    def compute(self) -> None:
        size = self.random.choice([3, 5_000, 400_000])
        values = torch.arange(size, dtype=torch.float64) + self.number
        doubled = gridclient.send(values, self.node) * 2 + 1
        for _ in range(2):
            assert torch.equal(self.asked(doubled.get), values * 2 + 1)

    def aggregate(self) -> None:
        pointer = self.node.pointer(self.ground.base)
        assert torch.equal(self.asked(lambda: pointer.sum(0).get()), BASE.sum(0))
        assert torch.equal(self.asked(lambda: pointer.mean(0).get()), BASE.mean(0))

    def ask(self) -> None:
        reason, factor = self.books.name("request", self.number), float(self.random.randrange(2, 1000))
        pointer = self.node.pointer(self.ground.base) * factor
        request = self.books.attempt("request", reason, lambda: pointer.request(reason))
        if request is not None:
            self.books.requests[reason] = request.id, factor

    def fetch(self) -> None:
        try:
            mine = self.node.requests()
        except (ConnectionLostError, InternalError):
            return
        for request in mine:
            if request.reason in self.books.requests and request.state in ("approved", "delivered"):
                factor = self.books.requests[request.reason][1]
                self._compare(request.wait(timeout=PATIENCE), factor)

    def _compare(self, request: Any, factor: float) -> None:
        """The same bytes each time."""
        found = self.asked(request.get)
        assert torch.equal(found, BASE * factor)
        data = found.numpy().tobytes()
        assert self.books.answers.setdefault(request.id, data) == data
