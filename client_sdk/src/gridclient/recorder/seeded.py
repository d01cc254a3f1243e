"""Random operations: each is recorded with a seed drawn from torch's generator here, so that `torch.manual_seed`
reproduces them, and the node makes a generator of its own for each.

The numbers are distributed as torch's, but are not those that a local tensor would get from the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from gridclient.program.operations import OPERATIONS
from gridclient.recorder.places import check_writable
from gridclient.recorder.rewrites import WRITTEN, Rule, remote_options
from gridclient.recorder.spec import DTYPES, Spec
from gridclient.recorder.tape import Tape, Value, operation
from gridclient.wire.errors import InvalidInputError, OperationNotAllowedError

Draw = Callable[..., Any]
_NO_SOURCES: frozenset[str] = frozenset()
_MANTISSA = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}
"""`random_()` gives integers up to two to this power: those that the dtype holds exactly."""


class Draws:
    """The seeded composites for one call of `name`, with arithmetic on what they give."""

    def __init__(self, tape: Tape, name: str, generator: torch.Generator | None) -> None:
        self.tape = tape
        self.name = name
        self._generator = generator

    def seed(self) -> int:
        """63 bits of the user's generator, or of torch's default one."""
        return int(torch.empty((), dtype=torch.int64, device="cpu").random_(generator=self._generator))

    def fresh(self, composite: str, spec: Spec, *before: Any) -> Value:
        """`grid::rand`, `grid::randn` or `grid::randint` with the shape and dtype of `spec`."""
        if composite != "grid::randint" and not spec.dtype.is_floating_point:
            raise OperationNotAllowedError(f"{self.name} is not implemented for {spec.dtype}.", operation=self.name)
        self._check(composite)
        args = [*before, list(spec.shape), DTYPES[spec.dtype], self.seed()]
        dense = Spec.dense(spec.shape, spec.dtype)
        drawn: Value = self.tape.write(composite, args, {}, dense, _NO_SOURCES, arguments=4 + len(spec.shape))
        return drawn

    def of(self, composite: str, value: Value, specs: Any, *static: Any) -> Any:
        """`grid::bernoulli` or `grid::dropout` of a value."""
        self._check(composite)
        return self.tape.write(composite, [value.ref, *static, self.seed()], {}, specs, value.sources)

    def apply(self, name: str, *args: Any, **kwargs: Any) -> Value:
        """An operation of the table on what was drawn."""
        aten = f"aten::{name}"
        self._check(aten)
        value: Value = self.tape.apply(operation(aten), args, kwargs)
        return value

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        return value if value.spec.dtype is dtype else self.apply("_to_copy", value, dtype=dtype)

    def chance(self, spec: Spec, p: float) -> Value:
        """1 with probability p, else 0."""
        if not 0 <= p <= 1:
            raise InvalidInputError(f"{self.name} expects a probability in [0, 1], not {p}.", operation=self.name)
        uniform = self.fresh("grid::rand", Spec.dense(spec.shape, torch.float32))
        return self.cast(self.apply("lt.Scalar", uniform, p), spec.dtype)

    def integers(self, spec: Spec, low: int, high: int) -> Value:
        """Integers in [low, high)."""
        if low >= high:
            raise InvalidInputError(f"{self.name} expects low < high, not [{low}, {high}).", operation=self.name)
        if high > _integers_below(spec.dtype) or (low < 0 and low < _least(spec.dtype)):
            raise InvalidInputError(
                f"{self.name}: [{low}, {high}) does not fit into {spec.dtype}.", operation=self.name
            )
        return self.fresh("grid::randint", spec, low, high)

    def _check(self, composite: str) -> None:
        if composite not in OPERATIONS:
            raise OperationNotAllowedError(
                f"{self.name} is not in the table of operations that a node computes: it needs {composite}.",
                operation=self.name,
            )


def _integers_below(dtype: torch.dtype) -> int:
    """One more than the largest integer that `random_()` draws in this dtype; in int64, the largest bound there is."""
    if dtype.is_floating_point:
        return 2 ** _MANTISSA[dtype] + 1
    return 2 if dtype is torch.bool else min(int(torch.iinfo(dtype).max) + 1, 2**63 - 1)


def _least(dtype: torch.dtype) -> int:
    if dtype.is_floating_point:
        return -(2 ** _MANTISSA[dtype])
    return 0 if dtype is torch.bool else int(torch.iinfo(dtype).min)


def _normal(draws: Draws, spec: Spec, mean: float = 0.0, std: float = 1.0) -> Value:
    if std < 0:
        raise InvalidInputError(f"{draws.name} expects std >= 0, not {std}.", operation=draws.name)
    value = draws.fresh("grid::randn", spec)
    value = value if std == 1 else draws.apply("mul.Tensor", value, std)
    return value if mean == 0 else draws.apply("add.Tensor", value, mean)


def _uniform(draws: Draws, spec: Spec, low: float = 0.0, high: float = 1.0) -> Value:
    if low > high:
        raise InvalidInputError(f"{draws.name} expects from <= to, not [{low}, {high}).", operation=draws.name)
    value = draws.fresh("grid::rand", spec)
    value = value if high - low == 1 else draws.apply("mul.Tensor", value, high - low)
    return value if low == 0 else draws.apply("add.Tensor", value, low)


def _exponential(draws: Draws, spec: Spec, rate: float = 1.0) -> Value:
    if not rate > 0:
        raise InvalidInputError(f"{draws.name} expects lambda > 0, not {rate}.", operation=draws.name)
    survival = draws.apply("log1p", draws.apply("neg", draws.fresh("grid::rand", spec)))
    return draws.apply("div.Tensor", survival, -rate)


def _log_normal(draws: Draws, spec: Spec, mean: float = 1.0, std: float = 2.0) -> Value:
    return draws.apply("exp", _normal(draws, spec, mean, std))


def _cauchy(draws: Draws, spec: Spec, median: float = 0.0, sigma: float = 1.0) -> Value:
    angle = _uniform(draws, spec, -math.pi / 2, math.pi / 2)
    return draws.apply("add.Tensor", draws.apply("mul.Tensor", draws.apply("tan", angle), sigma), median)


def _geometric(draws: Draws, spec: Spec, p: float) -> Value:
    if not 0 < p < 1:
        raise InvalidInputError(f"{draws.name} expects a probability in (0, 1), not {p}.", operation=draws.name)
    wide = Spec.dense(spec.shape, spec.dtype if spec.dtype.is_floating_point else torch.float32)
    survival = draws.apply("log1p", draws.apply("neg", draws.fresh("grid::rand", wide)))
    trials = draws.apply("ceil", draws.apply("div.Tensor", survival, math.log1p(-p)))
    return draws.cast(draws.apply("clamp_min", trials, 1), spec.dtype)


def _integers(draws: Draws, spec: Spec, low: int | None = None, high: int | None = None) -> Value:
    bound = _integers_below(spec.dtype) if high is None else high
    return draws.integers(spec, low or 0, bound)


def _below(draws: Draws, spec: Spec, high: int) -> Value:
    return draws.integers(spec, 0, high)


def _chance(draws: Draws, spec: Spec, p: float = 0.5) -> Value:
    return draws.chance(spec, p)


def _rand(draws: Draws, spec: Spec) -> Value:
    return draws.fresh("grid::rand", spec)


def _chances(draws: Draws, spec: Spec, probabilities: Any) -> Value:
    """`bernoulli_` by a tensor of probabilities."""
    given = probabilities.current()
    if given.spec.shape != spec.shape:
        given = draws.apply("expand", given, list(spec.shape))
    if not given.spec.dtype.is_floating_point:
        given = draws.cast(given, torch.float32)
    drawn: Value = draws.of("grid::bernoulli", given, Spec.dense(spec.shape, given.spec.dtype))
    return draws.cast(drawn, spec.dtype)


def _write(name: str, draw: Draw) -> Rule:
    """In place: the draw becomes the target's value."""

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target, options = check_writable(args[0], name), dict(kwargs)
        draws = Draws(tape, name, options.pop("generator", None))
        value = draw(draws, target.spec, *args[1:], **{_PLAIN.get(key, key): given for key, given in options.items()})
        target.write(value)
        return WRITTEN

    return rule


def _like(name: str, draw: Draw) -> Rule:
    """A draw of the first argument's shape; `dtype=` may say another dtype."""

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        options = dict(kwargs)
        draws = Draws(tape, name, options.pop("generator", None))
        dtype = remote_options(name, args, options).get("dtype", args[0].spec.dtype)
        like = tape.infer("aten::zeros_like", torch.ops.aten.zeros_like.default, args[:1], {"dtype": dtype})
        assert isinstance(like, Spec)
        return tape.laid_out(draw(draws, like, *args[1:]), like)

    return rule


def _bernoulli(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    draws = Draws(tape, "aten::bernoulli", kwargs.get("generator"))
    spec = args[0].spec
    if len(args) > 1 or "p" in kwargs:
        return draws.chance(spec, args[1] if len(args) > 1 else kwargs["p"])
    if not spec.dtype.is_floating_point:
        raise OperationNotAllowedError(f"{draws.name} is not implemented for {spec.dtype}.", operation=draws.name)
    return _chances(draws, spec, args[0])


def _dropout(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    draws = Draws(tape, "aten::native_dropout", None)
    given, p, train = args[0].current(), float(args[1]), args[2] is not False
    if not 0 <= p <= 1:
        raise InvalidInputError(f"{draws.name} expects a probability in [0, 1], not {p}.", operation=draws.name)
    shape = given.spec.shape
    if not train:
        return given, tape.filled(shape, True, torch.bool)
    return draws.of("grid::dropout", given, (Spec.dense(shape, given.spec.dtype), Spec.dense(shape, torch.bool)), p)


def _normal_of(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """`torch.normal` with tensors for mean, standard deviation or both."""
    draws = Draws(tape, "aten::normal", kwargs.get("generator"))
    mean, std = args[0], args[1] if len(args) > 1 else kwargs.get("std", 1.0)
    name, call = "aten::add.Tensor", torch.ops.aten.add.Tensor
    spec = tape.infer(name, call, [mean, std], {}) if hasattr(std, "spec") else mean.spec
    assert isinstance(spec, Spec)
    return draws.apply("add.Tensor", draws.apply("mul.Tensor", draws.fresh("grid::randn", spec), std), mean)


def _leaky(name: str, *, write: bool) -> Rule:
    """`rrelu` outside training is a leaky ReLU; its noise in training is not in the table."""

    def rule(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
        low, high, training = [*args[2:5], *_LEAKS[len(args[2:5]) :]]
        if training:
            raise OperationNotAllowedError(
                f"{name} in training is not in the table of operations that a node computes; use "
                "torch.nn.functional.leaky_relu.",
                operation=name,
            )
        leaky: Value = tape.apply(operation("aten::leaky_relu"), (args[0], (low + high) / 2), {})
        if not write:
            return leaky
        check_writable(args[0], name).write(leaky)
        return WRITTEN

    return rule


_LEAKS: list[Any] = [0.125, 1 / 3, False]
_PLAIN = {"from": "low", "to": "high", "lambd": "rate"}
_IN_PLACE: dict[str, Draw] = {
    "normal_": _normal,
    "uniform_": _uniform,
    "exponential_": _exponential,
    "log_normal_": _log_normal,
    "cauchy_": _cauchy,
    "geometric_": _geometric,
    "bernoulli_.float": _chance,
    "bernoulli_.Tensor": _chances,
    "random_": _integers,
    "random_.to": _below,
    "random_.from": _integers,
}
RULES: dict[str, Rule] = {
    f"aten::{name}": _write(f"aten::{name.partition('.')[0]}", draw) for name, draw in _IN_PLACE.items()
}
RULES |= {
    f"aten::{name}{kind}": _like(f"aten::{name.partition('.')[0]}", draw)
    for name, kinds, draw in (
        ("rand_like", ("", ".generator"), _rand),
        ("randn_like", ("", ".generator"), _normal),
        ("randint_like", ("", ".generator"), _below),
        ("randint_like", (".low_dtype", ".low_generator_dtype"), _integers),
    )
    for kind in kinds
}
RULES |= {
    "aten::bernoulli": _bernoulli,
    "aten::bernoulli.p": _bernoulli,
    "aten::native_dropout": _dropout,
    "aten::normal.Tensor_float": _normal_of,
    "aten::normal.float_Tensor": _normal_of,
    "aten::normal.Tensor_Tensor": _normal_of,
    "aten::rrelu_with_noise": _leaky("aten::rrelu_with_noise", write=False),
    "aten::rrelu_with_noise_": _leaky("aten::rrelu_with_noise_", write=True),
}
