"""Along axes: sums, extremes, orders, running totals, norms, distances, softmax."""

from __future__ import annotations

from apps.compute.rows.base import Operation, aten, comparing, distancing, per_input, several
from apps.compute.rules import composite, pointwise, products, reductions

_SUMS = {"sum": "sum of {self}", "sum.dim_IntList": "sum of {self} along {dim}"}
_MEANS = {"mean": "mean of {self}", "mean.dim": "mean of {self} along {dim}"}
_COUNTS = {
    "nansum": "sum of {self} along {dim}, missing values left out",
    "count_nonzero": "how many of {self} are not 0 along {dim}",
    "count_nonzero.dim_IntList": "how many of {self} are not 0 along {dim}",
}
_KTH = {"kthvalue": "value number {k} of {self} along {dim}, from the smallest, and where"}
_WITHIN = {
    "prod": "product of {self}",
    "prod.dim_int": "product of {self} along {dim}",
    "std.correction": "standard deviation of {self} along {dim}",
    "var_mean.correction": "variance and mean of {self} along {dim}",
    "std_mean.correction": "standard deviation and mean of {self} along {dim}",
    "linalg_vector_norm": "norm of order {ord} of {self} along {dim}",
    "norm.Scalar": "norm of order {p} of {self}",
    "norm.ScalarOpt_dim": "norm of order {p} of {self} along {dim}",
    "norm.ScalarOpt_dim_dtype": "norm of order {p} of {self} along {dim}",
    "logsumexp": "log of the sum of e to the power {self} along {dim}",
    "all": "are all of {self} true?",
    "all.dim": "are all of {self} true along {dim}?",
    "all.dims": "are all of {self} true along {dim}?",
    "any": "is any of {self} true?",
    "any.dim": "is any of {self} true along {dim}?",
    "any.dims": "is any of {self} true along {dim}?",
    "amax": "largest of {self} along {dim}",
    "amin": "smallest of {self} along {dim}",
    "aminmax": "smallest and largest of {self} along {dim}",
    "max": "largest of {self}",
    "max.dim": "largest of {self} along {dim}, and where",
    "min": "smallest of {self}",
    "min.dim": "smallest of {self} along {dim}, and where",
    "argmax": "where {self} is largest along {dim}",
    "argmin": "where {self} is smallest along {dim}",
    "median": "median of {self}",
    "median.dim": "median of {self} along {dim}, and where",
    "nanmedian": "median of {self}, missing values left out",
    "nanmedian.dim": "median of {self} along {dim}, missing values left out, and where",
    "mode": "most frequent of {self} along {dim}, and where",
}
_VARIANCES = {"var.correction": "variance of {self} along {dim}"}
_ORDERED = {
    "sort": "{self} sorted along {dim}, and from where",
    "sort.stable": "{self} sorted along {dim}, and from where",
    "topk": "the first {k} of {self} sorted along {dim}, and from where",
}
_RUNNING = {
    "cumsum": "running sum of {self} along {dim}",
    "cumprod": "running product of {self} along {dim}",
    "logcumsumexp": "log of the running sum of e to the power {self} along {dim}",
    "cummax": "largest of {self} so far along {dim}, and where",
    "cummin": "smallest of {self} so far along {dim}, and where",
}
_SOFTMAX = {"_softmax": "softmax of {self} along {dim}", "_log_softmax": "log-softmax of {self} along {dim}"}
_DISTANCES = {"_cdist_forward": "distances of order {p} between rows of {x1} and rows of {x2}"}
_MIXING = {
    "_cdist_backward": "gradient {grad} through the distances between rows of {x1} and {x2}",
    "dist": "distance of order {p} between {self} and {other}",
    "trace": "sum of the diagonal of {self}",
}
_RENORMED = {"renorm": "{self}, each slice along axis {dim} scaled down to a norm of at most {maxnorm}"}
ROWS: list[Operation] = [
    *aten(reductions.sums, per_input, _SUMS, probe=True),
    *aten(reductions.means, per_input, _MEANS, probe=True),
    *aten(reductions.totals, per_input, _COUNTS, probe=True),
    *aten(reductions.variances, several, _VARIANCES, chooses=True, probe=True),
    *aten(reductions.within_rows, several, _WITHIN, chooses=True, probe=True),
    *aten(reductions.within_rows, comparing, _KTH, chooses=True, probe=True),
    *aten(reductions.ordered, comparing, _ORDERED, chooses=True, probe=True),
    *aten(reductions.ordered, several, _RUNNING, chooses=True, probe=True),
    *aten(reductions.renormed, several, _RENORMED, probe=True),
    *aten(pointwise.softmax, several, _SOFTMAX, probe=True),
    *aten(products.distances, distancing, _DISTANCES, probe=True),
    *aten(None, distancing, _MIXING, chooses=True, probe=True),
    Operation("grid::count", reductions.counts, per_input, "number of records of {self}"),
    Operation("grid::aggregate", composite.aggregates, several, "exact {kind} of {self} (with {other}) by {by}"),
]
