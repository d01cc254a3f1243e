"""How much the time of an operation tells of its values: each operation of the table, on hostile values of one shape.

Every call is a node's own, as its workers make it. A time is the least of several in turn, of the thread and not of
the wall, so that a busy machine hardly shows.
"""

from __future__ import annotations

import itertools
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch

from apps.compute.readers.torch import prepare
from apps.compute.targets import DTYPES, TARGETS, bind, called
from gridclient.program.graph import Dtype, Ref
from tests.factories.operations import Sample, T, samples

MOST = 3.0
"""A slowest time, in terms of the fastest."""
EXTENTS = (256, 64, 16, 8)
"""Rows and columns, the first for which an operation is done in `LONGEST` seconds."""
LONGEST = 0.004
VARIANTS = 2
"""Calls of an operation, for each dtype."""
PAIRS = 60
"""Of distributions, where an operation has several operands."""
FINALISTS, ROUNDS = 4, 9
"""So many of the fastest and of the slowest are taken again, so often."""
DTYPES_TAKEN = ("float32", "float64")
FROM_METADATA = ("grid::column", "grid::columns", "grid::count", "grid::aggregate", "grid::parameter")

Draw = Callable[[int, torch.dtype, torch.Generator], torch.Tensor]


class Finding(NamedTuple):
    """The slowest and the fastest of the distributions that an operation was given, in seconds."""

    ratio: float
    op: str
    dtype: str
    slow: str
    slowest: float
    fast: str
    fastest: float


def run() -> bool:
    """Print the table, the worst first; whether every operation keeps to `MOST`."""
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    prepare()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = sorted(filter(None, map(_worst, sorted(set(TARGETS) - set(FROM_METADATA)))), reverse=True)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)
    missed = [each for each in found if each.ratio > MOST]
    print(f"steady: slowest of hostile values by fastest, at most {MOST:g} x; {len(missed)} of {len(found)} missed")
    for each in found:
        print(
            f"  {each.op:<52}{each.dtype:<9}{each.ratio:8.2f} x{each.slowest * 1e6:11.1f} us {each.slow:<30}"
            f"{each.fastest * 1e6:9.1f} us {each.fast:<30}{'missed' if each.ratio > MOST else ''}"
        )
    return not missed


# --- values ---------------------------------------------------------------------------------------------------------


def _all(number: float) -> Draw:
    return lambda count, dtype, source: torch.full((count,), number, dtype=torch.float64).to(dtype)


def _limits(of: Callable[[torch.finfo], float]) -> Draw:
    return lambda count, dtype, source: torch.full((count,), of(torch.finfo(dtype)), dtype=torch.float64).to(dtype)


def _normal(scale: float = 1.0, middle: float = 0.0) -> Draw:
    return lambda count, dtype, source: (
        torch.randn(count, dtype=torch.float64, generator=source).mul(scale).add(middle).to(dtype)
    )


def _among(*numbers: float) -> Draw:
    def draw(count: int, dtype: torch.dtype, source: torch.Generator) -> torch.Tensor:
        choice = torch.randint(len(numbers), (count,), generator=source)
        return torch.tensor(numbers, dtype=torch.float64)[choice].to(dtype)

    return draw


def _ordered(*, descending: bool) -> Draw:
    return lambda count, dtype, source: _normal()(count, dtype, source).sort(descending=descending)[0]


def _exponents(count: int, dtype: torch.dtype, source: torch.Generator) -> torch.Tensor:
    most = math.log2(torch.finfo(dtype).max)
    powers = torch.rand(count, dtype=torch.float64, generator=source).mul(2 * most).sub(most)
    signs = torch.randint(2, (count,), generator=source) * 2 - 1
    return (powers.exp2() * signs).to(dtype)


_POINTS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 0.1, 0.9, 2.0, -2.0, 1.5, -1.5, -0.5, 3.0, 5.0, -5.5, 9.5, -9.5, 12.0, -20.5, 30.0, 50.0,
    -40.0, 95.0, -95.0, 150.5, -150.5, 720.0, -720.0, 1e4, -1e4, 1e6 + 0.5, -1e6 - 0.5, 1e15, -1e15, 1e30, -1e30, 1e-30,
    -1e-30, 1e-5, -1e-5, 1e-9, math.inf, -math.inf, math.nan,
)  # fmt: skip
"""Each a distribution of its own: constants, and where branches of kernels meet."""
FLOATS: dict[str, Draw] = {
    "normal": _normal(),
    "normal x 10": _normal(10),
    "normal x 1000": _normal(1000),
    "near 1": _normal(1e-6, 1),
    "near -1": _normal(1e-6, -1),
    "near 0.5": _normal(1e-6, 0.5),
    "uniform": lambda count, dtype, source: torch.rand(count, dtype=torch.float64, generator=source).to(dtype),
    "ascending": _ordered(descending=False),
    "descending": _ordered(descending=True),
    "every exponent": _exponents,
    "0 and 1": _among(0, 1),
    "1 and -1": _among(1, -1),
    "integers": _among(*range(-9, 10)),
    "not finite, and some": _among(math.nan, math.inf, -math.inf, 0.3, -1.5),
    "huge and tiny": _among(1e30, -1e30, 1e-30, 0.3),
    "largest": _limits(lambda limits: limits.max),
    "lowest": _limits(lambda limits: limits.min),
    "smallest normal": _limits(lambda limits: limits.tiny),
    "denormal": _limits(lambda limits: limits.tiny / 4),
    "-denormal": _limits(lambda limits: -limits.tiny / 4),
    **{f"{number:g}": _all(number) for number in _POINTS},
}
BOOLS: dict[str, Draw] = {
    "random": _among(0, 1),
    "true": _all(1),
    "false": _all(0),
    "half": lambda count, dtype, source: (torch.arange(count) * 2 < count).to(dtype),
}


def _whole(low: int, high: int) -> Draw:
    return lambda count, dtype, source: torch.randint(low, high, (count,), generator=source).to(dtype)


def _one(number: int) -> Draw:
    return lambda count, dtype, source: torch.full((count,), number).to(dtype)


INTEGERS: dict[str, Draw] = {
    "0 to 7": _whole(0, 8),
    "0 to 127": _whole(0, 128),
    "any": _whole(-(2**63), 2**63 - 1),
    "ascending": lambda count, dtype, source: (torch.arange(count) * 128 // max(count, 1)).to(dtype),
    "descending": lambda count, dtype, source: (torch.arange(count, 0, -1) * 127 // max(count, 1)).to(dtype),
    **{f"{number}": _one(number) for number in (0, 1, -1, 2, 7, 62, 127, -64, 2**31 - 1, 2**62, 2**63 - 1, -(2**63))},
}


def _draws(dtype: str) -> dict[str, Draw]:
    if dtype == "bool":
        return BOOLS
    return FLOATS if DTYPES[dtype].is_floating_point else INTEGERS


def _given(sample: Sample, source: random.Random) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Operands by the names of their distributions: every one everywhere, alone, and in pairs."""
    kinds = [_draws(given.dtype) for given in sample.operands]
    chosen: dict[tuple[str, ...], None] = {}
    for name in {name: None for kind in kinds for name in kind}:
        chosen[tuple(name if name in kind else next(iter(kind)) for kind in kinds)] = None
    if len(kinds) > 1:
        for place, kind in enumerate(kinds):
            for name in kind:
                usual = [next(iter(kind)) for kind in kinds]
                chosen[(*usual[:place], name, *usual[place + 1 :])] = None
        for _ in range(PAIRS):
            chosen[tuple(source.choice(list(kind)) for kind in kinds)] = None
    for names in chosen:
        values = [
            _drawn(name, given, place) for place, (name, given) in enumerate(zip(names, sample.operands, strict=True))
        ]
        yield ", ".join(names), values


@lru_cache(500)
def _drawn(name: str, given: T, place: int) -> torch.Tensor:
    """The values of a distribution for the operand at this place."""
    generator = torch.Generator().manual_seed(place)
    values = _draws(given.dtype)[name](math.prod(given.shape), DTYPES[given.dtype], generator)
    return values.reshape(given.shape)


# --- calls ----------------------------------------------------------------------------------------------------------


def _variants(op: str, extent: int, dtype: str) -> list[Sample]:
    """Calls with the largest operands, as different as there are, their usual dtype replaced by this one."""
    found: dict[str, Sample] = {}
    for sample in sorted(_by_op(extent).get(op, []), key=lambda s: -sum(math.prod(o.shape) for o in s.operands)):
        made = Sample(op, [_typed(given, dtype) for given in sample.args],
                      {name: _typed(given, dtype) for name, given in sample.kwargs.items()})  # fmt: skip
        if not made.operands or not all(math.prod(given.shape) for given in made.operands):
            continue
        static = [given for given in (*made.args, *made.kwargs.values()) if not isinstance(given, T)]
        found.setdefault(f"{[given.dtype for given in made.operands]} {static}", made)
    if len(found) <= VARIANTS:
        return list(found.values())
    first, *rest = found.values()
    return [first, *random.Random(op).sample(rest, VARIANTS - 1)]


_FOUND: dict[int, dict[str, list[Sample]]] = {}


def _by_op(extent: int) -> dict[str, list[Sample]]:
    if extent not in _FOUND:
        _FOUND[extent] = {
            op: list(group)
            for op, group in itertools.groupby(sorted(samples(extent, extent), key=lambda s: s.op), lambda s: s.op)
        }
    return _FOUND[extent]


def _typed(given: object, dtype: str) -> object:
    if isinstance(given, list):
        return [_typed(item, dtype) for item in given]
    if isinstance(given, T) and given.dtype == "float32":
        return T(given.shape, dtype)
    return Dtype(dtype) if given == Dtype("float32") else given


def _worst(op: str) -> Finding | None:
    """The worst of an operation's calls."""
    found = []
    for dtype in DTYPES_TAKEN:
        for extent in EXTENTS:
            variants = _variants(op, extent, dtype)
            if variants and all(_quick(sample) for sample in variants):
                break
        found += [_compared(sample, dtype) for sample in variants]
    return max(found, default=None)


def _quick(sample: Sample) -> bool:
    _, values = next(_given(sample, random.Random(13)))
    call = _call(sample)
    return min(_taken(call, values) for _ in range(2)) < LONGEST


def _compared(sample: Sample, dtype: str) -> Finding:
    call, cases = _call(sample), list(_given(sample, random.Random(sample.op)))
    once = sorted((min(_taken(call, values) for _ in range(2)), number) for number, (_, values) in enumerate(cases))
    final = {number for _, number in (*once[:FINALISTS], *once[-FINALISTS:])}
    least = dict.fromkeys(final, math.inf)
    for _ in range(ROUNDS):
        for number in final:
            least[number] = min(least[number], _taken(call, cases[number][1]))
    slow, fast = max(final, key=least.__getitem__), min(final, key=least.__getitem__)
    return Finding(
        least[slow] / least[fast], sample.op, dtype, cases[slow][0], least[slow], cases[fast][0], least[fast]
    )


def _call(sample: Sample) -> Callable[[list[torch.Tensor]], object]:
    """As the torch reader calls a node's operation."""
    target = TARGETS[sample.op]
    bound = bind(target, sample.node())
    return lambda values: called(target, bound, lambda given: values[given.node] if isinstance(given, Ref) else given)


def _taken(call: Callable[[list[torch.Tensor]], object], values: list[torch.Tensor]) -> float:
    """Seconds of the thread for one call."""
    begin = time.thread_time_ns()
    call(values)
    return (time.thread_time_ns() - begin) / 1e9
