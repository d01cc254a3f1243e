"""Records a function once, on inputs that have a shape and a dtype but no values, into a plan."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gridclient.program import graph
from gridclient.program.graph import CONSTANT, Node, Ref
from gridclient.program.plan_format import check_words
from gridclient.program.plan_graph import INPUT, SEEDED, Input, PlanGraph, Result
from gridclient.program.plan_tensors import Constant
from gridclient.recorder import Pointer, Recorder
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import pointer_to
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Value
from gridclient.values import bytes_of, dtype_name, header_of
from gridclient.wire.errors import InvalidInputError, OperationNotAllowedError, RemoteValueError


class _Draft:
    """The channel of a plan that is being recorded: nothing travels."""

    node_id = "the plan that is being recorded"

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.constants: dict[str, Constant] = {}

    def append(self, node: Node, held: Sequence[Ref] = ()) -> None:
        self.nodes[node.id] = node

    def constant(self, digest: str, tensor: torch.Tensor) -> None:
        self.constants[digest] = Constant(header_of(tensor), bytes(bytes_of(tensor)))

    def drop(self, ref: Ref) -> None:
        """A plan forgets nothing until it is cut to its results."""

    def get(self, ref: Ref, pointer: Any, **noise: float) -> Any:
        raise RemoteValueError("While a plan is recorded its inputs have no values; return the value instead.")

    def estimate(self, ref: Ref, **noise: float | None) -> Any:
        return self.get(ref, None)

    def request(self, ref: Ref, reason: str, pointer: Any) -> Any:
        return self.get(ref, pointer)


def record(function: Callable[..., Any], example: Any, name: str, description: str) -> tuple[PlanGraph, bool]:
    """The plan of a function, and whether it returns one value and no tuple.

    `example`: a tensor, or a sequence of them, whose shapes and dtypes the inputs have; no value of them is read.
    """
    examples = _examples(example)
    check_words(name, description)
    draft = _Draft()
    tape = Recorder(draft).tape
    pointers, cells = [], []
    for number, given in enumerate(examples):
        spec = Spec.dense(tuple(given.shape), given.dtype)
        value: Value = tape.write(INPUT, [number], {}, spec, frozenset(), "")
        cells.append(Cell(value))
        pointers.append(pointer_to(cells[-1]).requires_grad_(given.requires_grad))
    # Seeds are drawn for every call; the user's generator stays where it is.
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        returned = function(*pointers)
    results = [returned] if isinstance(returned, torch.Tensor) else returned
    if not isinstance(results, (tuple, list)) or not all(isinstance(each, torch.Tensor) for each in results):
        raise InvalidInputError("A plan returns a tensor or a tuple of tensors.")
    places = [each._place if isinstance(each, Pointer) else Cell(tape.constant(each)) for each in results]
    for number, cell in enumerate(cells):
        if cell.version and not any(place.cell is cell for place in places):
            raise OperationNotAllowedError(
                f"The plan writes into its input {_names(function, len(examples))[number]} and does not return it: "
                "a plan works on a copy of each input, so the change would be lost.",
                operation=name,
            )
    values = [place.current() for place in places]
    if any(value.tape is not tape for value in values):
        raise InvalidInputError("A plan returns what it computed from its inputs, not a pointer from outside.")
    inputs = [
        Input(label, dtype_name(given.dtype), list(given.shape))
        for label, given in zip(_names(function, len(examples)), examples, strict=True)
    ]
    nodes, refs = _ordered(draft.nodes, [value.ref for value in values], len(inputs))
    used = {node.args[0] for node in nodes if node.op == CONSTANT}
    constants = {digest: draft.constants[digest] for digest in used}
    signature = [_result(value) for value in values]
    return PlanGraph(name, description, inputs, nodes, refs, signature, constants), returned is results[0]


def _examples(example: Any) -> Sequence[torch.Tensor]:
    examples = [example] if isinstance(example, torch.Tensor) else example
    if not isinstance(examples, (tuple, list)) or not all(isinstance(each, torch.Tensor) for each in examples):
        raise InvalidInputError("example is a tensor or a tuple of tensors, with the shapes and dtypes of the inputs.")
    return examples


def _result(value: Value) -> Result:
    spec = value.spec
    stride = None if spec.contiguous else list(spec.stride)
    return Result(0, dtype_name(spec.dtype), list(spec.shape), stride)


def _ordered(recorded: dict[int, Node], results: list[Ref], inputs: int) -> tuple[list[Node], list[Ref]]:
    """What the results need: inputs have the first ids, then come constants, then operations, as a plan has them."""
    needed = [node for node in graph.cut(recorded, results).nodes if node.op != INPUT]
    needed.sort(key=lambda node: (node.op != CONSTANT, node.id))
    ids = {node.id: node.args[0] for node in recorded.values() if node.op == INPUT}
    ids |= {node.id: number for number, node in enumerate(needed, inputs)}

    def value(given: Any) -> Any:
        if isinstance(given, Ref):
            return Ref(ids[given.node], given.output)
        return [value(item) for item in given] if isinstance(given, (list, tuple)) else given

    nodes = []
    for node in needed:
        args = [value(given) for given in node.args]
        if node.op in SEEDED:
            args[-1] = 0
        kwargs = {name: value(given) for name, given in node.kwargs.items()}
        nodes.append(Node(ids[node.id], node.op, args, kwargs, node.outputs))
    return nodes, [Ref(ids[ref.node], ref.output) for ref in results]


def _names(function: Callable[..., Any], count: int) -> list[str]:
    """What the inputs are called: as the function's arguments, or by number."""
    called = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{number}" for number in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names = names[:count]
    names += [f"input_{number}" for number in range(len(names), count)]
    return [name if name.isascii() and len(name) <= 64 else f"input_{number}" for number, name in enumerate(names)]
