"""Elements moved, joined and repeated, without computing with them."""

from __future__ import annotations

from apps.compute.rows.base import Operation, aten, nothing, per_output
from apps.compute.rules import composite, layout, pointwise

_SELECTED = {"select.int": "{self}, position {index} of axis {dim}"}
_SLICED = {"slice.Tensor": "{self}, positions {start} to {end} (step {step}) of axis {dim}"}
_JOINED = {"cat": "{tensors} joined along axis {dim}", "stack": "{tensors} stacked along axis {dim}"}
_MOVED = {
    "t": "{self} transposed",
    "transpose.int": "{self}, axes {dim0} and {dim1} exchanged",
    "permute": "{self}, axes in the order {dims}",
}
_RESHAPED = dict.fromkeys(("view", "_unsafe_view"), "{self} in the shape {size}")
_SQUEEZED = dict.fromkeys(("squeeze.dim", "squeeze.dims"), "{self} without axis {dim}")
_SCATTERED = {
    "select_scatter": "{self} with {src} at position {index} of axis {dim}",
    "slice_scatter": "{self} with {src} at positions {start} to {end} (step {step}) of axis {dim}",
}
_DIAGONAL = dict.fromkeys(("diagonal", "diagonal_copy"), "diagonal {offset} of {self} over axes {dim1} and {dim2}")
_ON_DIAGONAL = {"diagonal_scatter": "{self} with {src} on diagonal {offset} of axes {dim1} and {dim2}"}
_TRIANGLES = {
    "tril": "{self} with zeros above diagonal {diagonal}",
    "triu": "{self} with zeros below diagonal {diagonal}",
}
_UNFOLDED = dict.fromkeys(("unfold", "unfold_copy"), "windows of {size} (step {step}) along axis {dimension} of {self}")
_MIXING = {
    "diagonal_backward": "gradient {grad_output} through a diagonal",
    "select_backward": "gradient {grad_output} through a selected position",
    "slice_backward": "gradient {grad_output} through a slice",
    "unfold_backward": "gradient {grad_in} through windows",
}
ROWS: list[Operation] = [
    *aten(layout.selected, nothing, _SELECTED, chooses=True),
    *aten(layout.sliced, nothing, _SLICED, chooses=True),
    *aten(layout.flipped, per_output, {"flip": "{self} reversed along {dims}"}),
    *aten(layout.rolled, per_output, {"roll": "{self} rolled by {shifts} along {dims}"}),
    *aten(layout.rotated, per_output, {"rot90": "{self} turned {k} times in the plane {dims}"}),
    *aten(layout.joined, per_output, _JOINED),
    *aten(layout.moved, nothing, _MOVED),
    *aten(layout.reshaped, nothing, _RESHAPED),
    *aten(layout.expanded, nothing, {"expand": "{self} repeated to the shape {size}"}),
    *aten(layout.repeated, per_output, {"repeat": "{self} repeated {repeats} times"}),
    *aten(layout.unsqueezed, nothing, {"unsqueeze": "{self} with a new axis {dim}"}),
    *aten(layout.squeezed, nothing, _SQUEEZED),
    *aten(layout.scattered, per_output, _SCATTERED, chooses=True),
    *aten(layout.diagonal, nothing, _DIAGONAL, chooses=True),
    *aten(layout.on_diagonal, per_output, _ON_DIAGONAL, chooses=True),
    *aten(layout.embedded, per_output, {"diag_embed": "{self} on diagonal {offset} of axes {dim1} and {dim2}"}),
    *aten(pointwise.pointwise, per_output, _TRIANGLES, chooses=True, probe=True),
    *aten(layout.unfolded, per_output, _UNFOLDED),
    *aten(None, per_output, {"block_diag": "{tensors} as the blocks of a matrix"}, probe=True),
    *aten(None, per_output, _MIXING, chooses=True),
    Operation("grid::asset", None, nothing, "{dataset}"),
    Operation("grid::constant", None, nothing, "{constant}"),
    Operation("grid::parameter", pointwise.clone, nothing, "{self}, sent as {name} of module {module}"),
    Operation("grid::column", composite.columns, per_output, "column {names} of {self}"),
    Operation("grid::columns", composite.columns, per_output, "columns {names} of {self}"),
]
