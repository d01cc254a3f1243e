"""Everything of `torch.Tensor` that reads memory: a pointer has none, so each of them says what to do instead.

Overridden here rather than refused during dispatch, because several of these (`__dlpack__`, `apply_`, `data_ptr`) read
or write wild memory, or end the process, before any dispatch.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from gridclient.recorder.lines import located
from gridclient.recorder.rules import remote_value
from gridclient.wire.errors import OperationNotAllowedError


def _no_value(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise remote_value(name)

    method.__name__ = name
    return method


def _no_operation(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise located(OperationNotAllowedError(f"{name} runs Python on memory that is on a node.", operation=name))

    method.__name__ = name
    return method


def _no_turn(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise located(
            OperationNotAllowedError(
                f"aten::{name} would change the shape of a remote tensor in place; use the result of the operation "
                "that ends without _.",
                operation=f"aten::{name}",
            )
        )

    method.__name__ = name
    return method


class Refusals:
    """Base of a pointer, before `torch.Tensor`."""

    item = _no_value("item")
    tolist = _no_value("tolist")
    numpy = _no_value("numpy")
    data_ptr = _no_value("data_ptr")
    const_data_ptr = _no_value("const_data_ptr")
    mutable_data_ptr = _no_value("mutable_data_ptr")
    storage = _no_value("storage")
    typed_storage = _no_value("typed_storage")
    untyped_storage = _no_value("untyped_storage")
    storage_offset = _no_value("storage_offset")
    _typed_storage = _no_value("typed_storage")
    share_memory_ = _no_value("share_memory_")
    __array__ = _no_value("numpy")
    __dlpack__ = _no_value("__dlpack__")
    __dlpack_device__ = _no_value("__dlpack__")
    __bool__ = _no_value("bool")
    __int__ = _no_value("int")
    __float__ = _no_value("float")
    __complex__ = _no_value("complex")
    __index__ = _no_value("__index__")
    __reduce__ = _no_value("Pickling")
    __reduce_ex__ = _no_value("Pickling")
    __copy__ = _no_value("copy.copy")
    __deepcopy__ = _no_value("copy.deepcopy")
    apply_ = _no_operation("apply_")
    map_ = _no_operation("map_")
    map2_ = _no_operation("map2_")
    t_ = _no_turn("t_")
    transpose_ = _no_turn("transpose_")
    swapaxes_ = _no_turn("swapaxes_")
    swapdims_ = _no_turn("swapdims_")
    squeeze_ = _no_turn("squeeze_")
    unsqueeze_ = _no_turn("unsqueeze_")
    resize_ = _no_turn("resize_")
    resize_as_ = _no_turn("resize_as_")
    set_ = _no_turn("set_")
    as_strided_ = _no_turn("as_strided_")

    def __format__(self, spec: str) -> str:
        if spec:
            raise remote_value(f"The format {spec!r}")
        return repr(self)


def guard_data(pointer: type[torch.Tensor]) -> None:
    """Make `local.data = pointer` raise. Torch itself would accept it and end the process at the next operation.

    Neither `__torch_function__` nor dispatch sees that assignment when the tensor on the left is an ordinary one.
    """
    inherited: Any = vars(torch._C.TensorBase)["data"]

    def assign(self: torch.Tensor, value: Any) -> None:
        if isinstance(value, pointer):
            raise located(
                OperationNotAllowedError(
                    "tensor.data = pointer would put a remote value into a local tensor. Compute with the pointer "
                    "itself; grid.send(tensor, node) moves a local tensor to the node.",
                    operation="data",
                )
            )
        inherited.__set__(self, value)

    torch.Tensor.data = property(inherited.__get__, assign, doc=inherited.__doc__)  # type: ignore[assignment]
