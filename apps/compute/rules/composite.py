"""Rules of operations of our own."""

from __future__ import annotations

import msgspec

from apps.compute.labels import ROWS, Call, Columns, Label, Source, narrowed_to, tainted


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
