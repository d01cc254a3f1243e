"""Rules of operations of our own."""

from __future__ import annotations

import msgspec

from apps.compute.labels import (
    ROWS,
    Call,
    Columns,
    Label,
    Operand,
    Source,
    answer,
    narrowed_to,
    tainted,
    tainted_answer,
)


def columns(call: Call) -> Label:
    """Columns of a table: rows stay rows, and what is read are these columns."""
    label = call.operand("self").label
    if label.kind != ROWS or label.source is None:
        return tainted(call)
    names = call.args["names"]
    chosen = tuple(names) if isinstance(names, list) else (names,)
    source = Source(label.source.dataset, label.source.version, chosen, 1 if isinstance(names, list) else None)
    version = (source.dataset, source.version)
    inputs = narrowed_to(label, version, chosen)
    several = Columns(*version, chosen, 1, version in label.mask) if isinstance(names, list) else None
    return msgspec.structs.replace(label, source=source, inputs=inputs, columns=several)


def aggregates(call: Call) -> Label:
    """grid::aggregate: a member of the closed set, and nothing else: it is TAINTED like any exact number."""
    given = {name: call.args[name] for name in ("self", "other", "by") if isinstance(call.args[name], Operand)}
    labels = [operand.label for operand in given.values()]
    if any(label.kind != ROWS or label.source is None or label.rows != labels[0].rows for label in labels):
        return tainted(call)
    sources = {name: operand.label.source for name, operand in given.items()}
    found = answer(call.args["kind"], sources["self"], others=sources.get("other"), by=sources.get("by"))
    return tainted_answer(call, found)
