"""The process of one session: reads messages, grows the program, answers questions. No database, no network, no Django.

What a question raises is told by class, code and text where it is one of ours; anything else (also a lack of memory)
becomes one fixed text, because texts of libraries may depend on values.
"""

from __future__ import annotations

import io
import os
import resource
import select
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file

from apps.compute import closed, memory, messages, private, sealing, states
from apps.compute.constants import raw_bytes
from apps.compute.labels import PUBLIC
from apps.compute.messages import LENGTH, Limits
from apps.compute.programs import Program
from apps.compute.readers import words
from apps.compute.readers.torch import TorchReader, prepare
from apps.compute.summaries import steps
from apps.compute.targets import TARGETS
from apps.datasets.assets import TABLE, TENSOR
from apps.datasets.ingest import IngestLimits, ingest
from gridclient.program.graph import (
    CONSTANT,
    Dtype,
    Node,
    Ref,
    cut,
    decode_program,
    encode_program,
    result_hash,
    tensor_digest,
)
from gridclient.program.graph import Program as Graph
from gridclient.wire.errors import GridError, InternalError, InvalidInputError, LimitExceededError
from gridclient.wire.messages import INLINE_LIMIT, TensorHeader

CHEAP = 10**6
"""Operations that cost less than asking once more: a new exact aggregate is needed before it is decided about."""
IDLE_SECONDS = 1.0
"""After so long without a message, a worker gives back the memory that it keeps for the next operation."""
UNEXPECTED = "This could not be computed. Nothing was given out."


class Session:
    """The program and its values, and what each message does with them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.program = Program(limits)
        self.reader = TorchReader(self.program, limits.memory // 2)
        self._examiner = closed.Examiner()
        self._handlers: dict[type, Callable[[Any], messages.Reply]] = {
            messages.Propose: self.propose,
            messages.Evaluate: self.evaluate,
            messages.Weigh: lambda question: private.weigh(self.program, self.reader, question),
            messages.Seal: lambda question: sealing.seal(self.program, self.reader, question),
            messages.Draw: self.draw,
            messages.Examine: self.examine,
            messages.Export: self.export,
            messages.Load: self.load,
            messages.Ingest: self.ingest,
        }

    def handle(self, order: messages.Order, nbytes: int) -> messages.Reply | None:
        """What a message is answered with; None for those that ask nothing. Never raises."""
        match order:
            case messages.Append(nodes):
                for ref in self.program.append(nodes, nbytes):
                    self.reader.forget(ref)
            case messages.Forget(values):
                for ref in values:
                    self.reader.forget(ref)
            case messages.PutConstant(digest, header, data, path):
                _allow_mapped([path] if path else [])
                self.program.constants.put(digest, header, data, path)
            case messages.PutPlan(digest, data):
                self.program.plans.put(digest, data)
            case messages.Bind(spec, parts):
                self.program.judge.bind(spec, parts)
                _allow_mapped([str(spec.path(part)) for part in parts])
            case _:
                return self._answer(order)
        return None

    def _answer(self, question: messages.Question) -> messages.Reply:
        try:
            for ref in messages.asked(question):
                self.program.check_shown(ref)
            return self._handlers[type(question)](question)
        except GridError as error:
            details = dict(error.details)
            line = str(details.pop("line", ""))
            return messages.Failed(question.ask, error.code, error.message, details, line)
        except Exception:  # no text of a library leaves: it may depend on values
            return messages.Failed(question.ask, InternalError.code, UNEXPECTED)

    # --- questions ---

    def propose(self, question: messages.Propose) -> messages.Proposal:
        """Label, lineage and cost of a value. A small public tensor comes along, and on demand a cheap aggregate."""
        if isinstance(question.value, messages.State):
            return states.proposal(self.program, self.reader, question.ask, question.value)
        fact = self.program.fact(question.value)
        plan = self.program.plan([question.value], self.reader.has)
        trained, untrained = states.loss(self.program, question.value)
        value = None
        cheap = question.aggregate and fact.label.closed is not None and plan.flops <= CHEAP
        if (fact.label.kind == PUBLIC or cheap) and fact.table is None and fact.nbytes <= INLINE_LIMIT:
            value = bytes(raw_bytes(self.reader.value(question.value, plan)))
        return messages.Proposal(
            question.ask,
            result_hash([question.value], self.program.hashes),
            fact.label.kind,
            fact.label.messages(),
            None if fact.label.closed is None else fact.label.closed.message(),
            TABLE if fact.table else TENSOR,
            fact.dtype,
            list(fact.shape),
            plan.flops,
            fact.nbytes,
            len(plan.order),
            sorted(self.program.assets(question.value)),
            value,
            trained,
            untrained,
        )

    def evaluate(self, question: messages.Evaluate) -> messages.Value:
        """The value itself: inline, or written to the path."""
        if isinstance(question.value, messages.State):
            return states.value(self.program, self.reader, question, question.value)
        fact = self.program.fact(question.value)
        plan = self.program.plan([question.value], self.reader.has)
        value = self.reader.value(question.value, plan)
        data = raw_bytes(value) if isinstance(value, torch.Tensor) else _stream(value)
        header = TensorHeader(fact.dtype, list(fact.shape), len(data))
        return _told(question, TABLE if fact.table else TENSOR, header, data)

    def draw(self, question: messages.Draw) -> messages.Value:
        """A private answer: inline, or written to the path."""
        value = private.draw(self.program, self.reader, question)
        data = raw_bytes(value)
        header = TensorHeader(str(value.dtype).removeprefix("torch."), list(value.shape), len(data))
        return _told(question, TENSOR, header, data)

    def examine(self, question: messages.Examine) -> messages.Examined:
        """Every check of an exact aggregate, and who stands behind it. No value is in the reply."""
        spec = self.program.judge.spec(question.closed.dataset, question.closed.version)
        failed, name, behind = self._examiner.examine(spec, question)
        _write(Path(question.path), memoryview(behind))
        return messages.Examined(question.ask, failed, name)

    def export(self, question: messages.Export) -> messages.Exported:
        """The program cut to what is asked for, ids from 0, without lines; its constants in a file; its words."""
        state = question.value if isinstance(question.value, messages.State) else None
        results = [question.value] if isinstance(question.value, Ref) else question.value.values
        for ref in results:
            self.program.fact(ref)
        found = cut({number: entry.node for number, entry in self.program.entries.items()}, results)
        ids = {node.id: number for number, node in enumerate(found.nodes)}
        nodes = [_renumbered(node, ids) for node in found.nodes]
        digests = {node.args[0] for node in nodes if node.op == CONSTANT}
        constants = {digest: self.program.constants.tensor(digest) for digest in sorted(digests)}
        nbytes = sum(value.numel() * value.element_size() for value in constants.values())
        if nbytes > self.limits.constants:
            raise LimitExceededError(
                f"The constants of this program take {nbytes} bytes; a request takes at most {self.limits.constants}.",
                limit=self.limits.constants,
            )
        text = words.describe(*steps(self.program, self.reader, found, question.names, state))
        if constants:
            save_file({digest: value.contiguous() for digest, value in constants.items()}, question.path)
            os.chmod(question.path, 0o600)
        renumbered = [Ref(ids[ref.node], ref.output) for ref in results]
        return messages.Exported(
            question.ask, encode_program(Graph(nodes, renumbered)), text, question.path if constants else ""
        )

    def load(self, question: messages.Load) -> messages.Loaded:
        """Take an exported program into this session, which must be empty."""
        if self.program.entries or self.program.failures:
            raise InvalidInputError("A program is loaded into an empty session.")
        graph = decode_program(question.program)
        if question.constants:
            for digest, value in load_file(question.constants).items():
                self.program.constants.add(digest, value)
        self.program.append(graph.nodes, len(question.program))
        for ref in graph.results:
            self.program.fact(ref)
        return messages.Loaded(question.ask, result_hash(graph.results, self.program.hashes), graph.results)

    def ingest(self, question: messages.Ingest) -> messages.Ingested:
        """Check an upload and write a dataset version's files."""
        mock = Path(question.mock) if question.mock else None
        found = ingest(question.spec, Path(question.values), mock, question.key, Path(question.out), IngestLimits())
        return messages.Ingested(question.ask, msgspec.to_builtins(found))


def _told(
    question: messages.Evaluate | messages.Draw, kind: str, header: TensorHeader, data: memoryview
) -> messages.Value:
    if len(data) <= INLINE_LIMIT:
        return messages.Value(question.ask, header, bytes(data), kind)
    _write(Path(question.path), data)
    return messages.Value(question.ask, header, None, kind)


def _renumbered(node: Node, ids: dict[int, int]) -> Node:
    def value(given: Any) -> Any:
        if isinstance(given, Ref):
            return Ref(ids[given.node], given.output)
        if isinstance(given, list):
            return [value(item) for item in given]
        return given

    kwargs = {name: value(node.kwargs[name]) for name in sorted(node.kwargs)}
    return Node(ids[node.id], node.op, [value(given) for given in node.args], kwargs, node.outputs)


def _stream(table: pa.Table) -> memoryview:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getbuffer()


def _write(path: Path, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _allow_mapped(paths: list[str]) -> None:
    """Mapped files count as data, although they take no memory of their own: the limit grows by their size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        sizes = sum(Path(path).stat().st_size for path in paths if Path(path).exists())
        resource.setrlimit(resource.RLIMIT_DATA, (soft + sizes, hard))


def warm_up() -> None:
    """Run every operation once on tiny tensors, so that what torch loads lazily is loaded before the fork."""
    session = Session(Limits())
    data = bytes(16)
    digest = tensor_digest("float32", [2, 2], data)
    session.program.constants.put(digest, TensorHeader("float32", [2, 2], len(data)), data, None)
    given: dict[str, Any] = {
        "Tensor": Ref(0),
        "List[Tensor]": [Ref(0)],
        "int": 0,
        "number": 1.0,
        "List[int]": [0],
        "List[int] or int": [0],
        "Reference": Ref(0),
        "float": 1.0,
        "Seed": 0,
        "ScalarType": Dtype("float32"),
    }
    nodes = [Node(0, CONSTANT, [digest])]
    for number, target in enumerate(TARGETS.values(), 1):
        required = [parameter for parameter in target.parameters if parameter.required and not parameter.keyword]
        args = [given.get(parameter.type, False) for parameter in required]
        nodes.append(Node(number, target.name, args, outputs=target.outputs))
    session.program.append(nodes, 0)
    for number in session.program.entries:
        session.handle(messages.Propose(0, Ref(number)), 0)


def serve(connection: socket.socket, limits: Limits) -> None:
    """Answer messages until the other end closes."""
    os.umask(0o077)
    warnings.simplefilter("ignore")
    prepare()
    session = Session(limits)
    while (head := _next_head(connection)) is not None:
        (size,) = LENGTH.unpack(head)
        body = _exactly(connection, size)
        if body is None:
            return
        try:
            order = messages.decode_order(body)
        except (msgspec.MsgspecError, RecursionError, GridError):
            # Only programs are free in form; a question that cannot be read is left to its deadline.
            session.program.end(InvalidInputError("A part of this program cannot be read: it is nested too deep."))
            continue
        reply = session.handle(order, size)
        if reply is not None:
            connection.sendall(messages.encode(reply))


def _next_head(connection: socket.socket) -> bytearray | None:
    """What comes before the next message, or None at the end of the stream."""
    if not select.select([connection], [], [], IDLE_SECONDS)[0]:
        memory.give_back()
    return _exactly(connection, LENGTH.size)


def _exactly(connection: socket.socket, size: int) -> bytearray | None:
    """`size` bytes, or None at the end of the stream."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if not received:
            return None
        view = view[received:]
    return data
