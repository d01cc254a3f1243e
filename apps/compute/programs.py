"""A session's program inside its worker: it grows node by node, each checked, judged and priced. Nothing runs here.

What a node gives is known at once (`judging.py`), or why it may not be there: the error stays with the node and with
everything that needs it, and is told when a value is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from apps.compute.calls import Call, Plans, claimed
from apps.compute.constants import Constants
from apps.compute.entries import Asset, Called, Entry, Judged, Written
from apps.compute.judging import Fact, Judge, Step
from apps.compute.labels import PUBLIC
from apps.compute.messages import Limits
from apps.compute.repeats import Repeats
from apps.compute.targets import TARGETS, bind
from apps.compute.training import NO_MARKS, ROOT, Kind, Marks, Training
from gridclient.program.graph import ASSET, PARAMETER, Node, Ref, lineage_hash, lineage_of, refs
from gridclient.program.plan_graph import PLAN
from gridclient.wire.errors import GridError, InternalError, InvalidInputError, LimitExceededError

MAX_LINE = 200
MAX_NODE = 2**32


_NO_ASSETS: frozenset[Asset] = frozenset()


class Failure(NamedTuple):
    """A node that may not be there, and where the user wrote it."""

    error: GridError
    line: str


class _Inherited(Exception):
    """An operand's failure, on its way to the node that needs it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Plan(NamedTuple):
    """What is left to compute for values, in order, and what that needs at most. `ends`: see `Program.last_uses`."""

    order: list[int]
    flops: int
    nbytes: int
    ends: dict[int, list[int]]


class Program:
    """The nodes, the data they may name, and the limits they are held to."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.entries: dict[int, Entry] = {}
        self.failures: dict[int, Failure] = {}
        self.hashes: dict[int, str] = {}
        self.training = Training()
        self.constants = Constants(limits.memory // 4)
        self.plans = Plans(self.constants)
        self.repeats = Repeats()
        self._shown: dict[int, int] = {}  # by id of a node inside a call, a bit for each output that is a result
        self.judge = Judge(limits, self.constants, self._operand, self.hashes)
        self._last = -1
        self._nbytes = 0
        self._broken: GridError | None = None

    # --- growing ---

    def append(self, nodes: list[Node], nbytes: int) -> list[Ref]:
        """Append nodes that arrived as `nbytes` bytes. Never raises: what is wrong is told when it is asked for.

        Returns what nothing needs from the start: values inside of calls are held by nobody.
        """
        unneeded: list[Ref] = []
        self._count(len(nodes), nbytes)
        for node in nodes:
            if self._broken is not None:
                break
            if node.op == PLAN:
                unneeded += self._call(node)
            else:
                self._append(node)
        return unneeded

    def _count(self, nodes: int, nbytes: int) -> None:
        self._nbytes += nbytes
        if len(self.entries) + len(self.failures) + nodes > self.limits.nodes or self._nbytes > self.limits.program:
            self._broken = LimitExceededError(
                f"A session's program has at most {self.limits.nodes} operations in {self.limits.program} bytes. "
                "Connect again for a new session, and do it in smaller programs.",
                limit=self.limits.nodes,
            )

    def _call(self, node: Node) -> list[Ref]:
        """Write a call out. Returns its values that nothing needs."""
        size = claimed(node)
        self._count(size, 0)
        if self._broken is not None or not self._take(node.id, size):
            return []
        try:
            call = self.plans.call(node)
            for ref in call.operands:
                self.check_shown(ref)
        except GridError as error:
            failure = Failure(error, node.line[:MAX_LINE])
            self.failures |= dict.fromkeys(range(node.id, node.id + size), failure)
            return []
        self._count(0, call.plan.nbytes)
        numbers = range(node.id, node.id + size)
        self._shown.update(zip(numbers, call.plan.shown, strict=True))
        key = self.repeats.key(call, self.entries)
        judged = self.repeats.find(key)
        if judged is not None:
            self._repeat(call, judged)
        else:
            for written in call.plan.graph.written_out(node.id, call.operands, call.seed, node.line):
                self._append(written, inside=True)
            self.repeats.keep(key, [self.entries.get(number) for number in numbers])
        unneeded: list[Ref] = []
        for number, shown in zip(numbers, call.plan.shown, strict=True):
            entry = self.entries.get(number)
            if entry is not None:
                entry.held &= shown
                if not entry.held and not entry.waiting:
                    unneeded.append(Ref(number))
        return unneeded

    def _repeat(self, call: Call, judged: list[Judged]) -> None:
        """Append the nodes of a call that was judged before. What is new of them is their lineage."""
        places = [*(ref.node for ref in call.operands), *range(call.first, call.first + len(judged))]
        lineages = [lineage_of(ref, self.hashes) for ref in call.operands]
        entries, hashes = self.entries, self.hashes
        for place, (form, known) in enumerate(zip(call.plan.forms, judged, strict=True)):
            number = call.first + place
            needed = () if known.step.shapes_only else tuple({places[named] for named in form.named})
            digest = form.lineage.digest(lineages, len(call.operands))
            lineages.append(digest)
            hashes[number] = digest.hex()
            entries[number] = Called(call, place, form.op, known, needed)
            for operand in needed:
                entries[operand].waiting += 1

    def check_shown(self, ref: Ref) -> None:
        """Raise InvalidInputError for a value inside of a call that is none of its results."""
        if not self._shown.get(ref.node, -1) >> max(ref.output, 0) & 1:
            raise InvalidInputError("This value is inside of a plan; only its results can be used.")

    def end(self, error: GridError) -> None:
        """Take no more nodes: what is not there by now is answered with this error."""
        self._broken = self._broken or error

    def _take(self, first: int, size: int = 1) -> bool:
        """Whether these ids are free; otherwise nothing more is taken."""
        if not self._last < first <= MAX_NODE - size:
            self._broken = InvalidInputError("Ids of nodes only grow, and are less than 2**32.")
            return False
        self._last = first + size - 1
        return True

    def _append(self, node: Node, *, inside: bool = False) -> None:
        if not inside and not self._take(node.id):
            return
        try:
            step, named = self.judge.step(node)
            needed = () if step.shapes_only else named
            marks = self._marks(node, step, needed)
        except _Inherited as inherited:
            self.failures[node.id] = inherited.failure
        except GridError as error:
            self.failures[node.id] = Failure(error, node.line[:MAX_LINE])
        except Exception:  # a mistake of ours must not end the session
            ours = InternalError(f"{node.op[:64]} could not be judged.", operation=node.op[:64])
            self.failures[node.id] = Failure(ours, node.line[:MAX_LINE])
        else:
            self.hashes[node.id] = lineage_hash(node, self.hashes)
            self.entries[node.id] = Written(node, Judged(step, self._assets(node, named), marks), needed)
            for number in needed:
                self.entries[number].waiting += 1

    def _assets(self, node: Node, named: tuple[int, ...]) -> frozenset[Asset]:
        if node.op == ASSET:
            dataset, version, part = node.args
            return frozenset([(dataset, version, part)])
        found = _NO_ASSETS
        for number in named:
            assets = self.entries[number].assets
            if assets is not found:
                found = found | assets if found else assets
        return found

    def _marks(self, node: Node, step: Step, needed: tuple[int, ...]) -> Marks:
        if node.op == ROOT:
            return next((self.training.rooted(self.kind(ref), self.marks(ref)) for ref in refs(node)), NO_MARKS)
        marks = self.training.merged(self.entries[number].marks for number in needed)
        if node.op == PARAMETER:
            bound = bind(TARGETS[node.op], node)
            kind = Kind(step.facts[0].shape, step.facts[0].dtype, False)
            return self.training.sent(marks, bound["module"], bound["name"], kind, bound["trainable"])
        return marks

    def assets(self, ref: Ref) -> frozenset[Asset]:
        """The datasets, versions and parts that a value was made from, the public ones too."""
        return self.entries[ref.node].assets

    def marks(self, ref: Ref) -> Marks:
        """What a value owes to modules that were sent."""
        return self.entries[ref.node].marks

    def kind(self, ref: Ref) -> Kind:
        """What training asks of a value that is there."""
        fact = self.entries[ref.node].facts[ref.output]
        return Kind(fact.shape, fact.dtype, fact.label.kind != PUBLIC)

    def _operand(self, node: Node, ref: Ref) -> Fact:
        if node.id not in self._shown:
            self.check_shown(ref)
        entry = self.entries.get(ref.node)
        if entry is None:
            failure = self.failures.get(ref.node)
            if failure is not None:
                raise _Inherited(failure)
            raise InvalidInputError(f"{node.op[:64]} refers to a node that is not there before it.")
        if not 0 <= ref.output < len(entry.facts):
            raise InvalidInputError(f"{node.op[:64]} refers to an output that {entry.op} does not have.")
        return entry.facts[ref.output]

    # --- asking ---

    def fact(self, ref: Ref) -> Fact:
        """What is known of a value. Raises what is wrong with it; `details["line"]` says where it was written."""
        entry = self.entries.get(ref.node)
        if entry is not None and 0 <= ref.output < len(entry.facts):
            return entry.facts[ref.output]
        failure = self.failures.get(ref.node)
        if failure is not None:
            error = failure.error
            raise type(error)(error.message, **(error.details | ({"line": failure.line} if failure.line else {})))
        raise self._broken or InvalidInputError("This value is not part of the session's program.")

    def plan(self, results: Sequence[Ref], has: Callable[[int], bool]) -> Plan:
        """What is left to compute for these values. `has` says which nodes are there already.

        One half of the memory is for what runs, the other for values that are kept. Raises LimitExceededError where
        that is more than the limits allow, and InternalError where a public value would need a private one; nothing
        has run then.
        """
        # Whether a public answer comes, and when, would tell of the private values computed for it.
        public = all(self.fact(ref).label.kind == PUBLIC for ref in results)
        needed: set[int] = set()
        todo = [ref.node for ref in results]
        while todo:
            number = todo.pop()
            if public and not self.entries[number].public():
                raise InternalError("A public value would be computed from private ones; nothing was computed.")
            if number not in needed and not has(number):
                needed.add(number)
                todo.extend(self.entries[number].operands)
        order = sorted(needed)
        flops = sum(self.entries[number].flops for number in order)
        if flops > self.limits.flops:
            raise LimitExceededError(
                f"This needs about {flops:.2e} operations; the limit is {self.limits.flops:.2e}.",
                limit=self.limits.flops,
            )
        peak = live = 0
        ends = self.last_uses(order, results)
        for number in order:
            entry = self.entries[number]
            if entry.op != ASSET:  # assets are mapped, not loaded
                live += entry.nbytes
            if live > peak:
                peak = live
            for done in ends.get(number, ()):
                if self.entries[done].op != ASSET:
                    live -= self.entries[done].nbytes
        limit = self.limits.memory // 2
        if peak > limit:
            raise LimitExceededError(
                f"This needs about {peak} bytes of memory at a time; the limit is {limit}.", limit=limit
            )
        return Plan(order, flops, peak, ends)

    def settle(self, number: int) -> list[int]:
        """The node was computed, or nobody holds it: it waits for its operands no longer.

        Returns the nodes that nothing needs any more, whose values may go.
        """
        free: list[int] = []
        todo = [number]
        while todo:
            entry = self.entries[todo.pop()]
            if entry.settled:
                continue
            entry.settled = True
            for operand in entry.operands:
                below = self.entries[operand]
                below.waiting -= 1
                if not below.waiting and not below.held:
                    free.append(operand)
                    todo.append(operand)
        return free

    def last_uses(self, order: list[int], results: Sequence[Ref] = ()) -> dict[int, list[int]]:
        """By node, which nodes of `order` are needed there for the last time. `results` are needed to the end."""
        last: dict[int, int] = {}
        for number in order:
            for operand in self.entries[number].operands:
                last[operand] = number
        ends: dict[int, list[int]] = {}
        mine = set(order) - {ref.node for ref in results}
        for operand, number in last.items():
            if operand in mine:
                ends.setdefault(number, []).append(operand)
        return ends
