"""What the words reader needs to know of a program, from the worker: arguments by name, constants summed up."""

from __future__ import annotations

from typing import Any

import torch

from apps.compute.labels import PUBLIC, ROWS
from apps.compute.operations import TABLE
from apps.compute.programs import Entry, Program
from apps.compute.readers.words import Step, Summary, step_text
from apps.compute.targets import TARGETS, bind
from gridclient.program.graph import ASSET, CONSTANT, Node, Ref, refs
from gridclient.program.graph import Program as Graph

FEW = 8
ROW_CHOICES = frozenset({"aten::select.int", "aten::slice.Tensor", "aten::index_select"})


def steps(program: Program, graph: Graph, names: dict[str, str]) -> list[Step]:
    """The steps of a cut program, numbered from 0. `names` says what datasets are called."""
    ids = {node.id: number for number, node in enumerate(graph.nodes)}
    found: list[Step] = []
    for node in graph.nodes:
        found.append(_step(program, program.entries[node.id], ids, names, found))
    return found


def summarise(value: torch.Tensor) -> Summary:
    """Shape, number of non-zeros, spread, and where the few non-zeros lie."""
    dtype = str(value.dtype).removeprefix("torch.")
    wide = value.to(torch.int64 if not value.dtype.is_floating_point else torch.float64)
    finite = wide[torch.isfinite(wide)] if wide.is_floating_point() else wide.reshape(-1)
    nonzero = int((value != 0).sum())
    few = 0 < nonzero <= FEW and nonzero < value.numel()
    return Summary(
        dtype,
        tuple(value.shape),
        nonzero,
        float(finite.min()) if finite.numel() else None,
        float(finite.max()) if finite.numel() else None,
        value.numel() - finite.numel(),
        tuple(tuple(position) for position in (value != 0).nonzero().tolist()) if few else (),
        tuple(float(number) for number in wide.reshape(-1).tolist()) if value.numel() <= FEW else (),
        _unlike_the_others(wide.to(torch.float64)),
    )


def _unlike_the_others(value: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Positions of a few elements that differ from all others, whatever these are: 1 among 1e-12, 0 among ones."""
    if value.numel() < 3:
        return ()
    distance = (torch.nan_to_num(value) - torch.nan_to_num(value).median()).abs()
    apart = distance > distance.max() / 1000
    count = int(apart.sum())
    if not 0 < count <= FEW or 2 * count >= value.numel():
        return ()
    return tuple(tuple(position) for position in apart.nonzero().tolist())


def _step(program: Program, entry: Entry, ids: dict[int, int], names: dict[str, str], before: list[Step]) -> Step:
    node = entry.node
    fact = entry.facts[0]
    common = (ids[node.id], node.op)
    if node.op == ASSET:
        spec, part = program.judge.asset(node)
        called = names.get(spec.dataset, spec.dataset)
        name = f"{called} (version {spec.version}{', mock data' if part == 'mock' else ''})"
        columns = tuple(column.name for column in spec.columns)
        return Step(*common, {}, fact.shape, fact.dtype, fact.label.kind, name=name, columns=columns)
    if node.op == CONSTANT:
        summary = summarise(program.constants.tensor(node.args[0]))
        return Step(*common, {}, fact.shape, fact.dtype, PUBLIC, constant=summary)
    bound = bind(TARGETS[node.op], node)
    args = {name: _numbered(value, ids) for name, value in bound.items()}
    step = Step(*common, args, fact.shape, fact.dtype, fact.label.kind)
    return Step(*common, args, fact.shape, fact.dtype, fact.label.kind, _look(program, node, bound, step, ids, before))


def _look(
    program: Program, node: Node, bound: dict[str, Any], step: Step, ids: dict[int, int], before: list[Step]
) -> str:
    """Why a reviewer should look at this step first; "" where nothing singles out rows."""
    private = [ref for ref in refs(node) if program.fact(ref).label.kind != PUBLIC]
    if not private:
        return ""
    value = bound.get("self")
    if node.op in ROW_CHOICES and isinstance(value, Ref):
        fact = program.fact(value)
        whole = node.op == "aten::slice.Tensor" and fact.shape == program.entries[node.id].facts[0].shape
        along = reduced_axis(fact.shape, bound["dim"])
        if fact.label.kind == ROWS and along == fact.label.axis and not whole:
            one = node.op == "aten::select.int" or step.shape[along : along + 1] == (1,)
            return f"{'one row' if one else 'rows'} chosen: {step_text(step)}"
        if fact.label.kind not in (PUBLIC, ROWS) and not whole:
            return f"rows may be chosen: {step_text(step)}"
    for ref in refs(node):
        summary = _picking(before, ids[ref.node])
        if summary is not None:
            return f"constant that picks few positions: {summary.text()}, used in {step_text(step)}"
    if TABLE[node.op].chooses and node.op not in ROW_CHOICES:
        return f"a condition or an order among private values: {step_text(step)}"
    return ""


def _picking(before: list[Step], number: int) -> Summary | None:
    """The constant behind a public value that picks few positions, whatever was computed from it since."""
    todo, seen = [number], set[int]()
    while todo:
        at = todo.pop()
        step = before[at]
        if at in seen or step.label != PUBLIC:
            continue
        seen.add(at)
        if step.constant is not None and step.constant.singles_out():
            return step.constant
        for value in step.args.values():
            todo += [ref.node for ref in (value if isinstance(value, list) else [value]) if isinstance(ref, Ref)]
    return None


def reduced_axis(shape: tuple[int, ...], dim: int) -> int:
    """The axis that a possibly negative `dim` names."""
    return dim % max(len(shape), 1)


def _numbered(value: Any, ids: dict[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(ids[value.node], value.output)
    if isinstance(value, list):
        return [_numbered(item, ids) for item in value]
    return value
