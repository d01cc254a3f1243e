"""What each row adds to a sum over rows: the sum of these contributions over n is the value. For workers.

The same forms serve values [n rows] and bounds (one slice that stands for every row).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import torch

from apps.compute.labels import Shape
from apps.compute.readers.losses import LOSSES
from apps.compute.rules.networks import MEAN, NONE
from apps.compute.targets import DTYPES, TARGETS, called

Args = Mapping[str, Any]


class Sum(NamedTuple):
    """A reduction of one operand. `map` is what happens to each element first; `mean`: divided by their number."""

    map: Callable[[torch.Tensor, Args], torch.Tensor]
    mean: bool = False


class Product(NamedTuple):
    """A product of two operands, contracted along the rows. `form`: Einstein's notation, the rows called n."""

    left: str
    right: str
    form: str


def _cast(value: torch.Tensor, args: Args) -> torch.Tensor:
    dtype = args.get("dtype")
    return value if dtype is None else value.to(DTYPES[dtype])


def _known(value: torch.Tensor, args: Args) -> torch.Tensor:
    return _cast(torch.where(value.isnan(), torch.zeros((), dtype=value.dtype), value), args)


def _counted(value: torch.Tensor, args: Args) -> torch.Tensor:
    return value != 0


SUMS: dict[str, Sum] = {
    "aten::sum": Sum(_cast),
    "aten::sum.dim_IntList": Sum(_cast),
    "aten::mean": Sum(_cast, mean=True),
    "aten::mean.dim": Sum(_cast, mean=True),
    "aten::nansum": Sum(_known),
    "aten::count_nonzero": Sum(_counted),
    "aten::count_nonzero.dim_IntList": Sum(_counted),
}
PRODUCTS: dict[str, Product] = {
    "aten::mm": Product("self", "mat2", "an,nb->nab"),
    "aten::mv": Product("self", "vec", "an,n->na"),
    "aten::dot": Product("self", "tensor", "n,n->n"),
    "aten::vdot": Product("self", "other", "n,n->n"),
    "aten::bmm": Product("self", "mat2", "pan,pnb->npab"),
}
COUNT = "grid::count"
KINDS = frozenset({*SUMS, *PRODUCTS, *LOSSES, COUNT})
"""Every operation that makes a total of rows."""


def dims(shape: Shape, args: Args) -> set[int]:
    """The axes that a reduction adds up."""
    given = args.get("dim")
    if given is None or given == []:
        return set(range(len(shape)))
    return {axis % len(shape) for axis in (given if isinstance(given, list) else [given])}


def of_sum(value: torch.Tensor, axis: int, added: set[int]) -> torch.Tensor:
    """Each row's elements, added up along the other axes of `added`: float64 [n, size]."""
    front = value.to(torch.float64).movedim(axis, 0)
    others = [other + (other < axis) for other in added - {axis}]
    return _flat(front.sum(others) if others else front)


def of_product(product: Product, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """What each row adds to a product: float64 [n, size]."""
    return _flat(torch.einsum(product.form, left.to(torch.float64), right.to(torch.float64)))


def of_loss(op: str, held: Args, axis: int) -> torch.Tensor:
    """What each row adds to a loss whose rows lie on `axis` of its elements: float64 [n, 1]. `held`: its arguments."""
    (each,) = called(TARGETS[op], {**held, "reduction": NONE}, lambda given: given)
    found = of_sum(each, axis, set(range(each.dim())))
    return found / max(each.numel(), 1) if held["reduction"] == MEAN else found


def row_axes(product: Product) -> tuple[int, int]:
    """Where the rows lie in the left and in the right operand."""
    left, right = product.form.split("->")[0].split(",")
    return left.index("n"), right.index("n")


def _flat(value: torch.Tensor) -> torch.Tensor:
    return value.reshape(value.shape[0], prod(value.shape[1:]))
