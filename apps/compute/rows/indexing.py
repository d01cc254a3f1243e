"""Elements found and written by index tensors."""

from __future__ import annotations

from apps.compute.rows.base import Operation, aten, comparing, per_input, per_output
from apps.compute.rules import indexing, layout, pointwise

_INDEXED = {"index_select": "{self}, positions {index} of axis {dim}"}
_TAKEN = {"index.Tensor": "{self}, positions {indices} of its axes"}
_PUT = {"index_put": "{self} with {values} at positions {indices} of its axes (added: {accumulate})"}
_GATHERED = {"gather": "{self}, for each element its own position {index} along axis {dim}"}
_SCATTERED = {
    "scatter.src": "{self} with {src} at positions {index} along axis {dim}",
    "scatter.value": "{self} with {value} at positions {index} along axis {dim}",
    "scatter.reduce": "{self} with {src} at positions {index} along axis {dim} ({reduce})",
    "scatter.value_reduce": "{self} with {value} at positions {index} along axis {dim} ({reduce})",
    "scatter_add": "{self} with {src} added at positions {index} along axis {dim}",
    "scatter_reduce.two": "{self} with {src} at positions {index} along axis {dim} ({reduce})",
}
_WRITTEN = {
    "index_add": "{self} with {alpha} × {source} added at positions {index} of axis {dim}",
    "index_copy": "{self} with {source} at positions {index} of axis {dim}",
    "index_reduce": "{self} with {source} at positions {index} of axis {dim} ({reduce})",
    "index_fill.int_Scalar": "{self} with {value} at positions {index} of axis {dim}",
    "index_fill.int_Tensor": "{self} with {value} at positions {index} of axis {dim}",
}
_FLAT = {"put": "{self} with {source} at positions {index} of all elements (added: {accumulate})"}
_PLACED = {
    "searchsorted.Tensor": "the places of {self} in the order {sorted_sequence}",
    "bucketize.Tensor": "the places of {self} between {boundaries}",
    "isin.Tensor_Tensor": "is {elements} among {test_elements}?",
    "take": "{self}, positions {index} of all elements",
}
_AMONG = {
    "searchsorted.Scalar": "the place of {self} in the order {sorted_sequence}",
    "isin.Scalar_Tensor": "is {element} among {test_elements}?",
}
ROWS: list[Operation] = [
    *aten(layout.indexed, per_output, _INDEXED, chooses=True, probe=True),
    *aten(indexing.taken, per_output, _TAKEN, chooses=True, probe=True),
    *aten(indexing.put, per_input, _PUT, chooses=True, probe=True),
    *aten(indexing.gathered, per_input, _GATHERED, chooses=True, probe=True),
    *aten(indexing.scattered, per_input, _SCATTERED, chooses=True, probe=True),
    *aten(indexing.written, per_input, _WRITTEN, chooses=True, probe=True),
    *aten(None, per_input, _FLAT | _AMONG, chooses=True, probe=True),
    *aten(indexing.placed, comparing, _PLACED, chooses=True, probe=True),
    *aten(pointwise.pointwise, per_input, {"isin.Tensor_Scalar": "is {elements} {test_element}?"}, chooses=True),
]
