"""Element by element: arithmetic, functions, comparisons, casts, factories of the same shape."""

from __future__ import annotations

from apps.compute.rows.base import Operation, aten, per_input, per_output, several
from apps.compute.rules import pointwise

_ARITHMETIC = {
    "add.Tensor": "{self} + {other}",
    "sub.Tensor": "{self} - {other}",
    "rsub.Scalar": "{other} - {self}",
    "rsub.Tensor": "{other} - {self}",
    "mul.Tensor": "{self} × {other}",
    "div.Tensor": "{self} / {other}",
    "div.Tensor_mode": "{self} / {other}, rounded ({rounding_mode})",
    "floor_divide": "{self} / {other}, rounded down",
    "remainder.Tensor": "{self} modulo {other}",
    "remainder.Scalar_Tensor": "{self} modulo {other}",
    "fmod.Tensor": "{self} modulo {other}, with the sign of {self}",
    "addcmul": "{self} + {value} × {tensor1} × {tensor2}",
    "addcdiv": "{self} + {value} × {tensor1} / {tensor2}",
    "lerp.Scalar": "{self} moved towards {end} by {weight}",
    "lerp.Tensor": "{self} moved towards {end} by {weight}",
    "neg": "-{self}",
    "abs": "absolute value of {self}",
    "sign": "sign of {self}",
    "sgn": "sign of {self}",
    "signbit": "has {self} a minus sign?",
    "copysign.Tensor": "{self} with the sign of {other}",
    "relu": "{self}, negative values made 0",
    "floor": "{self} rounded down",
    "ceil": "{self} rounded up",
    "round": "{self} rounded",
    "round.decimals": "{self} rounded to {decimals} decimals",
    "trunc": "{self} rounded towards 0",
    "frac": "{self} without its whole part",
    "reciprocal": "1 / {self}",
    "angle": "angle of {self}: 0, or π where negative",
    "deg2rad": "{self} degrees in radians",
    "rad2deg": "{self} radians in degrees",
    "hypot": "square root of {self}² + {other}²",
    "heaviside": "1 where {self} is positive, 0 where negative, {values} where 0",
    "nan_to_num": "{self} with numbers in place of what is not finite ({nan}, {posinf}, {neginf})",
    "nextafter": "the number next to {self} towards {other}",
    "ldexp.Tensor": "{self} × 2 to the power {other}",
    "frexp.Tensor": "{self} as mantissa and exponent",
    "isnan": "is {self} not a number?",
    "isfinite": "is {self} finite?",
    "isinf": "is {self} infinite?",
    "isposinf": "is {self} +infinity?",
    "isneginf": "is {self} -infinity?",
    "clamp": "{self} clipped to [{min}, {max}]",
    "clamp.Tensor": "{self} clipped to [{min}, {max}]",
    "clamp_min": "{self}, at least {min}",
    "clamp_min.Tensor": "{self}, at least {min}",
    "clamp_max": "{self}, at most {max}",
    "clamp_max.Tensor": "{self}, at most {max}",
    "minimum": "the smaller of {self} and {other}",
    "maximum": "the larger of {self} and {other}",
    "fmin": "the smaller of {self} and {other}, missing ones left out",
    "fmax": "the larger of {self} and {other}, missing ones left out",
    "logical_and": "{self} and {other}",
    "logical_or": "{self} or {other}",
    "logical_xor": "either {self} or {other}",
    "logical_not": "not {self}",
    "bitwise_not": "not {self}, bit by bit",
}
_BITS = {
    f"bitwise_{name}.{kind}": f"{{self}} {word} {{other}}, bit by bit"
    for name, word in {"and": "and", "or": "or", "xor": "either-or"}.items()
    for kind in ("Tensor", "Scalar_Tensor")
}
_SHIFTS = {
    f"{name}.{kind}": f"bits of {{self}} shifted {side} by {{other}}"
    for side, names in {"left": ("bitwise_left_shift", "__lshift__"), "right": ("bitwise_right_shift", "__rshift__")}
    .items()
    for name in names
    for kind in (("Tensor",) if name.startswith("_") else ("Tensor", "Tensor_Scalar", "Scalar_Tensor"))
}  # fmt: skip
_FUNCTIONS = {
    "pow.Tensor_Scalar": "{self} to the power {exponent}",
    "pow.Tensor_Tensor": "{self} to the power {exponent}",
    "pow.Scalar": "{self} to the power {exponent}",
    "exp": "e to the power {self}",
    "exp2": "2 to the power {self}",
    "expm1": "e to the power {self}, minus 1",
    "log": "natural logarithm of {self}",
    "log2": "logarithm of {self} to base 2",
    "log10": "logarithm of {self} to base 10",
    "log1p": "natural logarithm of 1 + {self}",
    "logit": "logit of {self}",
    "logaddexp": "log of (e to the power {self}, plus e to the power {other})",
    "logaddexp2": "log2 of (2 to the power {self}, plus 2 to the power {other})",
    "xlogy.Tensor": "{self} × log {other}",
    "xlogy.Scalar_Self": "{self} × log {other}",
    "xlogy.Scalar_Other": "{self} × log {other}",
    "special_xlog1py": "{self} × log (1 + {other})",
    "special_xlog1py.self_scalar": "{self} × log (1 + {other})",
    "special_xlog1py.other_scalar": "{self} × log (1 + {other})",
    "special_entr": "-{self} × log {self}",
    "sqrt": "square root of {self}",
    "rsqrt": "1 / square root of {self}",
    **{name: f"{name} of {{self}}" for name in ("tan", "asin", "acos", "atan", "sinh", "cosh", "tanh")},
    **{name: f"{name} of {{self}}" for name in ("asinh", "acosh", "atanh", "sinc", "sigmoid")},
    "sin": "sine of {self}",
    "cos": "cosine of {self}",
    "atan2": "angle of the point ({other}, {self})",
    "erf": "error function of {self}",
    "erfc": "1 - error function of {self}",
    "erfinv": "inverse error function of {self}",
    "special_erfcx": "scaled 1 - error function of {self}",
    "special_ndtri": "normal quantile of {self}",
    "special_log_ndtr": "log of the normal distribution function of {self}",
    "lgamma": "log of the gamma function of {self}",
    "digamma": "digamma function of {self}",
    "polygamma": "polygamma function {n} of {self}",
    "mvlgamma": "log of the gamma function of {p} dimensions of {self}",
    "igamma": "lower incomplete gamma function of {self} at {other}",
    "igammac": "upper incomplete gamma function of {self} at {other}",
    "i0": "Bessel function I0 of {self}",
    "special_i0e": "scaled Bessel function I0 of {self}",
    "special_i1": "Bessel function I1 of {self}",
    "special_i1e": "scaled Bessel function I1 of {self}",
    "logit_backward": "gradient {grad_output} through the logit of {self}",
}
_COMPARISONS = {
    f"{name}.{kind}": f"is {{self}} {sign} {{other}}?"
    for name, sign in {"eq": "=", "ne": "≠", "lt": "<", "le": "≤", "gt": ">", "ge": "≥"}.items()
    for kind in ("Tensor", "Scalar")
}
_CONDITIONS = {
    "where.self": "{self} where {condition}, else {other}",
    "masked_fill.Scalar": "{self}, but {value} where {mask}",
    "masked_fill.Tensor": "{self}, but {value} where {mask}",
}
_FILLED = {"zeros_like": "zeros", "ones_like": "ones", "full_like": "{fill_value} everywhere"}
ROWS: list[Operation] = [
    *aten(pointwise.pointwise, per_input, _ARITHMETIC | _BITS | _SHIFTS, probe=True),
    *aten(pointwise.pointwise, several, _FUNCTIONS, probe=True),
    *aten(pointwise.pointwise, per_input, _COMPARISONS, chooses=True, probe=True),
    *aten(pointwise.pointwise, per_input, _CONDITIONS, chooses=True, probe=True),
    *aten(pointwise.cast, per_output, {"_to_copy": "{self} as {dtype}"}),
    *aten(pointwise.clone, per_output, {"clone": "{self}"}),
    *aten(pointwise.like, per_output, _FILLED, probe=True),
]
