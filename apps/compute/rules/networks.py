"""Rules of layers of networks. Data in a batched layout keep their rows along the batch; whatever else is private
(a weight, a bias, a table, a statistic), another layout, or a window along the entity axis is TAINTED.
"""

from __future__ import annotations

from apps.compute.labels import PUBLIC, ROWS, Call, Label, Operand, Shape, by_rows, tainted, total
from apps.compute.rules import Rule
from apps.compute.rules.pointwise import pointwise

NONE, MEAN, SUM = 0, 1, 2
"""How a loss of elements is reduced."""
REDUCED = (MEAN, SUM)


def _rows(call: Call, data: tuple[str, ...], axis: int, *, unread: tuple[str, ...] = ()) -> Label | None:
    """ROWS along `axis` where every private operand is among `data` and has the same rows there. None otherwise.

    `unread`: operands that the kernel does not look at.
    """
    named = [found for name in data if isinstance(found := call.args.get(name), Operand)]
    ignored = [found for name in unread if isinstance(found := call.args.get(name), Operand)]
    private = [operand for operand in named if operand.label.kind != PUBLIC]
    if not private or len(private) + sum(found.label.kind != PUBLIC for found in ignored) != len(call.private()):
        return None
    if any(operand.label.kind != ROWS or operand.label.axis != axis for operand in private):
        return None
    if len({operand.label.rows for operand in private}) != 1 or len({operand.shape[axis] for operand in private}) != 1:
        return None
    return by_rows(call, axis, [operand.label for operand in private])


def _or_tainted(call: Call, found: Label | None) -> Label:
    return tainted(call) if found is None else found


def batched(rank: int, *data: str) -> Rule:
    """Every sample by itself: data with `rank` axes, the batch first. All outputs alike."""

    def rule(call: Call) -> Label:
        fits = all(len(call.operand(name).shape) == rank for name in data)
        return _or_tainted(call, _rows(call, data, 0) if fits else None)

    return rule


def convolution(call: Call) -> Label:
    """The input is the data, with as many axes as the weight."""
    if len(call.operand("input").shape) != len(call.operand("weight").shape):
        return tainted(call)
    return _or_tainted(call, _rows(call, ("input",), 0))


def convolution_backward(call: Call) -> list[Label]:
    """The gradient of the input by rows; those of weight and bias are sums over people."""
    return _first(call, _rows(call, ("grad_output", "input"), 0))


def layer_norm(call: Call) -> Label:
    """Normalises the last axes: each row by itself where its axis is not one of them."""
    return _or_tainted(call, _before(call, "input"))


def layer_norm_backward(call: Call) -> list[Label]:
    return _first(call, _before(call, "grad_out", "input", "mean", "rstd"))


def group_norm(call: Call) -> Label:
    """Each sample by its own statistics."""
    return _or_tainted(call, _rows(call, ("input",), 0))


def group_norm_backward(call: Call) -> list[Label]:
    return _first(call, _rows(call, ("grad_out", "input", "mean", "rstd"), 0))


def batch_norm_evaluated(call: Call) -> list[Label]:
    """By given statistics, which are public."""
    return _first(call, _rows(call, ("input",), 0))


def batch_norm_backward(call: Call) -> list[Label]:
    """By rows where given statistics were used; in training everybody's gradient depends on everybody."""
    if call.args["train"] is not False:
        return _first(call, None)
    return _first(call, _rows(call, ("grad_out", "input"), 0, unread=("save_mean", "save_invstd")))


def attention(call: Call) -> Label:
    """Each sample attends to itself. A mask that differs between samples may be private too."""
    batch = call.operand("query").shape[0]
    data: tuple[str, ...] = ("query", "key", "value", "grad_out", "out", "logsumexp")
    mask = call.args.get("attn_mask")
    if isinstance(mask, Operand) and len(mask.shape) == 4 and mask.shape[0] == batch:
        data = (*data, "attn_mask")
    return _or_tainted(call, _rows(call, data, 0))


def embedding(call: Call) -> Label:
    """A public table looked up by private positions."""
    indices = call.operand("indices").label
    return _or_tainted(call, _rows(call, ("indices",), indices.axis) if indices.kind == ROWS else None)


def along(call: Call) -> Label:
    """glu and the gradients of softmax: each row by itself unless `dim` is its axis."""
    value = call.operand("self" if "self" in call.args else "output")
    return _elsewhere(call, {call.args["dim"] % max(len(value.shape), 1)})


def padded(call: Call) -> Label:
    """Padding and cutting along other axes than that of the rows."""
    pad, rank = call.args["pad"], len(call.operand("self").shape)
    return _elsewhere(call, {rank - 1 - place // 2 for place, more in enumerate(pad) if more})


def shuffled(call: Call) -> Label:
    """pixel_shuffle, pixel_unshuffle: the last three axes are mixed."""
    rank = len(call.operand("self").shape)
    return _elsewhere(call, {rank - 3, rank - 2, rank - 1})


def channels_shuffled(call: Call) -> Label:
    return _elsewhere(call, {1})


def weighted(call: Call) -> Label:
    """Element by element, with a public weight."""
    if any(isinstance(found, Operand) and found.label.kind != PUBLIC for found in _weights(call)):
        return tainted(call)
    return pointwise(call)


def loss(call: Call) -> Label:
    """A loss of each element; added up it is a total, and so is a mean: the sum divided by their public number."""
    if call.args["reduction"] == NONE:
        return weighted(call)
    each = call._replace(outputs=(broadcast(call.operand("self").shape, call.operand("target").shape),))
    added = call.args["reduction"] in REDUCED and weighted(each).kind == ROWS
    return total(call) if added else tainted(call)


def broadcast(first: Shape, second: Shape) -> Shape:
    """The shape of what is computed element by element from two values that fit."""
    rank = max(len(first), len(second))
    padded = [(1,) * (rank - len(extents)) + extents for extents in (first, second)]
    return tuple(other if one == 1 else one for one, other in zip(*padded, strict=True))


def classified(call: Call) -> Label | list[Label]:
    """A loss of each sample over classes, or its gradient, not reduced. What all weights add up to is TAINTED."""
    scores = call.operand("self")
    # Without reduction the total weight is not looked at.
    found = _rows(call, ("grad_output", "self", "target"), 0, unread=("total_weight",))
    if call.args["reduction"] != NONE or len(scores.shape) < 2:
        found = None
    return _first(call, found) if len(call.outputs) > 1 else _or_tainted(call, found)


def _weights(call: Call) -> list[object]:
    return [call.args.get("weight"), call.args.get("pos_weight")]


def _before(call: Call, *data: str) -> Label | None:
    """The rows of an input whose last axes are normalised together."""
    value = call.operand("input")
    labels = [call.operand(name).label for name in data]
    axes = {label.axis for label in labels if label.kind == ROWS}
    if len(axes) != 1 or not max(axes) < len(value.shape) - len(call.args["normalized_shape"]):
        return None
    return _rows(call, data, axes.pop())


def _elsewhere(call: Call, dims: set[int]) -> Label:
    """ROWS where all private operands lie on one axis, which is not among `dims`."""
    private = call.private()
    axes = {operand.label.axis for operand in private}
    if any(operand.label.kind != ROWS for operand in private) or len(axes) != 1 or axes & dims:
        return tainted(call)
    if len({operand.label.rows for operand in private}) != 1:
        return tainted(call)
    return by_rows(call, axes.pop(), [operand.label for operand in private])


def _first(call: Call, found: Label | None) -> list[Label]:
    """This label for the first output; the others are TAINTED, and so is a gradient that was not asked for."""
    if not call.args.get("output_mask", [True])[0]:
        found = None
    return [_or_tainted(call, found), *[tainted(call)] * (len(call.outputs) - 1)]
