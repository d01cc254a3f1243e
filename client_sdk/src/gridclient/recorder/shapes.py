"""The spec of an operation's result, found by running the operation on meta tensors, and remembered.

The memo's key holds operation, specs and static arguments, each static argument with its Python type: 1, 1.0 and
True are equal as keys and give different dtypes. A float's value is no part of it: no operation of the table that
takes a pointer has a shape that depends on a float.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import torch

from gridclient.recorder.spec import DTYPES, Spec
from gridclient.wire.errors import GridError, OperationNotAllowedError, ShapeError

_NORMS = """
    native_layer_norm native_group_norm _native_batch_norm_legit_no_training _native_batch_norm_legit_functional
    _native_batch_norm_legit.no_stats
""".split()
_LOSSES = "huber_loss soft_margin_loss binary_cross_entropy binary_cross_entropy_with_logits".split()
_PRODUCTS = "mm mv bmm dot vdot addmm addmv baddbmm addbmm convolution _cdist_forward".split()
_INDEXED = {
    "index_put": 1, "index_add": 2, "index_copy": 2, "index_reduce": 2, "put": 1, "nll_loss_forward": 1,
    "nll_loss2d_forward": 1,
}  # fmt: skip
ONE_DTYPE: dict[str, int | None] = {f"aten::{name}": None for name in [*_PRODUCTS, *_NORMS, *_LOSSES, "heaviside"]} | {
    f"aten::{name}": position for name, position in _INDEXED.items()
}
"""Operations whose operands have one dtype, which meta kernels do not check; and which argument holds positions."""

Key = tuple[Any, ...]
Specs = Spec | tuple[Spec | None, ...]
"""Of one result, or of several; None for one that was not asked for (a gradient that nobody needs)."""
NODE_DTYPE = torch.float32
"""Default dtype on every node: what an integer becomes when it meets a Python float."""


class ShapeMemo:
    """Specs of results by key; the least recently used are forgotten beyond `size`."""

    def __init__(self, size: int = 8192) -> None:
        self._size = size
        self._known: collections.OrderedDict[Key, Specs] = collections.OrderedDict()

    def infer(self, key: Key, name: str, call: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Specs:
        """Spec of the result of `call(*args, **kwargs)`: one, or a tuple for an operation with several results.

        Arguments may be anything with a `spec`, or a `Spec`. Raises ShapeError with torch's own words.
        """
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _run(name, call, args, kwargs)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
        else:
            try:
                self._known.move_to_end(key)
            except KeyError:  # another thread forgot it just now
                self._known[key] = found
        return found


def _run(name: str, call: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Specs:
    metas = [_meta(arg) for arg in args]
    options = {key: _meta(value) for key, value in kwargs.items()}
    default = torch.get_default_dtype()
    with torch.inference_mode(False), torch.no_grad():
        result = _call(name, call, metas, options)
        if default is not NODE_DTYPE:
            torch.set_default_dtype(NODE_DTYPE)
            try:
                there = _call(name, call, metas, options)
            finally:
                torch.set_default_dtype(default)
            if there != result:
                raise OperationNotAllowedError(
                    f"{name} gives another dtype on the node, where torch's default dtype is {NODE_DTYPE}, than here "
                    f"({default}); convert the operand first, for example with x.to({default}).",
                    operation=name,
                )
    return result


def _call(name: str, call: Any, args: list[Any], kwargs: dict[str, Any]) -> Specs:
    if name in ONE_DTYPE:
        _check_dtypes(name, args, kwargs)
    try:
        result = call(*args, **kwargs)
    except GridError:
        raise
    except NotImplementedError as error:
        reason = str(error).partition("\n")[0]
        raise OperationNotAllowedError(f"{name} cannot be recorded: {reason}", operation=name) from error
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        shapes = ", ".join(str(list(arg.shape)) for arg in _tensors(args))
        raise ShapeError(f"{name} on shapes {shapes}: {reason}", operation=name) from error
    if isinstance(result, torch.Tensor):
        return _spec(name, result)
    return tuple(None if tensor is None else _spec(name, tensor) for tensor in result)


def _check_dtypes(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Raise ShapeError for operands of several dtypes: a node would notice them only when the result is asked for."""
    positions = ONE_DTYPE[name]
    operands = _tensors([arg for i, arg in enumerate([*args, *kwargs.values()]) if i != positions])
    dtypes = list(dict.fromkeys(operand.dtype for operand in operands))
    if len(dtypes) > 1:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        floating = next((dtype for dtype in dtypes if dtype.is_floating_point), dtypes[0])
        raise ShapeError(
            f"{name} takes values of one dtype, not {names}; convert one of them, for example with x.to({floating}).",
            operation=name,
        )


def _spec(name: str, tensor: torch.Tensor) -> Spec:
    if tensor.dtype not in DTYPES:
        allowed = ", ".join(dtype.name for dtype in DTYPES.values())
        raise OperationNotAllowedError(f"{name} gives {tensor.dtype}; values on a node are {allowed}.", operation=name)
    return Spec.of_tensor(tensor)


def _meta(arg: Any) -> Any:
    if isinstance(arg, Spec):
        return arg.meta
    if isinstance(arg, (list, tuple)):
        return [_meta(item) for item in arg]
    spec = getattr(arg, "spec", None)
    return arg if spec is None else spec.meta


def _tensors(args: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for arg in args:
        if isinstance(arg, torch.Tensor):
            found.append(arg)
        elif isinstance(arg, list):
            found.extend(_tensors(arg))
    return found
