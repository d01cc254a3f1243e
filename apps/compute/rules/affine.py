"""A public affine map of totals stays AGG: noise goes on the totals themselves, and the map is applied after it.

A member of the closed set that is mapped is none any more, so that nothing here widens what leaves exactly.
"""

from __future__ import annotations

from apps.compute.labels import AGG, Call, Label, Operand, tainted, total

_SELF = (("self",),)
_EITHER = (("self",), ("other",))
_BOTH = (("self", "other"),)
_TENSORS = (("tensors",),)

AFFINE: dict[str, tuple[tuple[str, ...], ...]] = {
    "aten::neg": _SELF,
    "aten::add.Tensor": _BOTH,
    "aten::sub.Tensor": _BOTH,
    "aten::rsub.Scalar": _SELF,
    "aten::rsub.Tensor": _BOTH,
    "aten::mul.Tensor": _EITHER,
    "aten::div.Tensor": _SELF,
    "aten::_to_copy": _SELF,
    "aten::sum": _SELF,
    "aten::sum.dim_IntList": _SELF,
    "aten::mean": _SELF,
    "aten::mean.dim": _SELF,
    "aten::mm": (("self",), ("mat2",)),
    "aten::mv": (("self",), ("vec",)),
    "aten::dot": (("self",), ("tensor",)),
    "aten::vdot": _EITHER,
    "aten::bmm": (("self",), ("mat2",)),
    "aten::addmm": (("self", "mat1"), ("self", "mat2")),
    "aten::addmv": (("self", "mat"), ("self", "vec")),
    "aten::baddbmm": (("self", "batch1"), ("self", "batch2")),
    "aten::t": _SELF,
    "aten::transpose.int": _SELF,
    "aten::permute": _SELF,
    "aten::view": _SELF,
    "aten::_unsafe_view": _SELF,
    "aten::squeeze.dim": _SELF,
    "aten::squeeze.dims": _SELF,
    "aten::unsqueeze": _SELF,
    "aten::expand": _SELF,
    "aten::repeat": _SELF,
    "aten::flip": _SELF,
    "aten::select.int": _SELF,
    "aten::slice.Tensor": _SELF,
    "aten::index_select": _SELF,
    "aten::index.Tensor": _SELF,
    "aten::cat": _TENSORS,
    "aten::stack": _TENSORS,
}
"""By operation: the arguments that may be totals at once, each way of it. All others are public then."""


def of_totals(call: Call) -> bool:
    """Whether an operand is a total."""
    return any(operand.label.kind == AGG for operand in call.operands)


def mapped(call: Call) -> Label:
    """AGG where the call is affine in its totals and everything else is public; else TAINTED."""
    if call.op == "aten::_to_copy" and call.args["dtype"] in (None, call.operand("self").dtype):
        return call.operand("self").label
    private = call.private()
    if any(operand.label.kind != AGG for operand in private) or not _rounds_nothing(call):
        return tainted(call)
    for together in AFFINE.get(call.op, ()):
        if sum(_totals(call.args[name]) for name in together) == len(private):
            return total(call)
    return tainted(call)


def _totals(given: object) -> int:
    """How many totals an argument holds."""
    held = given if isinstance(given, list) else [given]
    return sum(isinstance(each, Operand) and each.label.kind == AGG for each in held)


def _rounds_nothing(call: Call) -> bool:
    """Whether a dtype that the call names takes no fractions away."""
    dtype = call.args.get("dtype")
    return dtype is None or "float" in dtype or dtype == call.operand("self").dtype
