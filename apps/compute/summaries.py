"""What the words reader needs to know of a program, from the worker: arguments by name, public values summed up."""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec

from apps.compute.chosen import CHOICES, Chosen, axis_of, chosen, positions
from apps.compute.entries import Entry
from apps.compute.judging import Fact
from apps.compute.labels import PUBLIC, ROWS, Label
from apps.compute.messages import State
from apps.compute.operations import TABLE
from apps.compute.programs import Program
from apps.compute.readers.outcome import Outcome, Part, Read, columns_text, numbers, rows_text
from apps.compute.readers.steps import Step, Summary, places
from apps.compute.readers.torch import TorchReader
from apps.compute.states import label_of
from apps.compute.targets import TARGETS, bind
from apps.compute.weights import Weights, is_public, weights
from apps.datasets.assets import MOCK, VALUES, AssetSpec
from gridclient.program.graph import ASSET, CONSTANT, Dtype, Node, Ref, refs
from gridclient.program.graph import Program as Graph

MANY = 20
"""More numbers than this for each row are worth a look."""
HUGE = 1e6
SCALARS = ("self", "other", "mat1", "mat2", "vec", "tensor", "exponent", "alpha", "beta", "min", "max", "fill_value")


def steps(
    program: Program, reader: TorchReader, graph: Graph, names: dict[str, str], state: State | None = None
) -> tuple[list[Step], Outcome]:
    """The steps of a program cut to one value, numbered from 0, and what comes out. `names`: of the datasets."""
    ids = {node.id: number for number, node in enumerate(graph.nodes)}
    found: list[Step] = []
    known: dict[int, Chosen] = {}
    met = weights(program, reader, graph)
    picks = _picks(program, graph, met)
    for node in graph.nodes:
        entry = program.entries[node.id]
        known[node.id] = chosen(program, entry, known, _index(node, met))
        found.append(_step(program, entry, ids, names, met, picks))
    if state is None:
        (result,) = graph.results
        outcome = _outcome(program, result, ids[result.node], known[result.node], names)
    else:
        outcome = _of_state(program, state, ids, known, names)
    much = _much(outcome)
    if much:
        last = found[outcome.step]
        look = f"{last.look}; {much}" if last.look else much
        found[outcome.step] = msgspec.structs.replace(last, look=look)
    return found, outcome


def _outcome(program: Program, result: Ref, step: int, shown: Chosen, names: dict[str, str]) -> Outcome:
    fact = program.fact(result)
    answer = fact.label.closed
    reads = _reads(program, fact.label, shown, names)
    closed = answer.kind if answer is not None else ""
    return Outcome(step, fact.shape, fact.table is not None, fact.label.kind, closed, reads, shown.exact)


def _of_state(
    program: Program, state: State, ids: dict[int, int], known: dict[int, Chosen], names: dict[str, str]
) -> Outcome:
    facts = [program.fact(ref) for ref in state.values]
    label = label_of(facts)
    # Which rows are behind each tensor is in its own steps; together it is taken to be all of them.
    reads = _reads(program, label, Chosen({}, False), names)
    tensors = tuple(
        Part(name, ids[ref.node], ref.output, fact.shape)
        for name, ref, fact in zip(state.names, state.values, facts, strict=True)
    )
    evidence = [(program.kind(ref), program.marks(ref)) for ref in state.values]
    untrained = program.training.why_no_state(state.module, state.names, evidence)
    size = sum(prod(fact.shape) for fact in facts)
    last = max(part.step for part in tensors)
    exact = any(known[ref.node].exact for ref in state.values)
    return Outcome(last, (size,), False, label.kind, "", reads, exact, tensors, untrained)


def _reads(program: Program, label: Label, shown: Chosen, names: dict[str, str]) -> tuple[Read, ...]:
    """What a label depends on, dataset by dataset, in the order of their names: ids are not for people."""
    answer = label.closed
    reads = []
    for entry in label.messages():
        spec = program.judge.spec(entry.dataset, entry.version)
        declared = [column.name for column in spec.columns]
        # Null records depend on every column, but a mean over the others is one of these.
        named = entry.columns if answer is None else answer.columns
        columns = None if named is None else tuple(name for name in declared if name in named)
        rows = shown.rows.get((entry.dataset, entry.version))
        reads.append(Read(_called(spec, names), columns, rows, spec.shape[0], spec.presence))
    return tuple(sorted(reads, key=lambda read: read.name))


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


def _index(node: Node, met: Weights) -> tuple[int, ...]:
    """The positions that a choice by a small public index names."""
    if node.op != "aten::index_select":
        return ()
    index = bind(TARGETS[node.op], node)["index"]
    summary = met.get(index) if isinstance(index, Ref) else None
    return tuple(map(int, summary.values)) if summary is not None else ()


def _picks(program: Program, graph: Graph, met: Weights) -> dict[int, Summary]:
    """By public node, the first constant behind it that picks few positions, whatever was computed from it since."""
    found: dict[int, Summary] = {}
    for node in graph.nodes:
        if not is_public(program, Ref(node.id)):
            continue
        own = met.get(Ref(node.id)) if node.op == CONSTANT else None
        if own is not None and own.singles_out():
            found[node.id] = own
        below = next((found[ref.node] for ref in refs(node) if ref.node in found), None)
        if below is not None:
            found[node.id] = below
    return found


def _step(
    program: Program, entry: Entry, ids: dict[int, int], names: dict[str, str], met: Weights, picks: dict[int, Summary]
) -> Step:
    node = entry.node
    fact = entry.facts[0]
    public = all(is_public(program, ref) for ref in refs(node)) and fact.label.kind == PUBLIC
    common = (ids[node.id], node.op, program.hashes[node.id], public)
    if node.op == ASSET:
        spec, part = program.judge.asset(node)
        return Step(*common, {}, fact.shape, fact.dtype, name=_called(spec, names, part))
    if node.op == CONSTANT:
        return Step(*common, {}, fact.shape, fact.dtype, constant=met[Ref(node.id)])
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
    if isinstance(bound.get("dtype"), str):
        args["dtype"] = Dtype(bound["dtype"])
    look = _look(program, node, bound, met, picks)
    part = _part(program, node, bound)
    comes_to = _comes_to(entry, met)
    return Step(*common, args, fact.shape, fact.dtype, look, part=part, rows=rows, columns=columns, comes_to=comes_to)


def _comes_to(entry: Entry, met: Weights) -> str:
    """What the value of a public operand is; "" for values that nothing private meets."""
    texts = []
    for output in range(len(entry.facts)):
        ref = Ref(entry.node.id, output)
        if ref in met:
            summary = met[ref]
            texts.append("not looked into" if summary is None else summary.content())
    return "; and ".join(texts)


def _part(program: Program, node: Node, bound: dict[str, Any]) -> str:
    """What a step chooses, by name; "" where it chooses nothing that has one."""
    if node.op in ("grid::column", "grid::columns"):
        chosen_names = bound["names"] if isinstance(bound["names"], list) else [bound["names"]]
        return columns_text(chosen_names, most=len(chosen_names))
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
        return columns_text([columns.names[place] for place in places], most=len(places))
    if value.label.kind == ROWS and axis == value.label.axis:
        return f"row at position {places[0]}" if len(places) == 1 else rows_text(places)
    return ""


def _look(program: Program, node: Node, bound: dict[str, Any], met: Weights, picks: dict[int, Summary]) -> str:
    """Why a reviewer should look at this step first; "" where nothing singles out rows."""
    private = [program.fact(ref) for ref in refs(node) if not is_public(program, ref)]
    if not private:
        return ""
    value = bound.get("self")
    if node.op in CHOICES and isinstance(value, Ref):
        fact, shape = program.fact(value), program.entries[node.id].facts[0].shape
        whole = node.op == "aten::slice.Tensor" and fact.shape == shape
        along = axis_of(fact.shape, bound["dim"])
        if fact.label.kind == ROWS and along == fact.label.axis and not whole:
            one = node.op == "aten::select.int" or shape[along : along + 1] == (1,)
            return f"{'one row' if one else 'rows'} chosen{_origin(node, bound, fact.label)}"
        if fact.label.kind not in (PUBLIC, ROWS) and not whole and not _by_column(fact.label, along):
            return "rows may be chosen"
    # In the schema's order, and every one: neither the way it is written nor a harmless weight hides another.
    given = [item for value in bound.values() for item in (value if isinstance(value, list) else [value])]
    public = dict.fromkeys(ref for ref in given if isinstance(ref, Ref) and is_public(program, ref))
    reasons = [_weight(program, ref, private, met, picks) for ref in public]
    if any(reasons):
        return "; ".join(filter(None, reasons))
    if any(_huge(bound.get(name), met) for name in SCALARS):
        return "a huge number, with which one answer can carry many"
    if TABLE[node.op].chooses and node.op not in CHOICES:
        return "a condition or an order among private values, which can filter rows"
    return ""


def _weight(program: Program, ref: Ref, private: list[Fact], met: Weights, picks: dict[int, Summary]) -> str:
    """Why a public operand can single out rows of private ones; "" where it can't."""
    summary = met.get(ref)
    what = "constant" if program.entries[ref.node].op == CONSTANT else "computed value"
    if summary is not None and summary.singles_out():
        return f"a weight that picks few positions, {summary.text(what)}"
    if ref.node in picks:
        return f"a weight that picks few positions, computed from {picks[ref.node].text('a constant')}"
    if summary is None:
        return f"a public weight of {numbers(program.fact(ref).shape)} that was not looked into"
    extents = {fact.shape[fact.label.axis] for fact in private if fact.label.kind == ROWS}
    free = any(fact.label.kind != ROWS for fact in private)
    over = [axis for axis, extent in enumerate(summary.shape) if free or extent in extents]
    if over and summary.beside:
        where = places(summary.beside)
        return f"a weight that differs from another one only at position {where}, {summary.text(what)}"
    uneven = next((axis for axis in over if axis < len(summary.uneven) and summary.uneven[axis]), None)
    if uneven is not None:
        return f"a weight that leaves out positions of axis {uneven}, or outdoes the others, {summary.text(what)}"
    return ""


def _origin(node: Node, bound: dict[str, Any], label: Label) -> str:
    """Where the one row that is selected lies in its dataset, if not at the position that the step names."""
    before = positions(label.rows)
    if node.op != "aten::select.int" or before is None or before == range(len(before)):
        return ""
    return f", which is {rows_text([before[bound['index']]])} of its dataset"


def _by_column(label: Label, axis: int) -> bool:
    return label.columns is not None and label.columns.axis == axis


def _huge(value: Any, met: Weights) -> bool:
    """Whether a number, or a public value, is of a size that no harmless arithmetic needs."""
    if isinstance(value, Ref):
        summary = met.get(value)
        if summary is None or summary.low is None or summary.high is None:
            return False
        return max(abs(summary.low), abs(summary.high)) >= HUGE
    return isinstance(value, int | float) and abs(value) >= HUGE


def _numbered(value: Any, ids: dict[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(ids[value.node], value.output)
    if isinstance(value, list):
        return [_numbered(item, ids) for item in value]
    return value
