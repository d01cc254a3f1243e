"""The bytes of a plan: small, one encoding each, and typed refusals of everything else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

import gridclient as grid
from gridclient.program.graph import Node, Ref
from gridclient.program.plan_format import FORMAT_VERSION, MAGIC, decode_plan, encode_plan, plan_digest
from gridclient.program.plan_graph import MAX_OPERATIONS, MAX_PLAN, seed_of
from gridclient.wire import errors
from gridsite.reference.plans import plain
from tests.factories.plans import batch, parameters, train_step

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "plan-vectors.json").read_text()
)
MOST_OF_A_TRAINING_STEP = 1_300


def packed(*body: Any, constants: bytes = b"", magic: bytes = MAGIC, version: int = FORMAT_VERSION) -> bytes:
    data = msgspec.msgpack.encode(list(body))
    return struct.pack("<8sBI", magic, version, len(data)) + data + constants


def small(
    *,
    operations: int = 1,
    name: str = "double",
    inputs: Any = (("x", "float32", (2,)),),
    constants: Any = (),
    instructions: Any = (("mul.Tensor", 1, b"", 2.0),),
    code: bytes = b"\0\1",
    results: Any = ((1, "float32", (2,)),),
) -> bytes:
    return packed(operations, name, "", inputs, constants, instructions, code, results)


def test_a_training_step_takes_about_a_kilobyte() -> None:
    plan = grid.plan(train_step, example=(*batch(), *parameters()), name="train-step")
    assert 75 <= len(plan.operations) <= 90, plan
    assert plan._graph.constants == {}
    assert plan.nbytes <= MOST_OF_A_TRAINING_STEP, f"{len(plan.operations)} operations take {plan.nbytes} bytes"


def test_a_plan_decodes_to_what_was_encoded() -> None:
    graph = decode_plan(small())
    assert encode_plan(graph) == small()
    assert graph.nodes == [Node(1, "aten::mul.Tensor", [Ref(0), 2.0])]
    assert graph.results == [Ref(1)]


@pytest.mark.parametrize("vector", VECTORS["plans"], ids=lambda vector: vector["meaning"])
def test_a_vector_decodes_and_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    graph = decode_plan(data)
    assert encode_plan(graph) == data
    assert plan_digest(data) == vector["sha256"]
    assert graph.name == vector["name"]
    assert [msgspec.to_builtins(given) for given in graph.inputs] == vector["inputs"]
    assert plain(graph) == vector["nodes"]
    assert [[ref.node, ref.output] for ref in graph.results] == vector["results"]
    assert graph.size == vector["size"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["meaning"])
def test_a_hostile_vector_is_refused_with_the_stated_code(vector: dict[str, Any]) -> None:
    with pytest.raises(errors.BY_CODE[vector["code"]]):
        decode_plan(bytes.fromhex(vector["hex"]))


def test_every_seed_of_a_call_is_another() -> None:
    for vector in VECTORS["seeds"]:
        assert seed_of(vector["seed"], vector["place"]) == vector["gives"]
    assert len({seed_of(seed, place) for seed in range(20) for place in range(20)}) == 400


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", errors.InvalidInputError),
        (b"PK\3\4" + bytes(100), errors.InvalidInputError),
        (packed(magic=b"GRIDPLAX"), errors.InvalidInputError),
        (packed(version=2), errors.VersionMismatchError),
        (small(operations=10**6), errors.VersionMismatchError),
        (small() + b"x", errors.InvalidInputError),
        (small()[:-1], errors.InvalidInputError),
        (bytes(MAX_PLAN + 1), errors.LimitExceededError),
        (small(name="Ünder"), errors.InvalidInputError),
        (small(name="../etc"), errors.InvalidInputError),
        (small(inputs=[["<b>", "float32", [2]]]), errors.InvalidInputError),
        (small(inputs=[["x", "object", [2]]]), errors.InvalidInputError),
        (small(inputs=[["x", "float32", [2**40, 2**40]]]), errors.InvalidInputError),
        (small(inputs=[["x", "float32", [-1]]]), errors.InvalidInputError),
        (small(inputs=[["x", "float32", [1] * 17]]), errors.InvalidInputError),
        (small(instructions=[["mul_.Tensor", 1, b"", 2.0]]), errors.OperationNotAllowedError),
        (small(instructions=[["os::system", 1, "true"]]), errors.OperationNotAllowedError),
        (small(instructions=[["grid::asset", 1, "d", 1, "values"]]), errors.OperationNotAllowedError),
        (small(instructions=[["grid::plan", 1, "d", 1, []]]), errors.OperationNotAllowedError),
        (small(instructions=[["mul.Tensor", 0, b"", 2.0]]), errors.InvalidInputError),
        (small(instructions=[["mul.Tensor", True, b"", 2.0]]), errors.InvalidInputError),
        (small(instructions=[["mul.Tensor", 1, b"", b"float99"]]), errors.InvalidInputError),
        (small(instructions=[["mul.Tensor", 1, b"", [[[[[1]]]]]]]), errors.InvalidInputError),
        (small(instructions=[["mul.Tensor", 1, b"", {"a": 1}, 2.0]]), errors.InvalidInputError),
        (small(instructions=[["mul.Tensor", 1, b"", [0] * 5000]]), errors.LimitExceededError),
        (small(code=b"\1\1"), errors.InvalidInputError),
        (small(code=b"\0\2"), errors.InvalidInputError),
        (small(code=b"\0\0"), errors.InvalidInputError),
        (small(code=b"\0"), errors.InvalidInputError),
        (small(code=b"\0\x81\0"), errors.InvalidInputError),
        (small(code=b"\0\xff\xff\xff\xff\xff"), errors.InvalidInputError),
        (small(code=b"\0\1" * (MAX_OPERATIONS + 1)), errors.LimitExceededError),
        (small(results=[]), errors.LimitExceededError),
        (small(results=[[2, "float32", [2]]]), errors.InvalidInputError),
        (small(results=[[-1, "float32", [2]]]), errors.InvalidInputError),
        (small(results=[[1, "float32", [2], [1, 1]]]), errors.InvalidInputError),
        (small(constants=[bytes(32)]), errors.InvalidInputError),
        (packed(*[[]] * 8), errors.InvalidInputError),
    ],
)
def test_what_is_no_plan_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode_plan(data)


def test_a_constant_that_was_changed_is_noticed() -> None:
    data = bytearray(grid.plan(lambda x: x * torch.arange(2.0), example=torch.zeros(2), name="scaled")._data)
    data[-1] ^= 1
    with pytest.raises(grid.InvalidInputError, match="changed"):
        decode_plan(bytes(data))


def test_constants_are_a_safetensors_file_that_others_read() -> None:
    from safetensors.torch import load

    weights = torch.arange(6.0, dtype=torch.float16).reshape(2, 3)
    flags = torch.tensor([True, False])
    plan = grid.plan(lambda x: torch.where(flags, x, 0.0) @ weights.float(), example=torch.zeros(4, 2), name="pick")
    data = plan._data
    _, _, length = struct.unpack_from("<8sBI", data)
    found = load(data[13 + length :])
    assert any(torch.equal(each, flags) for each in found.values())
    assert any(torch.equal(each, weights.float()) for each in found.values())
