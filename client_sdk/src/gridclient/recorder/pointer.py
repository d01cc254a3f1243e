"""The pointer: a `torch.Tensor` whose elements are on a node. Operations on it are recorded, not computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from gridclient import html
from gridclient.program.graph import Ref
from gridclient.recorder.indexing import Prepared
from gridclient.recorder.lines import located
from gridclient.recorder.places import Cell, Place, View
from gridclient.recorder.refusals import Refusals
from gridclient.recorder.rewrites import DECOMPOSE, WRITTEN, Turned
from gridclient.recorder.rules import rule_of
from gridclient.recorder.spec import Spec
from gridclient.recorder.tape import Tape, Value
from gridclient.wire.errors import (
    DifferentNodesError,
    GridError,
    LimitExceededError,
    OperationNotAllowedError,
)

MAX_ITERATIONS = 1_000
_CPU = torch.device("cpu")
_OF_DATASETS = {"description", "tags", "columns", "bounds", "mock"}


class Pointer(Refusals, torch.Tensor):
    """A tensor on a node. Made by searches, `.send(node)`, and every operation on another pointer."""

    # The default would hand each call to Python twice; nothing here needs to see a function before it is dispatched.
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    _place: Place
    _info: Any = None
    _questions: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Pointer:
        raise TypeError("Pointers come from a search, from .send(node), or from operations on pointers.")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub lacks `func`
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        rule: Any = rule_of(func)
        options = kwargs or {}
        tape = _tape_of(args) or _tape_of(options.values())
        assert tape is not None, "dispatched without a pointer"
        try:
            if type(rule) is Prepared:
                args = rule.prepare(args)
                rule = rule.rule
            lifted = [_lift(arg, tape) for arg in args]
            if options:
                options = {name: _lift(option, tape) for name, option in options.items()}
            result = rule(tape, lifted, options)
        except GridError as error:
            raise located(error, func.name())  # noqa: B904  (the same error, with its name and line)
        if result is WRITTEN:
            return args[0]
        if type(result) is Turned:
            args[0]._place = result.place
            with torch._C._DisableTorchDispatch():
                func(*args, **options)  # changes nothing but the shape that torch sees
            return args[0]
        if result is DECOMPOSE:
            return func.decompose(*args, **(kwargs or {}))
        return _wrap(result)

    @property
    def location(self) -> Any:
        """The node that holds the value."""
        return self._place.tape.channel

    @property
    def ref(self) -> Ref:
        """The value as it is now, in the session's program."""
        return self._place.current().ref

    @property
    def dataset(self) -> str:
        """Name of the dataset it was computed from, or of several, with commas; empty for public values."""
        return ", ".join(sorted(self._place.sources))

    @property
    def description(self) -> Any:
        return self._of_dataset("description")

    @property
    def tags(self) -> Any:
        return self._of_dataset("tags")

    @property
    def columns(self) -> Any:
        return self._of_dataset("columns")

    @property
    def bounds(self) -> Any:
        return self._of_dataset("bounds")

    @property
    def mock(self) -> Any:
        return self._of_dataset("mock")

    def _of_dataset(self, name: str) -> Any:
        if self._info is None:
            raise AttributeError(f"Only the pointer to a dataset has .{name}; this one was computed or sent.")
        return getattr(self._info, name)

    def get(self, *, epsilon: float | None = None, within: float | None = None) -> Any:
        """The value itself, as a `torch.Tensor` on the CPU. Raises GetNotPermittedError when it may not leave.

        `epsilon`: a differentially private answer, of an aggregate over people; `within`: one with noise of at most so
        much in 95 of 100 answers. Its `.receipt` says what was charged. Raises TooNoisyError, UnboundedError,
        BudgetExhaustedError; nothing is charged then.
        """
        noise = {name: given for name, given in (("epsilon", epsilon), ("within", within)) if given is not None}
        return self.location.get(self.ref, self, **noise)

    def estimate(self, *, epsilon: float | None = None, within: float | None = None) -> Any:
        """What a private answer would cost, and how noisy it would be: an `Estimate`. Free."""
        return self.location.estimate(self.ref, epsilon=epsilon, within=within)

    def request(self, reason: str) -> Any:
        """Ask the node's reviewers for the value. Returns the request."""
        return self.location.request(self.ref, reason, self)

    def count(self) -> Pointer:
        """Number of rows, as an int64 pointer without axes: in a dataset whose number of rows is private, the number
        that are there."""
        return pointer_to(Cell(self._place.tape.count(self._place.current())))

    @property
    def dp(self) -> Any:
        """Questions about a column of a table, answered privately: `table["weight"].dp.quantile(0.5)`."""
        if self._questions is None:
            raise AttributeError(
                "Only a column of a table has .dp; of another aggregate over people, take .get(epsilon=...)."
            )
        return self._questions()

    @property
    def data(self) -> Any:
        """The same memory without gradients, as in torch."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        if isinstance(value, Pointer) and value._place is self._place:  # model.to("cpu") assigns what is there
            return
        raise located(
            OperationNotAllowedError(
                "pointer.data cannot be replaced. Take a module back with grid.get(module) before .to(...), .double() "
                "or .cpu(); write to a tensor with copy_.",
                operation="data",
            )
        )

    def __iter__(self) -> Iterator[Any]:
        if self.dim() == 0:
            raise TypeError("iteration over a 0-d tensor")
        if self.shape[0] > MAX_ITERATIONS:
            raise LimitExceededError(
                f"A loop over {self.shape[0]} rows of a pointer records each step; at most {MAX_ITERATIONS}. Work on "
                "the whole tensor, or on slices of it.",
                limit=MAX_ITERATIONS,
            )
        return iter(self.unbind(0))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # torch's stub lacks `self`
        parts = [f"shape={list(self.shape)}", f"dtype={str(self.dtype).removeprefix('torch.')}"]
        parts.append(f"node={self.location.node_id!r}")
        if self.dataset:
            parts.append(f"dataset={self.dataset!r}")
        if self.requires_grad:
            parts.append("requires_grad=True")
        return f"Pointer({', '.join(parts)})"

    def _repr_html_(self) -> str:
        known = self._info
        facts = {
            "shape": html.text(tuple(self.shape)) or "scalar",
            "dtype": html.text(str(self.dtype).removeprefix("torch.")),
            "node": html.text(self.location.node_id),
            "dataset": html.text(self.dataset),
        }
        if known is not None:
            facts |= {
                "columns": html.text(known.columns),
                "tags": html.text(known.tags),
                "description": html.paragraphs(known.description),
            }
        if self.requires_grad:
            facts["requires_grad"] = "yes"
        return html.card("Pointer", "", facts)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__}
        return sorted(names if self._info is not None else names - _OF_DATASETS)


def pointer_to(place: Place, info: Any = None) -> Pointer:
    """A new pointer to a place."""
    spec = place.spec
    # An inference tensor could not be used outside the block that made it, and views of ordinary ones would fail.
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return _make(spec, place, info)
    return _make(spec, place, info)


def _make(spec: Spec, place: Place, info: Any) -> Pointer:
    pointer: Pointer = torch.Tensor._make_wrapper_subclass(
        Pointer, spec.shape, spec.stride, dtype=spec.dtype, device=_CPU
    )
    pointer._place = place
    if info is not None:
        pointer._info = info
    return pointer


def _wrap(result: Any) -> Any:
    if type(result) is Value:
        return pointer_to(Cell(result))
    if type(result) is View or type(result) is Cell:
        return pointer_to(result)
    if result is None or type(result) is bool:
        return result
    return type(result)(_wrap(item) for item in result)


def _tape_of(args: Any) -> Tape | None:
    for arg in args:
        if isinstance(arg, Pointer):
            return arg._place.tape
        if isinstance(arg, (list, tuple)) and (tape := _tape_of(arg)) is not None:
            return tape
    return None


def _lift(arg: Any, tape: Tape) -> Any:
    """Places for pointers, constants for local tensors, anything else as it is."""
    if isinstance(arg, Pointer):
        place = arg._place
        if place.tape is not tape:
            raise DifferentNodesError(
                f"The operands are on two nodes, {tape.channel.node_id} and {place.tape.channel.node_id}. Take one of "
                "them with .get() and send it to the other with grid.send(tensor, node).",
                nodes=[tape.channel.node_id, place.tape.channel.node_id],
            )
        return place
    if isinstance(arg, torch.Tensor):
        return tape.constant(arg)
    if isinstance(arg, (list, tuple)):
        return [_lift(item, tape) for item in arg]
    return arg
