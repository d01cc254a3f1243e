"""What the words reader needs to know of a program, from the worker: arguments by name, constants summed up."""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec
import torch

from apps.compute.chosen import CHOICES, Chosen, axis_of, chosen, positions
from apps.compute.labels import PUBLIC, ROWS, Label
from apps.compute.operations import TABLE
from apps.compute.programs import Entry, Program
from apps.compute.readers.outcome import Outcome, Read, columns_text, rows_text
from apps.compute.readers.words import Step, Summary, step_text
from apps.compute.targets import TARGETS, bind
from apps.datasets.assets import MOCK, VALUES, AssetSpec
from gridclient.program.graph import ASSET, CONSTANT, Node, Ref, refs
from gridclient.program.graph import Program as Graph

FEW = 8
MANY = 20
"""More numbers than this for each row are worth a look."""
HUGE = 1e6
SCALARS = ("self", "other", "mat1", "mat2", "vec", "tensor", "exponent", "alpha", "beta", "min", "max", "fill_value")


def steps(program: Program, graph: Graph, names: dict[str, str]) -> tuple[list[Step], Outcome]:
    """The steps of a program cut to one value, numbered from 0, and what comes out. `names`: of the datasets."""
    ids = {node.id: number for number, node in enumerate(graph.nodes)}
    (result,) = graph.results
    found: list[Step] = []
    known: dict[int, Chosen] = {}
    for node in graph.nodes:
        entry = program.entries[node.id]
        known[node.id] = chosen(program, entry, known, _index(node, ids, found))
        found.append(_step(program, entry, ids, names, found))
    outcome = _outcome(program, result, ids[result.node], known[result.node], names)
    much = _much(outcome)
    if much:
        last = found[outcome.step]
        look = f"{last.look}; {much}" if last.look else much
        found[outcome.step] = msgspec.structs.replace(last, look=look)
    return found, outcome


def _outcome(program: Program, result: Ref, step: int, shown: Chosen, names: dict[str, str]) -> Outcome:
    fact = program.fact(result)
    reads = []
    for entry in fact.label.messages():
        spec = program.judge.spec(entry.dataset, entry.version)
        declared = [column.name for column in spec.columns]
        columns = None if entry.columns is None else tuple(name for name in declared if name in entry.columns)
        rows = shown.rows.get((entry.dataset, entry.version))
        reads.append(Read(_called(spec, names), columns, rows, spec.shape[0], spec.presence))
    closed = fact.label.closed.kind if fact.label.closed else ""
    return Outcome(step, fact.shape, fact.table is not None, fact.label.kind, closed, tuple(reads), shown.exact)


def _much(outcome: Outcome) -> str:
    """Why so many numbers tell of single rows; "" where they are few for the rows behind them."""
    reads = outcome.reads
    if outcome.closed or outcome.exact or not reads or any(read.rows is not None for read in reads):
        return ""
    size = prod(outcome.shape)
    rows = min(read.count for read in reads)
    if outcome.label == ROWS:
        return f"much comes out: {size} numbers of {rows} rows" if size > MANY * rows else ""
    if size > max(rows, 1):
        return f"much comes out: {size} numbers of {rows} rows, from which single rows could be solved"
    return ""


def _called(spec: AssetSpec, names: dict[str, str], part: str = VALUES) -> str:
    return f"{names.get(spec.dataset, spec.dataset)} (version {spec.version}{', mock data' if part == MOCK else ''})"


def _index(node: Node, ids: dict[int, int], before: list[Step]) -> tuple[int, ...]:
    """The positions that a choice by a small constant index names."""
    if node.op != "aten::index_select":
        return ()
    index = bind(TARGETS[node.op], node)["index"]
    summary = before[ids[index.node]].constant if isinstance(index, Ref) else None
    return tuple(map(int, summary.values)) if summary is not None else ()


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
        return Step(*common, {}, fact.shape, fact.dtype, fact.label.kind, name=_called(spec, names, part))
    if node.op == CONSTANT:
        summary = summarise(program.constants.tensor(node.args[0]))
        return Step(*common, {}, fact.shape, fact.dtype, PUBLIC, constant=summary)
    bound = bind(TARGETS[node.op], node)
    args = {name: _numbered(value, ids) for name, value in bound.items()}
    value = bound.get("self")
    rows = columns = None
    if isinstance(value, Ref):
        label, shape = program.fact(value).label, program.fact(value).shape
        rows = label.axis if label.kind == ROWS else None
        columns = label.columns.axis if label.columns is not None else None
        for name in ("dim", "dims"):
            if name in bound and bound[name] is not None:
                dims = bound[name]
                args[name] = [axis_of(shape, d) for d in dims] if isinstance(dims, list) else axis_of(shape, dims)
        if node.op == "aten::unsqueeze":
            args["dim"] = bound["dim"] % (len(shape) + 1)
    part = _part(program, node, bound)
    step = Step(*common, args, fact.shape, fact.dtype, fact.label.kind, part=part, rows=rows, columns=columns)
    return msgspec.structs.replace(step, look=_look(program, node, bound, step, ids, before))


def _part(program: Program, node: Node, bound: dict[str, Any]) -> str:
    """What a step chooses, by name; "" where it chooses nothing that has one."""
    if node.op in ("grid::column", "grid::columns"):
        return columns_text(bound["names"] if isinstance(bound["names"], list) else [bound["names"]])
    if node.op not in ("aten::select.int", "aten::slice.Tensor") or not isinstance(bound["self"], Ref):
        return ""
    value = program.fact(bound["self"])
    axis = axis_of(value.shape, bound["dim"])
    extent = value.shape[axis]
    if node.op == "aten::select.int":
        places: range = range(extent)[bound["index"] :][:1]
    else:
        places = range(extent)[slice(bound["start"], bound["end"], bound["step"])]
        if places == range(extent):
            return "all"
    columns = value.label.columns
    if columns is not None and columns.axis == axis:
        return columns_text([columns.names[place] for place in places])
    if value.label.kind == ROWS and axis == value.label.axis:
        return f"row at position {places[0]}" if len(places) == 1 else rows_text(places)
    return ""


def _look(
    program: Program, node: Node, bound: dict[str, Any], step: Step, ids: dict[int, int], before: list[Step]
) -> str:
    """Why a reviewer should look at this step first; "" where nothing singles out rows."""
    private = [ref for ref in refs(node) if program.fact(ref).label.kind != PUBLIC]
    if not private:
        return ""
    value = bound.get("self")
    if node.op in CHOICES and isinstance(value, Ref):
        fact = program.fact(value)
        whole = node.op == "aten::slice.Tensor" and fact.shape == program.entries[node.id].facts[0].shape
        along = axis_of(fact.shape, bound["dim"])
        if fact.label.kind == ROWS and along == fact.label.axis and not whole:
            one = node.op == "aten::select.int" or step.shape[along : along + 1] == (1,)
            return f"{'one row' if one else 'rows'} chosen: {step_text(step)}{_origin(node, bound, fact.label)}"
        if fact.label.kind not in (PUBLIC, ROWS) and not whole and not _by_column(fact.label, along):
            return f"rows may be chosen: {step_text(step)}"
    for ref in refs(node):
        summary = _picking(before, ids[ref.node])
        if summary is not None:
            return f"constant that picks few positions: {summary.text()}, used in {step_text(step)}"
    if any(_huge(bound.get(name), before, ids) for name in SCALARS):
        return f"a huge number, with which one answer can carry many: {step_text(step)}"
    if TABLE[node.op].chooses and node.op not in CHOICES:
        return f"a condition or an order among private values, which can filter rows: {step_text(step)}"
    return ""


def _origin(node: Node, bound: dict[str, Any], label: Label) -> str:
    """Where the one row that is selected lies in its dataset, if not at the position that the step names."""
    before = positions(label.rows)
    if node.op != "aten::select.int" or before is None or before == range(len(before)):
        return ""
    return f", which is {rows_text([before[bound['index']]])} of its dataset"


def _by_column(label: Label, axis: int) -> bool:
    return label.columns is not None and label.columns.axis == axis


def _huge(value: Any, before: list[Step], ids: dict[int, int]) -> bool:
    """Whether a number, or a constant, is of a size that no harmless arithmetic needs."""
    if isinstance(value, Ref):
        summary = before[ids[value.node]].constant
        if summary is None or summary.low is None or summary.high is None:
            return False
        return max(abs(summary.low), abs(summary.high)) >= HUGE
    return isinstance(value, int | float) and abs(value) >= HUGE


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


def _numbered(value: Any, ids: dict[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(ids[value.node], value.output)
    if isinstance(value, list):
        return [_numbered(item, ids) for item in value]
    return value
