"""The state of a module as one value: proposed, computed and written as a safetensors file. For workers only."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save, save_file

from apps.compute import messages
from apps.compute.judging import Fact
from apps.compute.labels import NOTHING, PUBLIC, TAINTED, Label, Operand, inputs_of
from apps.compute.programs import Program
from apps.compute.readers.torch import TorchReader
from apps.compute.training import MAX_ID, MAX_NAME, checked_name, is_loss
from gridclient.program.graph import Ref, result_hash
from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.messages import INLINE_LIMIT, MAX_TENSORS, TensorHeader

KIND = "state"
NEITHER = "A 'train' grant gives the whole state of a module, with grid.get(module), and 0-dim losses; this is neither."


def loss(program: Program, value: Ref) -> tuple[bool, str]:
    """Whether a value is a loss of a module that was sent; if not, why, where it has to do with one."""
    kind, marks = program.kind(value), program.marks(value)
    if not kind.private or not marks:
        return False, ""
    trained = is_loss(kind, marks)
    return trained, "" if trained else NEITHER


def proposal(program: Program, reader: TorchReader, ask: int, state: messages.State) -> messages.Proposal:
    """Label, lineage and cost of a state. Raises InvalidInputError, LimitExceededError."""
    facts = checked(program, state)
    plan = program.plan(state.values, reader.has)
    label = label_of(facts)
    why = ""
    if label.kind != PUBLIC:
        known = [(program.kind(ref), program.marks(ref)) for ref in state.values]
        why = program.training.why_no_state(state.module, state.names, known)
    assets = {asset for ref in state.values for asset in program.assets(ref)}
    return messages.Proposal(
        ask,
        result_hash(state.values, program.hashes),
        label.kind,
        label.messages(),
        None,
        KIND,
        "",
        [len(facts), sum(math.prod(fact.shape) for fact in facts)],
        plan.flops,
        sum(fact.nbytes for fact in facts),
        len(plan.order),
        sorted(assets),
        trained=label.kind != PUBLIC and not why,
        untrained=f"A 'train' grant gives what training made of a module; here {why}." if why else "",
    )


def value(program: Program, reader: TorchReader, question: messages.Evaluate, state: messages.State) -> messages.Value:
    """The state itself: inline, or written to the path."""
    checked(program, state)
    plan = program.plan(state.values, reader.has)
    found = reader.values(state.values, plan)
    # Copies: two names may be two views of the same bytes, which the format has no words for.
    tensors = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in zip(state.names, found, strict=True)
    }
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= INLINE_LIMIT // 2:
        data = save(tensors)
        if len(data) <= INLINE_LIMIT:
            return messages.Value(question.ask, _header(len(data)), data, KIND)
    save_file(tensors, question.path)
    os.chmod(question.path, 0o600)
    return messages.Value(question.ask, _header(Path(question.path).stat().st_size), None, KIND)


def checked(program: Program, state: messages.State) -> list[Fact]:
    """What is known of a state's values. Raises InvalidInputError for what is none, LimitExceededError."""
    names = state.names
    if not 0 < len(names) <= MAX_TENSORS or len(set(names)) != len(names) or len(state.values) != len(names):
        raise InvalidInputError(f"A state has 1 to {MAX_TENSORS} names, each once, and a value for each.")
    checked_name(state.module, "The id of a module", MAX_ID)
    for name in names:
        checked_name(name, "The name of a parameter", MAX_NAME)
    facts = [program.fact(ref) for ref in state.values]
    if any(fact.table is not None for fact in facts):
        raise InvalidInputError("The values of a state are tensors; a table is none.")
    nbytes = sum(fact.nbytes for fact in facts)
    if nbytes > program.limits.value:
        raise LimitExceededError(
            f"This state has {nbytes} bytes; the limit is {program.limits.value}.", limit=program.limits.value
        )
    return facts


def label_of(facts: Iterable[Fact]) -> Label:
    """The label of several values as one."""
    private = [Operand(fact.label, fact.shape, fact.dtype) for fact in facts if fact.label.kind != PUBLIC]
    return Label(TAINTED, inputs_of(private)) if private else NOTHING


def _header(nbytes: int) -> TensorHeader:
    return TensorHeader("uint8", [nbytes], nbytes)
