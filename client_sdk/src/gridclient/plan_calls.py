"""Calls of plans: on pointers one node of the session's program, on local tensors torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from gridclient.program.graph import CONSTANT, Dtype, Node, Ref
from gridclient.program.plan_graph import PLAN, SEEDED, Input, PlanGraph, seed_of
from gridclient.recorder.places import Cell
from gridclient.recorder.pointer import _lift, _tape_of, pointer_to
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value, operation
from gridclient.values import DTYPES
from gridclient.wire.errors import InvalidInputError, OperationNotAllowedError, ShapeError

_INSIDE = Spec.dense((), torch.uint8)  # nobody reads the spec of a value inside of a call
_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}


class Signature(NamedTuple):
    """What a call needs to know of a plan. Ids of `results`: inputs first, then its nodes."""

    name: str
    digest: str
    inputs: list[Input]
    results: list[tuple[Ref, Spec]]
    size: int
    draws: bool


class _Results(torch.autograd.Function):
    """Results of a call whose inputs require gradients: a plan has none to give, and says so at `backward`."""

    @staticmethod
    def forward(ctx: Any, name: str, run: Callable[[], list[torch.Tensor]], *inputs: torch.Tensor) -> Any:
        ctx.plan = name
        return tuple(run())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise OperationNotAllowedError(
            f"Gradients do not pass through the plan {ctx.plan}. Compute them inside of it, with torch.autograd.grad.",
            operation=PLAN,
        )


def call(signature: Signature, given: Sequence[Any], graph: PlanGraph | None, kept: Callable[[Any], bool]) -> list[Any]:
    """Run a plan. `kept`: whether a node has it, so that a call names it; otherwise `graph` is written out there."""
    checked = _checked(signature, given)
    tape = _tape_of(checked)
    if tape is None and graph is None:
        raise InvalidInputError(f"{signature.name} runs on its node: give it pointers to values there.")

    def run() -> list[torch.Tensor]:
        seed = int(torch.empty((), dtype=torch.int64).random_()) if signature.draws else None
        if tape is not None:
            return _remote(signature, checked, graph, tape, seed, by_name=kept(tape.channel))
        assert graph is not None
        with torch.no_grad():
            return run_locally(graph, checked, seed)

    if torch.is_grad_enabled() and any(each.requires_grad for each in checked):
        return list(_Results.apply(signature.name, run, *checked))
    return run()


def _checked(signature: Signature, given: Sequence[Any]) -> list[torch.Tensor]:
    inputs = signature.inputs
    if len(given) != len(inputs):
        names = ", ".join(each.name for each in inputs)
        raise InvalidInputError(f"{signature.name} takes {len(inputs)} inputs ({names}), not {len(given)}.")
    for value, wanted in zip(given, inputs, strict=True):
        if not isinstance(value, torch.Tensor):
            raise InvalidInputError(f"{wanted.name} is a pointer or a tensor, not {type(value).__name__}.")
        if list(value.shape) != wanted.shape or value.dtype != DTYPES[wanted.dtype]:
            raise ShapeError(
                f"{signature.name} was recorded for {wanted.name} of shape {wanted.shape} and {wanted.dtype}, not "
                f"{list(value.shape)} and {str(value.dtype).removeprefix('torch.')}. Record another plan for it.",
                operation=PLAN,
            )
    return list(given)


def _remote(
    signature: Signature, given: list[Any], graph: PlanGraph | None, tape: Tape, seed: int | None, *, by_name: bool
) -> list[torch.Tensor]:
    operands: list[Value] = [tape.contiguous(_lift(each, tape).current()) for each in given]
    sources = frozenset(name for operand in operands for name in operand.sources)
    before = len(operands)
    inside = {ref: spec for ref, spec in signature.results if ref.node >= before}
    if by_name:
        kwargs = {} if seed is None else {"seed": seed}
        args = [signature.digest, signature.size, [operand.ref for operand in operands]]
        refs = [(Ref(ref.node - before, ref.output), spec) for ref, spec in inside.items()]
        computed = dict(zip(inside, tape.call(PLAN, args, kwargs, signature.size, refs, sources), strict=True))
    elif graph is None:
        raise InvalidInputError(f"{signature.name} is on another node than its inputs.")
    else:
        computed = _written_out(graph, operands, tape, seed, inside, sources)
    # A value that is returned twice is one value: what drops it must be one object.
    return [
        pointer_to(Cell(operands[ref.node] if ref.node < before else computed[ref])) for ref, _ in signature.results
    ]


def _written_out(
    graph: PlanGraph,
    operands: list[Value],
    tape: Tape,
    seed: int | None,
    wanted: dict[Ref, Spec],
    sources: frozenset[str],
) -> dict[Ref, Value]:
    """Append a plan's operations one by one, for a node that does not have it."""
    values: list[Sequence[Value]] = [[operand] for operand in operands]

    def value(given: Any) -> Any:
        if isinstance(given, Ref):
            return values[given.node][given.output].ref
        return [value(item) for item in given] if isinstance(given, list) else given

    for place, node in enumerate(graph.nodes):
        if node.op == CONSTANT:
            values.append([tape.dense_constant(_tensor(graph, node))])
            continue
        args = [value(given) for given in node.args]
        if node.op in SEEDED:
            args[-1] = seed_of(seed or 0, place)
        specs = tuple(wanted.get(Ref(node.id, output), _INSIDE) for output in range(node.outputs))
        kwargs = {name: value(given) for name, given in node.kwargs.items()}
        values.append(tape.write(node.op, args, kwargs, specs, sources))
    return {ref: values[ref.node][ref.output] for ref in wanted}


# --- here -------------------------------------------------------------------------------------------------------


def run_locally(graph: PlanGraph, given: Sequence[torch.Tensor], seed: int | None) -> list[torch.Tensor]:
    """A plan's results from local tensors, computed by torch operation by operation."""
    values: list[Sequence[torch.Tensor]] = [[each.detach().contiguous()] for each in given]

    def value(each: Any) -> Any:
        if isinstance(each, Ref):
            return values[each.node][each.output]
        if isinstance(each, Dtype):
            return DTYPES[each.name]
        return [value(item) for item in each] if isinstance(each, list) else each

    for place, node in enumerate(graph.nodes):
        if node.op == CONSTANT:
            values.append([_tensor(graph, node)])
            continue
        args = [value(each) for each in node.args]
        if node.op in SEEDED:
            computed = _drawn(node.op, args[:-1], torch.Generator().manual_seed(seed_of(seed or 0, place)))
        elif node.op == "grid::count":
            computed = torch.tensor(len(args[0]))
        elif node.op.startswith("aten::"):
            kwargs = {name: value(each) for name, each in node.kwargs.items()}
            if "memory_format" in kwargs:
                kwargs["memory_format"] = _FORMATS.get(kwargs["memory_format"])
            computed = operation(node.op).call(*args, **kwargs)
        else:
            raise OperationNotAllowedError(f"{node.op} runs on a node only.", operation=node.op)
        values.append(computed if isinstance(computed, (tuple, list)) else [computed])
    return [values[ref.node][ref.output] for ref in graph.results]


def _tensor(graph: PlanGraph, node: Node) -> torch.Tensor:
    header, data = graph.constants[node.args[0]]
    if not header.nbytes:
        return torch.empty(header.shape, dtype=DTYPES[header.dtype])
    return torch.frombuffer(bytearray(data), dtype=DTYPES[header.dtype]).reshape(header.shape)


def _drawn(name: str, args: list[Any], generator: torch.Generator) -> Any:
    """What a node draws with the same generator."""
    match name, args:
        case "grid::rand", [size, dtype]:
            return torch.rand(size, dtype=dtype, generator=generator)
        case "grid::randn", [size, dtype]:
            return torch.randn(size, dtype=dtype, generator=generator)
        case "grid::randint", [low, high, size, dtype]:
            return torch.empty(size, dtype=dtype).random_(low, high, generator=generator)
        case "grid::randperm", [n, dtype]:
            return torch.randperm(n, generator=generator).to(dtype)
        case "grid::bernoulli", [chances]:
            return (torch.rand(chances.shape, dtype=torch.float64, generator=generator) < chances).to(chances.dtype)
        case "grid::dropout", [given, p]:
            # As the node: the mask is drawn first, and what is left is scaled.
            mask = torch.rand(given.shape, generator=generator) >= p
            return given * mask * (0.0 if p == 1 else 1 / (1 - p)), mask
    raise OperationNotAllowedError(f"{name} runs on a node only.", operation=name)
