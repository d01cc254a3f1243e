"""Storms: people work with a node while its processes are killed and its sockets cut; then the books are checked.

    python -m tests.faults.storm --runs 500 [--first SEED]

A run is one seed: an owner and a scientist, each in a thread and each with the SDK, do what they drew from it, while
another thread does harm. What the node acknowledged must be there exactly once, what it refused must not be there, and
of what a lost connection left open (`ConnectionLostError`) all or nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch

import gridclient
from gridclient import settings
from gridclient.node import Node
from gridclient.wire.errors import ConnectionLostError, InternalError
from tests.faults.ground import BASE, Ground, ground_in, until

DONE, NOT_DONE, OPEN = "acknowledged", "refused", "open"
STEPS = 6
PATIENCE = 60.0


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
        except InternalError:
            self.told[kind, name] = NOT_DONE
            self.interrupted += 1
        else:
            self.told[kind, name] = DONE
            return found if found is not None else True
        return None


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
        for _ in range(50):
            try:
                return question()
            except InternalError:
                self.books.interrupted += 1
        raise AssertionError("The node cannot answer any more.")


class Owner(Person):
    """Publishes, gives and takes rights, sends plans, decides."""

    account = "owner"
    steps = ("publish", "publish", "replace", "plan", "grant", "decide", "decide")

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
        except ConnectionLostError:
            return
        for request in [each for each in waiting if each.reason.startswith(f"s{self.books.seed}-")][:2]:
            verb = self.random.choice(["approve", "approve", "deny"])
            self.books.attempt(verb, request.reason, lambda: getattr(request, verb)(reason="A decision."))  # noqa: B023


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
        for request in self.node.requests():
            if request.reason in self.books.requests and request.state in ("approved", "delivered"):
                factor = self.books.requests[request.reason][1]
                self._compare(request.wait(timeout=PATIENCE), factor)

    def _compare(self, request: Any, factor: float) -> None:
        """The same bytes each time."""
        found = self.asked(request.get)
        assert torch.equal(found, BASE * factor)
        data = found.numpy().tobytes()
        assert self.books.answers.setdefault(request.id, data) == data


class Harm:
    """What happens to the node meanwhile. `kinds`: how often each is drawn."""

    def __init__(self, ground: Ground, random: Random, more: dict[str, Callable[[], Any]]) -> None:
        self.ground, self.random = ground, random
        self.done: Counter[str] = Counter()
        self._all: dict[str, Callable[[], Any]] = {
            "cut": lambda: ground.line.cut_after(0),
            "cut after bytes": lambda: ground.line.cut_after(int(10 ** random.uniform(1, 6.3))),
            "workers": ground.kill_workers,
            "forkserver": ground.kill_forkserver,
            "web": ground.kill,
            **more,
        }
        rare = ["web", *more]
        # One hard thing a run at most: a start takes as long as everything else together.
        self._hard = random.choice(rare) if random.random() < (0.8 if more else 0.35) else ""

    def run(self, over: threading.Event) -> None:
        hard_at, blows = self.random.randrange(3), self.random.randrange(3, 9)
        for number in range(blows):
            if over.wait(self.random.expovariate(8)):
                return
            kind = self.random.choice(["cut", "cut after bytes", "cut after bytes", "workers", "forkserver"])
            if self._hard and number == hard_at:
                kind = self._hard
            elif kind == "forkserver" and self.random.random() < 0.7:
                continue
            self._all[kind]()
            self.done[kind] += 1
            if kind != self._hard and self.random.random() < 0.4:
                over.wait(0.5)


def run(ground: Ground, seed: int, more: dict[str, Callable[[], Any]] | None = None) -> Counter[str]:
    """One run, and the checks after it. Returns what was done and what harm there was."""
    random = Random(seed)
    books = Books(seed)
    harm = Harm(ground, Random(random.random()), more or {})
    people = [kind(ground, books, Random(random.random())) for kind in (Owner, Scientist)]
    over = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    for person in people:
        person.enter()
    workers = [threading.Thread(target=guarded, args=(person.work,)) for person in people]
    storm = threading.Thread(target=guarded, args=(lambda: harm.run(over),))
    for thread in (*workers, storm):
        thread.start()
    for thread in workers:
        thread.join(PATIENCE)
    if any(thread.is_alive() for thread in workers):
        errors.append(AssertionError(f"Somebody waits for ever:\n{_stacks(workers)}"))
        settings.timeout = 1.0
    over.set()
    storm.join()
    ground.line.mend()
    for person in people:
        guarded(person.leave)
    if errors:
        raise ExceptionGroup(f"seed {seed}: {dict(harm.done)}", errors)
    check(ground, books)
    return harm.done + Counter(f"{kind} {outcome}" for (kind, _), outcome in books.told.items())


def _stacks(threads: list[threading.Thread]) -> str:
    frames = sys._current_frames()
    return "\n".join("".join(traceback.format_stack(frames[each.ident])) for each in threads if each.ident in frames)


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
        possible = {"approve": {"approved", "delivered"}, "deny": {"denied"}}.get(kind)
        if possible and outcome == DONE:
            assert states[reason] in possible, (kind, reason, states[reason])
        elif possible and outcome == NOT_DONE and (kind, reason) not in books.told:
            assert states[reason] == "submitted", (kind, reason, states[reason])
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


def calm() -> None:
    """What a storm does to the client's log and progress bars is expected."""
    logging.getLogger("gridclient").setLevel(logging.ERROR)
    settings.progress = False


def main() -> None:
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many")
    options = parser.parse_args()
    calm()
    total: Counter[str] = Counter()
    began, failed, runs = time.monotonic(), [], 0
    with tempfile.TemporaryDirectory(prefix="gridsite-storm-") as folder, ground_in(Path(folder)) as ground:
        for seed in range(options.first, options.first + options.runs):
            if time.monotonic() - began > options.minutes * 60:
                break
            runs += 1
            try:
                total += run(ground, seed)
            except Exception as error:
                failed.append(seed)
                for each in getattr(error, "exceptions", [error]):
                    print("".join(traceback.format_exception(each)[-8:]), file=sys.stderr)
                print(error, file=sys.stderr)
            print(f"\rrun {runs}, failed: {failed}", end="", file=sys.stderr, flush=True)
    print(f"\n{runs} runs in {time.monotonic() - began:.0f} s; failed: {failed or 'none'}")
    for name, number in sorted(total.items()):
        print(f"{number:7} {name}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
