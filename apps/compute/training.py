"""What is training? Read from the program alone: no value is looked at, and none is computed.

`grid::parameter` marks the value of a parameter or buffer as it was sent. A *loss* of a module is a floating value
without axes that depends on one of its marks. The *root gradient* of a loss is the `ones_like` of it, with which
autograd begins; what depends on a root gradient depends on a gradient of that module. A value that was used for its
shape only is not depended on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apps.compute.labels import Shape
from gridclient.program.graph import PARAMETER
from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.messages import MAX_TENSORS

ROOT = "aten::ones_like"
FLOATING = frozenset({"float16", "bfloat16", "float32", "float64"})
MAX_MODULES = 64
MAX_ID, MAX_NAME = 64, 200
GRADIENT = 1
"""Bit of a module's evidence; the others are its parameters, in the order they were marked."""

Marks = tuple[tuple[int, int], ...]
"""By module number, in their order: what a value depends on, one bit each."""
NO_MARKS: Marks = ()


class Kind(NamedTuple):
    """Shape and dtype of a value, and whether it depends on private data."""

    shape: Shape
    dtype: str
    private: bool


class Sent(NamedTuple):
    """A parameter or buffer as it was sent."""

    bit: int
    shape: Shape
    dtype: str
    trainable: bool


class Training:
    """The modules that were sent into one program, and what its values owe to them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._modules: list[dict[str, Sent]] = []
        self._known: dict[Marks, Marks] = {}

    # --- node by node ---

    def merged(self, given: Iterable[Marks]) -> Marks:
        """What a node depends on whose operands depend on these. Raises LimitExceededError for too many modules."""
        found = NO_MARKS
        for marks in given:
            if marks is not found and marks:
                found = self._union(found, marks) if found else marks
        return found

    def sent(self, marks: Marks, module: str, name: str, kind: Kind, trainable: bool) -> Marks:
        """The marks of `grid::parameter`. Raises InvalidInputError where the name was sent as something else."""
        number = self._numbers.setdefault(module, len(self._modules))
        if number == len(self._modules):
            self._modules.append({})
        tensors = self._modules[number]
        known = tensors.get(name)
        if known is None:
            if len(tensors) >= MAX_TENSORS:
                raise LimitExceededError(
                    f"A module has at most {MAX_TENSORS} parameters and buffers.", limit=MAX_TENSORS
                )
            known = tensors[name] = Sent(GRADIENT << len(tensors) + 1, kind.shape, kind.dtype, trainable)
        elif known[1:] != (kind.shape, kind.dtype, trainable):
            raise InvalidInputError(f"{name!r} was sent before, as something else.", operation=PARAMETER)
        return self._union(marks, ((number, known.bit),))

    def rooted(self, loss: Kind, marks: Marks) -> Marks:
        """The marks of a `ones_like`: where it is of a loss, it begins the gradients of the loss's modules."""
        if not is_loss(loss, marks):
            return NO_MARKS
        begun = tuple((number, GRADIENT) for number, bits in marks if bits > GRADIENT)
        return self._known.setdefault(begun, begun)

    def _union(self, first: Marks, second: Marks) -> Marks:
        both = dict(first)
        for number, bits in second:
            both[number] = both.get(number, 0) | bits
        if len(both) > MAX_MODULES:
            raise LimitExceededError(f"A value depends on at most {MAX_MODULES} modules.", limit=MAX_MODULES)
        found = tuple(sorted(both.items()))
        # One object for equal marks, so that most merges are over before they begin.
        return self._known.setdefault(found, found)

    # --- asked for ---

    def why_no_state(self, module: str, names: Sequence[str], values: Sequence[tuple[Kind, Marks]]) -> str:
        """Why these values are not the trained state of that module, in words; "" where they are.

        A value that depends on nothing private needs no evidence. Each other one depends on its own sent value, each
        trainable one also on a gradient of a loss of the module; there is at least one of these.
        """
        number = self._numbers.get(module)
        if number is None:
            return "no module with this id was sent into this session"
        tensors = self._modules[number]
        missing = sorted(tensors.keys() - set(names))
        unknown = [name for name in names if name not in tensors]
        if unknown:
            return f"{unknown[0]!r} was not sent with the module"
        if missing:
            return f"the state is whole or not at all, and {missing[0]!r} is missing"
        trained = False
        for name, (kind, marks) in zip(names, values, strict=True):
            sent = tensors[name]
            found = _why_not(name, sent, kind, dict(marks).get(number, 0))
            if found:
                return found
            trained = trained or (sent.trainable and kind.private)
        return "" if trained else "no trainable parameter of it was trained"


def is_loss(kind: Kind, marks: Marks) -> bool:
    """Whether a value is a loss of a module that was sent."""
    return not kind.shape and kind.dtype in FLOATING and any(bits > GRADIENT for _, bits in marks)


def _why_not(name: str, sent: Sent, kind: Kind, bits: int) -> str:
    """Why the value is not what became of the sent one; "" where it is."""
    if (kind.shape, kind.dtype) != (sent.shape, sent.dtype):
        return f"{name!r} was sent with shape {list(sent.shape)} of {sent.dtype}, and is another one now"
    if not kind.private:
        return ""
    if not bits & sent.bit:
        return f"{name!r} does not depend on the value that was sent"
    if sent.trainable and not bits & GRADIENT:
        return f"{name!r} does not depend on a gradient of a loss of the module"
    return ""


def checked_name(text: str, what: str, most: int) -> str:
    """A module's id or a parameter's name as it may travel. Raises InvalidInputError."""
    if not 0 < len(text) <= most or not text.isprintable():
        raise InvalidInputError(f"{what} has 1 to {most} printed characters.", operation=PARAMETER)
    if text == "__metadata__":
        raise InvalidInputError(
            f"{what} is not {text!r}: a state is a safetensors file, whose own that is.", operation=PARAMETER
        )
    return text
