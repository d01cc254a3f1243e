"""A client that writes programs at random: every answer is a value or a typed error, never a mistake of ours.

What a value turns out to be is compared with what was judged before it was computed, so this also holds meta tensors
and kernels to the same shapes and dtypes: a label decided on another shape would be worth nothing.
"""

from __future__ import annotations

import math
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.compute.messages import Limits
from apps.compute.targets import TARGETS, Parameter
from gridclient.program.graph import Dtype, Ref
from gridclient.wire.errors import GridError, InternalError
from tests.factories.programs import Recorded, tensor_asset

CONSTANTS = [
    ((3, 3), torch.float32), ((3,), torch.int64), ((), torch.float64), ((0, 3), torch.float32),
    ((2, 3, 3), torch.float16),
    ((3,), torch.bool), ((3, 3), torch.int8), ((1, 1), torch.uint8), ((3,), torch.bfloat16),
]  # fmt: skip
NONSENSE = [
    None, True, 0, 7, -9, 2**40, 2**63 - 1, -(2**63), 2**64, 0.5, math.nan, math.inf, -1e300, "x", "contiguous_format",
    Dtype("float32"), Dtype("no"), [], [0], [2**40], [[1]], Ref(9999), Ref(0, 7), [Ref(0), 1],
]  # fmt: skip


def sensible(parameter: Parameter, refs: list[Ref], source: random.Random) -> Any:
    match parameter.type.split()[0]:
        case "Reference":
            return source.choice(refs)
        case "Tensor":
            return source.choice(refs) if source.random() < 0.9 else source.choice([1, 2.5, True, -3])
        case "List[Optional[Tensor]]":
            return [source.choice([None, *refs]) for _ in range(source.randint(1, 3))]
        case "Seed":
            return source.choice([0, 7, 2**63 - 1])
        case "float":
            return source.choice([0.0, 0.5, 1.0, 2, -1.0, math.nan])
        case "str":
            return source.choice(["sum", "floor", "add", "complete", "none", "tanh"])
        case "List[bool]":
            return source.choice([[True], [True, False], [True, True, True]])
        case "List[float]":
            return source.choice([[1.0], [0.5, 2.0], []])
        case "List[Tensor]":
            return [source.choice(refs) for _ in range(source.randint(1, 3))]
        case "int":
            return source.choice([0, 1, -1, 2, -3, 5])
        case "number":
            return source.choice([0, 1, -1, 0.5, True, 300, 1e9, math.nan])
        case "bool":
            return source.random() < 0.5
        case "List[int]":
            return source.choice([[0], [1], [], [0, 1], [-1], [3, 3], [9], [1, 3, 3], [2, 1], [0, -1]])
        case "ScalarType":
            return Dtype(source.choice(["float32", "float64", "int64", "bool", "float16"]))
    return None


@pytest.mark.parametrize("seed", range(3))
def test_a_random_program_gets_values_or_typed_errors(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    recorded = Recorded(Limits(value=2**20, memory=2**26, flops=10**8))
    refs = [recorded.bind(tensor_asset(tmp_path, torch.rand(3, 3), columns=["a", "b", "c"]))]
    refs += [recorded.constant((torch.rand(shape) * 5).to(dtype)) for shape, dtype in CONSTANTS]
    known = len(refs)
    for _ in range(1500):
        target = TARGETS[source.choice(list(TARGETS))]
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter in target.parameters:
            given = sensible(parameter, refs, source) if source.random() < 0.95 else source.choice(NONSENSE)
            if parameter.keyword and (parameter.required or source.random() < 0.3):
                kwargs[parameter.name] = given
            elif not parameter.keyword and (parameter.required or source.random() < 0.5):
                args.append(given)
        ref = recorded(target.name, *args, outputs=target.outputs, **kwargs)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                recorded.value(ref)
        except InternalError as error:
            pytest.fail(f"{target.name} {args} {kwargs}: {error}")
        except GridError:
            continue
        if len(refs) < 100:
            refs.append(ref)
        else:
            refs[source.randrange(known, 100)] = ref
